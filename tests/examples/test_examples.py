"""The examples that the documentation shows: they plan, they run, and they give what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from portaflow.load import load
from portaflow.plan import Run
from portaflow.session import Session
from portaflow.target import load_target

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NAMES = sorted(f.name for f in EXAMPLES.iterdir() if f.is_dir())


def session(root: Path) -> Session:
    sets = [f"{kind}.root={root}/{kind}" for kind in ("store", "compute", "container")]
    return Session(load_target("local", environ={}, sets=sets))


def ran(name: str, root: Path, **params: Any) -> tuple[dict[str, Any], Session]:
    """Run an example to its good end; return the tasks' values."""
    place, values, told = session(root), dict[str, Any](), list[str]()

    def observe(action: Any, event: Any) -> None:
        told.append(f"{action.id} {event.phase.value} {event.reason}")
        if event.value is not None:
            values[action.id] = event.value

    run = Run(id="r", params=params)
    state = place.start(load(EXAMPLES / name), run, observe).run()
    assert state.succeeded, "\n".join(told)
    return values, place


def test_each_kind_of_pipeline_has_an_example() -> None:
    kinds = {name: {t.kind for t in load(EXAMPLES / name).pipeline.tasks} for name in NAMES}
    assert kinds == {
        "container-only": {"container"},
        "hybrid": {"spark", "container"},
        "spark-only": {"spark"},
    }


@pytest.mark.parametrize("name", NAMES)
def test_an_example_plans_and_starts_nothing(name: str, tmp_path: Path) -> None:
    planned = session(tmp_path).plan(load(EXAMPLES / name), Run(id="r"))
    assert not [note for note in planned.notes if note.fit.verdict.value == "refused"]
    assert not list(tmp_path.iterdir())


def test_yaml_and_python_give_the_same_pipeline_and_plan(tmp_path: Path) -> None:
    written = load(EXAMPLES / "hybrid")
    coded = load(EXAMPLES / "hybrid" / "same_in_python.py")
    assert written.file.suffix == ".yaml"
    assert written.pipeline == coded.pipeline
    place, run = session(tmp_path), Run(id="r")
    assert place.plan(written, run).to_json() == place.plan(coded, run).to_json()


def test_container_only_runs(tmp_path: Path) -> None:
    values, _ = ran("container-only", tmp_path, count=10)
    assert values == {"mean": {"count": 10, "mean": 5.5}}


@pytest.mark.spark
def test_spark_only_runs(tmp_path: Path) -> None:
    _, place = ran("spark-only", tmp_path, at_least=3)
    uri = place.backends.store.url("spark-only/r/count/counts")
    lines = b"".join(place.fs.cat_file(file) for file in sorted(place.fs.glob(f"{uri}/*.json")))
    assert lines == b'{"word":"the","count":5}\n{"word":"pipeline","count":3}\n'


@pytest.mark.spark
def test_hybrid_runs(tmp_path: Path) -> None:
    values, _ = ran("hybrid", tmp_path)
    assert values == {"top": {"words": 13, "top": "the", "times": 5}}
