"""What is asked to end, ends: tasks before clusters, or a leak that is named."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from portaflow import engine
from portaflow.backend import Cause, Handle, State, Status
from portaflow.errors import (
    DeniedError,
    LeakError,
    UnavailableError,
)
from portaflow.plan import Action
from portaflow.state import Event, Phase

from .world import (
    FAILED,
    RUNNING,
    WHOLE,
    Background,
    Gate,
    Stage,
    World,
    hybrid,
    impatient,
    phases,
    start,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)


def test_a_cancel_ends_tasks_before_clusters_and_starts_nothing_more(tmp_path: Path) -> None:
    world = World()
    world.says = {"a": RUNNING}
    stage = Stage(tmp_path, *hybrid(), world=world)
    stage.journal.begin({})
    running = Background(stage.engine())
    world.wait_for("start a-1")
    running.engine.cancel()
    state = running.end()
    assert running.error is None
    assert world.log == ["start cluster-1", "start a-1", "stop a-1", "stop cluster-1"]
    assert phases(state) == {
        "cluster": "done", "a": "stopped", "b": "stopped", "c": "stopped", "stop/cluster": "done"
    }  # fmt: skip


def test_a_cancel_during_a_start_stops_what_the_start_brings(tmp_path: Path) -> None:
    world = Gate()
    world.waits, world.says = "start", {"a": RUNNING}
    stage = Stage(tmp_path, *hybrid(), world=world)
    stage.journal.begin({})
    running = Background(stage.engine())
    assert world.reached.wait(30)
    running.engine.cancel()
    world.open.set()
    state = running.end()
    assert running.error is None
    assert world.log == ["start cluster-1", "start a-1", "stop a-1", "stop cluster-1"]
    assert state["a"].phase is Phase.STOPPED


def test_a_cancel_while_a_cluster_gets_ready_stops_it(tmp_path: Path) -> None:
    world = World()
    world.says = {"cluster": Status(state=State.PENDING)}
    stage = Stage(tmp_path, *hybrid(), world=world)
    stage.journal.begin({})
    running = Background(stage.engine())
    world.wait_for("start cluster-1")
    running.engine.cancel()
    state = running.end()
    assert running.error is None
    assert world.alive == []
    assert state["cluster"].phase is Phase.STOPPED


def test_a_cancel_while_a_retry_waits_does_not_wait_for_it(tmp_path: Path) -> None:
    world = World()
    world.says = {"a": FAILED}
    stage = Stage(tmp_path, start("a", retries=1, retry_delay=3600.0), world=world)
    stage.journal.begin({})
    failed = threading.Event()
    running = Background(
        stage.engine(observe=lambda _, e: failed.set() if e.phase is Phase.WAITING else None)
    )
    assert failed.wait(30)
    running.engine.cancel()
    assert phases(running.end()) == {"a": "stopped"}
    assert world.log == ["start a-1"]


def attached(**rest: Any) -> Action:
    return Action(
        id="cluster", verb="attach", kind="cluster", subject="cluster", name="pf-p-cluster-x-1",
        **rest,
    )  # fmt: skip


@pytest.mark.parametrize("how", ["cancel", "timeout", "journal"])
def test_a_cluster_that_is_attached_is_never_stopped(tmp_path: Path, how: str) -> None:
    world = World()
    world.things["pf-p-cluster-x-1"] = Status(state=State.PENDING)
    limit = 0.05 if how == "timeout" else 3600.0
    stage = Stage(tmp_path, attached(timeout=limit), start("a", parent="cluster"), world=world)
    stage.journal.begin({})
    seen = threading.Event()

    def see(action: Action, event: Event) -> None:
        if event.phase is Phase.RUNNING:
            seen.set()
            if how == "journal":
                raise OSError("standard output is closed")

    running = Background(stage.engine(observe=see))
    assert seen.wait(30)
    if how == "cancel":
        running.engine.cancel()
    running.end()
    assert world.log == []
    assert world.alive == ["cluster-1"]


def test_a_stop_that_never_works_is_a_leak_that_names_the_thing(tmp_path: Path) -> None:
    class Stubborn(World):
        def stop(self, handle: Handle) -> None:
            self.note("stop", handle.name)

    stage = Stage(tmp_path, *hybrid(), world=Stubborn())
    with pytest.raises(LeakError, match="id-of-cluster-1") as caught:
        stage.run()
    assert caught.value.exit_code == 3
    assert stage.world.log.count("stop cluster-1") == engine.STOPS


def test_a_cluster_that_leaked_is_stopped_by_a_resume(tmp_path: Path) -> None:
    class Moody(World):
        denied = True

        def stop(self, handle: Handle) -> None:
            if self.denied:
                raise DeniedError("the token has expired")
            super().stop(handle)

    world = Moody()
    stage = Stage(tmp_path, *hybrid(), world=world)
    with pytest.raises(LeakError):
        stage.run()
    world.denied = False
    assert stage.resume().succeeded
    assert world.alive == []
    assert world.log == WHOLE


def test_a_stop_that_fails_for_a_while_is_asked_for_again(tmp_path: Path) -> None:
    class Throttled(World):
        failures = 4

        def stop(self, handle: Handle) -> None:
            if self.failures:
                self.failures -= 1
                raise UnavailableError("slow down")
            super().stop(handle)

    stage = Stage(tmp_path, *hybrid(), world=Throttled())
    assert stage.run().succeeded
    assert stage.world.alive == []


def test_a_stop_that_fails_after_the_thing_has_ended_changes_nothing(tmp_path: Path) -> None:
    class Late(Gate):
        def stop(self, handle: Handle) -> None:
            self.things[handle.name] = Status(state=State.STOPPED)
            self._gate("stop")
            raise DeniedError("it is not there any more")

    world = Late()
    world.waits, world.says = "stop", {"a": RUNNING, "b": RUNNING}
    stage = Stage(tmp_path, start("a", timeout=0.02), start("b"), world=world)
    stage.journal.begin({})

    def see(action: Action, event: Event) -> None:
        if action.id == "a" and event.phase is Phase.FAILED:
            world.open.set()
            world.becomes("b-1", Status(state=State.SUCCEEDED))

    running = Background(stage.engine(observe=see))
    state = running.end()
    assert running.error is None
    assert phases(state) == {"a": "failed", "b": "done"}
    assert state["a"].reason == "timed out after 0.02 s"


def test_a_timeout_says_what_was_waited_for_and_spends_retries(tmp_path: Path) -> None:
    world, reason = World(), "no node takes it: 2 are too small"
    pending = Status(state=State.PENDING, reason=reason, cause=Cause.CAPACITY)
    world.says = {"a": pending, "b": Status(state=State.PENDING, reason="it is made")}
    tasks = [start(id, timeout=0.2, retries=1) for id in ("a", "b")]
    state = Stage(tmp_path, *tasks, world=world).run()
    told = f"timed out after 0.2 s, while it waited: {reason}; make its size smaller, or ask"
    assert state["a"].reason.startswith(told)
    assert state["b"].reason == "timed out after 0.2 s, while it waited: it is made"
    assert [state[id].cause for id in ("a", "b")] == [Cause.CAPACITY, Cause.USER]
    assert [state[id].attempt for id in ("a", "b")] == [2, 2]


class Blind(World):
    """Of somebody who may not even look for what is there."""

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        raise DeniedError("you may not list clusters; ask for the right")


def test_what_was_refused_before_it_was_asked_for_is_no_leak(tmp_path: Path) -> None:
    stage = Stage(tmp_path, *hybrid(), world=Blind())
    state = stage.run()
    assert phases(state)["cluster"] == "failed"
    assert "ask for the right" in state["cluster"].reason
    assert stage.world.log == []


def test_what_a_former_engine_may_have_started_is_told_when_nobody_may_look(tmp_path: Path) -> None:
    stage = Stage(tmp_path, *hybrid(), world=Blind())
    stage.recorded(Event(action="cluster", phase=Phase.STARTING, time=time.time()))
    with pytest.raises(LeakError) as caught:
        stage.resume()
    assert [h.name for h in caught.value.handles] == [stage.plan.by_id["cluster"].name]
