"""A journal that is refused or taken, and what a new engine does with what it finds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from portaflow import journal
from portaflow.backend import Handle, Request, State, Status
from portaflow.errors import (
    DeniedError,
    LeakError,
    NotFoundError,
    RunError,
    UnavailableError,
)
from portaflow.state import Event, Phase

from .world import (
    FAILED,
    RUNNING,
    WHOLE,
    Background,
    Stage,
    World,
    hybrid,
    impatient,
    phases,
    start,
    stop,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)


# -- a journal that cannot be written


def refusing(stage: Stage, last: str, error: Exception) -> None:
    """Let the journal refuse the record of one event, "a running", and all after it."""
    append, broken = stage.journal.append, threading.Event()

    def moody(events: Iterable[Event]) -> None:
        events = list(events)
        if broken.is_set() or last in {f"{e.action} {e.phase.value}" for e in events}:
            broken.set()
            raise error
        append(events)

    stage.journal.append = moody  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "last",
    [
        *(f"cluster {phase}" for phase in ("starting", "running", "done")),
        *(f"{t} {p}" for t in "ab" for p in ("starting", "running", "committing", "done")),
    ],
)
def test_without_a_journal_all_that_may_run_is_stopped(tmp_path: Path, last: str) -> None:
    world = World()
    stage = Stage(tmp_path, *hybrid(), world=world)
    refusing(stage, last, UnavailableError("the store is full"))
    with pytest.raises(RunError, match=r"the store is full.*portaflow resume") as caught:
        stage.run()
    assert caught.value.exit_code == 1
    assert world.alive == []
    stage = Stage(tmp_path, *hybrid(), world=world)
    assert stage.resume().succeeded
    assert world.alive == []


def test_without_a_journal_what_cannot_be_stopped_is_named(tmp_path: Path) -> None:
    class Refuses(World):
        def stop(self, handle: Handle) -> None:
            raise DeniedError("the token has expired")

    stage = Stage(tmp_path, *hybrid(), world=Refuses())
    refusing(stage, "a committing", DeniedError("the store refuses"))
    with pytest.raises(LeakError) as caught:
        stage.run()
    assert caught.value.exit_code == 3
    assert [stage.world.short(h.name) for h in caught.value.handles] == ["cluster-1"]


def test_a_journal_that_fails_for_a_while_is_written_when_it_can_be(tmp_path: Path) -> None:
    stage = Stage(tmp_path, *hybrid())
    append, failures = stage.journal.append, iter([UnavailableError("busy")] * 2)

    def moody(events: Any) -> None:
        if error := next(failures, None):
            raise error
        append(events)

    stage.journal.append = moody  # type: ignore[method-assign]
    assert stage.run().succeeded


def test_an_engine_whose_run_is_taken_stops_and_leaves_all_to_the_other(tmp_path: Path) -> None:
    world = World()
    world.says = {"a": RUNNING}
    stage = Stage(tmp_path, *hybrid(), world=world)
    stage.journal.begin({})
    running = Background(stage.engine())
    world.wait_for("start a-1")
    while "a running" not in stage.seen:
        running._thread.join(0.01)
    other, _ = stage.taken_over()
    running.engine.cancel()
    running.end()
    assert isinstance(running.error, RunError)
    assert "another engine" in str(running.error)
    assert world.alive == ["a-1", "cluster-1"]
    world.becomes("a-1", Status(state=State.SUCCEEDED))
    assert other.run().succeeded
    assert world.log == WHOLE


def test_an_engine_notices_by_itself_that_its_run_was_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "HEARTBEAT", 0.01)
    world = World()
    world.says = {"a": RUNNING}
    stage = Stage(tmp_path, *hybrid(), world=world)
    stage.journal.begin({})
    running = Background(first := stage.engine())
    stage.journal.keep_alive(first.cancel, first.look_for_rival)
    world.wait_for("start a-1")
    other, taken = stage.taken_over()
    taken.keep_alive(other.cancel, other.look_for_rival)
    running.end()  # though nothing happens to what runs
    assert isinstance(running.error, RunError)
    assert world.alive == ["a-1", "cluster-1"]
    world.becomes("a-1", Status(state=State.SUCCEEDED))
    assert other.run().succeeded


# -- resume


def event(id: str, phase: Phase, **rest: Any) -> Event:
    rest.setdefault("time", time.time())
    return Event(action=id, phase=phase, **rest)


def lived(
    stage: Stage, id: str, *, until: Phase = Phase.RUNNING, now: Status = RUNNING, ago: float = 0.0
) -> None:
    """Put a thing into the world, and events into the journal that lead to a phase."""
    name = stage.plan.by_id[id].name
    stage.world.things[name] = now
    handle = Handle(name=name, id=f"id-of-{id}-1")
    ways = {
        Phase.RUNNING: [Phase.STARTING, Phase.RUNNING],
        Phase.DONE: [Phase.STARTING, Phase.RUNNING, Phase.DONE],
        Phase.STOPPING: [Phase.STARTING, Phase.RUNNING, Phase.STOPPING],
    }
    events = [
        event(id, p, time=time.time() - ago, handle=handle if p is Phase.RUNNING else None)
        for p in ways[until]
    ]
    if stage.journal._next == 1:
        stage.journal.begin({})
    stage.journal.append(events)


def test_what_was_being_stopped_on_request_runs_again_on_resume(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start("a"), start("b", needs=["a"]))
    lived(stage, "a", until=Phase.STOPPING)
    assert stage.resume().succeeded
    assert stage.world.log == ["stop a-1", "start a-2", "start b-1"]


def test_a_cluster_that_was_going_down_is_down_before_a_new_one_is_made(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start("cluster"), start("a", parent="cluster"), stop("cluster", "a"))
    lived(stage, "cluster", until=Phase.DONE)
    stage.journal.append(
        [
            event("a", Phase.STARTING), event("a", Phase.FAILED, reason="exit code 1"),
            event("stop/cluster", Phase.STARTING),
        ]
    )  # fmt: skip
    assert stage.resume().succeeded
    assert stage.world.log == [
        "stop cluster-1", "start cluster-2", "start a-2", "stop cluster-2"
    ]  # fmt: skip


def test_a_run_that_is_taken_over_to_stop_it_starts_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, *hybrid())
    lived(stage, "cluster", until=Phase.DONE)
    stage.journal.append([event("a", Phase.STARTING)])  # and then the engine was killed
    taken, _ = stage.taken_over()
    taken.cancel()
    state = taken.run()
    assert phases(state) == {
        "cluster": "done", "a": "stopped", "b": "stopped", "c": "stopped", "stop/cluster": "done"
    }  # fmt: skip
    assert stage.world.log == ["stop cluster-1"]


def test_a_start_that_is_found_on_a_stop_is_stopped(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start("a"))
    stage.recorded(event("a", Phase.STARTING))
    stage.world.things[stage.plan.by_id["a"].name] = RUNNING
    taken, _ = stage.taken_over()
    taken.cancel()
    assert phases(taken.run()) == {"a": "stopped"}
    assert stage.world.log == ["stop a-1"]


def test_a_task_whose_limit_passed_unwatched_but_ended_well_is_committed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start("a", timeout=1.0))
    lived(stage, "a", now=Status(state=State.SUCCEEDED), ago=3600.0)
    assert stage.resume().succeeded
    assert not any(entry.startswith("start") for entry in stage.world.log)


def test_a_task_whose_outputs_are_gone_runs_again(tmp_path: Path) -> None:
    class Writes(World):
        def start(self, request: Request, parent: Handle | None = None) -> Handle:
            stage.fs.pipe_file(f"{stage.home}/a/out/part", b"1")
            return super().start(request, parent)

    stage = Stage(tmp_path, start("a", outputs={"out": ""}), world=Writes())
    assert stage.run().succeeded
    assert stage.resume().succeeded
    assert stage.world.log == ["start a-1"]
    stage.fs.pipe_file(f"{stage.home}/a/out/part", b"2")
    assert stage.resume().succeeded
    assert stage.world.log == ["start a-1", "start a-2"]


def test_what_failed_while_no_engine_looked_runs_again_on_resume(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start("a"))
    lived(stage, "a", now=FAILED)
    state = stage.resume()
    assert stage.world.log == ["start a-2"]
    assert state.succeeded


def test_what_fails_after_a_resume_has_failed(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start("a"))
    lived(stage, "a")
    seen, first = stage.world.poll, iter([RUNNING])

    def poll(handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        return {h.name: s for h in handles} if (s := next(first, None)) else seen(handles)

    stage.world.poll = poll  # type: ignore[method-assign]
    stage.world.becomes("a-1", FAILED)
    assert phases(stage.resume()) == {"a": "failed"}
    assert stage.world.log == []
