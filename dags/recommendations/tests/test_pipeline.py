"""The definition: that it loads, plans, names no cloud, and runs from end to end."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from portaflow.load import load
from portaflow.plan import Plan, Run
from portaflow.session import Session
from portaflow.target import load_target

FOLDER = Path(__file__).parent.parent
CODE = sorted([FOLDER / "pipeline.py", *FOLDER.glob("jobs/*.py"), *FOLDER.glob("images/*/*.py")])
PROVIDERS = (
    "aws|amazon|boto3?|emr|eks|s3a?|s3fs|gcp|google|gcs|gcsfs|gs|gke|dataproc|azure|kubernetes"
)


def session(root: Path) -> Session:
    sets = (
        f"store.root={root}/store",
        f"compute.root={root}/local",
        f"container.root={root}/local",
    )
    return Session(load_target("local", environ={}, sets=sets))


def planned(root: Path, **params: int) -> Plan:
    return session(root).plan(load(FOLDER), Run(id="r", params=params))


def test_it_plans_both_spark_tasks_on_one_cluster_that_is_stopped_last(tmp_path: Path) -> None:
    actions = planned(tmp_path).by_id
    assert list(actions) == ["cluster/spark", "features", "train", "recommend", "stop/spark"]
    assert [id for id, a in actions.items() if a.parent] == ["features", "recommend"]
    assert actions["train"].needs == {"features"}
    assert actions["recommend"].needs == {"features", "train", "cluster/spark"}
    assert actions["stop/spark"].needs == {"cluster/spark", "features", "recommend"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "task"), [("scale", "features"), ("rank", "train"), ("seed", "train")]
)
def test_a_parameter_reaches_the_task_it_is_for(tmp_path: Path, name: str, task: str) -> None:
    plain, other = planned(tmp_path), planned(tmp_path, **{name: 97})
    changed = [a.id for a in plain.actions if a.request != other.by_id[a.id].request]
    assert changed == [task]
    assert "97" in repr(other.by_id[task].request)


def test_what_a_task_is_told_is_what_the_plan_says(tmp_path: Path) -> None:
    """No argument is left a template, and each output and input is handed over."""
    for action in planned(tmp_path).actions:
        uris = [*action.inputs.values(), *action.outputs.values()]
        arguments = getattr(action.spec, "args", ())
        assert set(uris) <= set(arguments)
        assert not [a for a in arguments if "{" in a or "<" in a]


@pytest.mark.parametrize("file", CODE, ids=lambda f: f.name)
def test_no_provider_is_named(file: Path) -> None:
    assert re.findall(rf"\b({PROVIDERS})\b", file.read_text(), re.IGNORECASE) == []


@pytest.mark.parametrize("file", [f for f in CODE if f.name != "pipeline.py"], ids=lambda f: f.name)
def test_job_code_knows_nothing_of_portaflow(file: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert not [name for name in imported if name.startswith("portaflow")]
    assert "PORTAFLOW" not in file.read_text()


def test_the_image_is_pinned_and_holds_what_the_task_runs() -> None:
    folder = FOLDER / "images" / "train"
    for line in (folder / "requirements.txt").read_text().split():
        assert re.fullmatch(r"[a-z-]+==[\d.]+", line)
    copied = re.findall(r"^COPY (\S+) \.$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    assert {*copied, "Dockerfile"} == {f.name for f in folder.iterdir() if f.is_file()}


@pytest.mark.spark
def test_it_runs_on_this_machine(tmp_path: Path) -> None:
    place = session(tmp_path)
    events: list[Any] = []
    run = Run(id="r", params={"top_n": 3})
    state = place.start(load(FOLDER), run, lambda action, event: events.append(event)).run()
    assert state.succeeded, [event.reason for event in events if event.reason]
    values = {event.action: event.value for event in events if event.value}
    assert values["features"]["ratings"] == 1501
    assert values["train"]["rmse"] < 0.9 * values["train"]["baseline_rmse"]
    assert values["recommend"]["recommendations"] == 3 * values["recommend"]["users"] == 90
    assert all(len(example["items"]) == 3 for example in values["recommend"]["examples"])
    drivers = [place.backends.driver(kind) for kind in ("cluster", "job", "container")]
    assert [thing for driver in drivers for thing in driver.owned()] == []
