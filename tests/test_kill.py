"""kill -9 of the engine at every event, and around every effect: a resume finishes the run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from portaflow.backend import Handle
from portaflow.session import Session

from .kill.runner import KINDS, session

_TASKS = ("features", "train", "recommend")
_EVENTS = [
    *(f"cluster/spark {phase}" for phase in ("starting", "running", "done")),
    *(f"{t} {phase}" for t in _TASKS for phase in ("starting", "running", "committing", "done")),
    *(f"stop/spark {phase}" for phase in ("starting", "running", "done")),
]
_EFFECTS = [
    *(f"start {name}" for name in ("spark", *_TASKS)),
    *(f"commit {name}" for name in _TASKS),
    "stop spark",
]
BOUNDARIES = [
    "after begin",
    *(f"{when} event {event}" for event in _EVENTS for when in ("before", "after")),
    *(f"{when} {effect}" for effect in _EFFECTS for when in ("before", "after")),
]


class Runner:
    """Forks engines from a process that has imported all they need."""

    def __init__(self, errors: Path) -> None:
        self._errors = errors
        command = [sys.executable, str(Path(__file__).parent / "kill" / "runner.py")]
        pipe = subprocess.PIPE
        with errors.open("w") as stderr:
            self._process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=stderr, text=True
            )

    def __call__(self, folder: Path, verb: str, boundary: str = "", pipeline: str = "light") -> int:
        """Return the exit code of an engine, or minus the signal that ended it."""
        assert self._process.stdin
        assert self._process.stdout
        print(
            json.dumps([pipeline, str(folder), verb, boundary]),
            file=self._process.stdin,
            flush=True,
        )
        return int(self._process.stdout.readline())

    def errors(self) -> str:
        return self._errors.read_text()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("runner") / "errors")
    yield runner
    runner.close()


def alive(opened: Session) -> list[Handle]:
    drivers = (opened.backends.driver(kind) for kind in KINDS)
    return [handle for driver in drivers for handle in driver.owned()]


@pytest.fixture(autouse=True)
def _a_test_that_fails_leaves_nothing(tmp_path: Path) -> Iterator[None]:
    yield
    for pipeline in ("light", "recommendations"):
        backends = session(tmp_path, pipeline).backends
        for driver in (backends.driver(kind) for kind in KINDS):
            for handle in list(driver.owned()):
                driver.stop(handle)


def processes_in(folder: Path) -> list[str]:
    """The processes that work in a folder, as the kernel sees them."""
    found = []
    for cwd in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if cwd.resolve(strict=True).is_relative_to(folder):
                found.append((cwd.parent / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def assert_nothing_is_left(opened: Session, folder: Path, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while (left := [*alive(opened), *processes_in(folder)]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []


def assert_each_ran_once(folder: Path) -> None:
    """Each thing began once, and ended before the next one began: nothing ran twice."""
    lines = (folder / "ledger").read_text().splitlines()
    assert lines.count("cluster begins") == 1
    lines.remove("cluster begins")
    assert lines == [f"{task} {what}" for task in _TASKS for what in ("begins", "ends")]
    assert len(list((folder / "compute" / "clusters").iterdir())) == 1


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_a_run_killed_here_is_resumed_and_nothing_runs_twice(
    engine: Runner, tmp_path: Path, boundary: str
) -> None:
    assert engine(tmp_path, "start", boundary) == -9, engine.errors()
    assert engine(tmp_path, "resume") == 0, engine.errors()
    assert_each_ran_once(tmp_path)
    assert_nothing_is_left(session(tmp_path), tmp_path)
    opened = session(tmp_path)
    assert opened.past(opened.find("light/r")).state.succeeded


def test_the_boundaries_are_all_there_are(engine: Runner, tmp_path: Path) -> None:
    assert engine(tmp_path, "start") == 0, engine.errors()
    opened = session(tmp_path)
    events = opened.past(opened.find("light/r")).events
    assert sorted(f"{e.action} {e.phase.value}" for e in events) == sorted(_EVENTS)


def test_a_resume_that_is_killed_over_and_over_still_ends(engine: Runner, tmp_path: Path) -> None:
    assert engine(tmp_path, "start", "before event cluster/spark running") == -9
    opened = session(tmp_path)
    for event in _EVENTS:
        past = opened.past(opened.find("light/r")).events
        if event not in {f"{e.action} {e.phase.value}" for e in past}:
            assert engine(tmp_path, "resume", f"after event {event}") == -9, engine.errors()
    assert engine(tmp_path, "resume") == 0, engine.errors()
    assert_each_ran_once(tmp_path)
    assert_nothing_is_left(session(tmp_path), tmp_path)


@pytest.mark.spark
def test_recommendations_with_real_spark_survive_three_kills(
    engine: Runner, tmp_path: Path
) -> None:
    """While features run, while the model is trained, and before recommend is committed."""
    pipeline = "recommendations"
    opened = session(tmp_path, pipeline)
    verb = "start"
    for event, at_work in (
        ("features running", {"spark", "features"}),
        ("train running", {"spark", "train"}),
        ("recommend committing", {"spark"}),
    ):
        assert engine(tmp_path, verb, f"after event {event}", pipeline) == -9, engine.errors()
        assert {handle.name.split("-")[2] for handle in alive(opened)} == at_work
        verb = "resume"
    assert engine(tmp_path, "resume", "", pipeline) == 0, engine.errors()
    assert_nothing_is_left(opened, tmp_path)
    state = opened.past(opened.find(f"{pipeline}/r")).state
    assert state.succeeded
    assert {s.attempt for s in state.of.values()} == {1}
    started = [*tmp_path.glob("compute/*/*/request.json"), *tmp_path.glob("local/*/*/request.json")]
    assert len(started) == 4
