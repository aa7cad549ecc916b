"""The engine against a provider in memory that answers late, wrongly, twice or never."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from portaflow import calls, poller
from portaflow.backend import Cause, Handle, Request, State, Status
from portaflow.errors import (
    DeniedError,
    LeakError,
    NotFoundError,
    QuotaError,
    RejectedError,
    UnavailableError,
)
from portaflow.plan import Action
from portaflow.state import LOSSES, Event, Phase

from .world import (
    FAILED,
    RUNNING,
    SUCCEEDED,
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


def test_a_run_starts_each_thing_once_in_order_and_stops_the_cluster_last(tmp_path: Path) -> None:
    stage = Stage(tmp_path, *hybrid())
    assert stage.run().succeeded
    assert stage.world.log == WHOLE


# -- starts that go wrong


class LosesAnswers(World):
    """Starts what it is asked to, and says that it could not."""

    lost = 1
    blind = False  # whether it cannot be asked what is there either

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        handle = super().start(request, parent)
        if self.lost:
            self.lost -= 1
            raise UnavailableError("connection reset")
        return handle

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        if self.blind and name in self.things:
            raise UnavailableError("connection refused")
        return super().find(name, parent)


def test_a_start_whose_answer_is_lost_is_found_not_made_again(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start("a"), world=LosesAnswers())
    assert stage.run().succeeded
    assert stage.world.log == ["start a-1"]


def test_the_last_try_of_a_start_is_looked_up_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TRIES", 1)
    stage = Stage(tmp_path, start("a"), world=LosesAnswers())
    assert stage.run().succeeded
    assert stage.world.log == ["start a-1"]


def test_a_task_that_may_have_started_is_a_leak_and_a_resume_ends_it_first(tmp_path: Path) -> None:
    world = LosesAnswers()
    world.blind, world.says = True, {"a-1": RUNNING}
    stage = Stage(tmp_path, start("a", retries=3), start("b", needs=["a"]), world=world)
    with pytest.raises(LeakError) as caught:
        stage.run()
    assert caught.value.exit_code == 3
    assert [world.short(h.name) for h in caught.value.handles] == ["a-1"]
    assert world.alive == ["a-1"]
    world.blind = False
    assert stage.resume().succeeded
    assert world.log == ["start a-1", "stop a-1", "start a-2", "start b-1"]


def test_a_cluster_that_may_have_started_is_stopped_when_it_can_be_seen_again(
    tmp_path: Path,
) -> None:
    world = LosesAnswers()
    world.blind = True
    stage = Stage(tmp_path, *hybrid(), world=world)

    def see(action: Action, event: Event) -> None:
        world.blind = world.blind and event.phase is not Phase.FAILED

    stage.journal.begin({})
    state = stage.engine(observe=see).run()
    assert phases(state)["cluster"] == "failed"
    assert phases(state)["c"] == "skipped"
    assert world.log == ["start cluster-1", "stop cluster-1"]
    assert world.alive == []


class Refuses(World):
    """Starts no task "a"."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        if "-a-" not in request["name"]:
            return super().start(request, parent)
        self.note("start", request["name"])
        raise self.error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RejectedError("the image's name is no name"), Cause.USER),
        (DeniedError("the token has expired"), Cause.DENIED),
        (KeyError("a bug of the plugin"), Cause.USER),
    ],
)
def test_a_start_that_is_refused_fails_at_once_and_says_why(
    tmp_path: Path, error: Exception, cause: Cause
) -> None:
    stage = Stage(tmp_path, *hybrid(retries=3), world=Refuses(error))
    state = stage.run()
    assert phases(state) == {
        "cluster": "done", "a": "failed", "b": "skipped", "c": "skipped", "stop/cluster": "done"
    }  # fmt: skip
    assert str(error) in state["a"].reason
    assert state["a"].cause is cause
    assert stage.world.log == ["start cluster-1", "start a-1", "stop cluster-1"]


def test_a_job_that_was_lost_has_its_cluster_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be gone, too: attempts on it until that is seen would be for nothing."""
    looked, look = list[str](), calls.Calls.look

    def watched(self: calls.Calls, action: Action, *rest: Any) -> None:
        looked.append(action.id)
        look(self, action, *rest)

    monkeypatch.setattr(calls.Calls, "look", watched)
    world = World()
    world.says = {"a-1": Status(state=State.FAILED, reason="the node is lost", cause=Cause.INFRA)}
    assert Stage(tmp_path, *hybrid(), world=world).run().succeeded
    assert looked[0] == "cluster"


def test_an_attempt_asks_once_for_what_no_quota_is_left_for(tmp_path: Path) -> None:
    stage = Stage(tmp_path, start("a"), world=Refuses(QuotaError("16 cores are all you have")))
    state = stage.run()
    assert (state["a"].phase, state["a"].cause) == (Phase.FAILED, Cause.CAPACITY)
    assert state["a"].reason == "16 cores are all you have"
    assert stage.world.log == [f"start a-{n}" for n in range(1, LOSSES + 2)]


@pytest.mark.parametrize("verb", ["start", "stop", "poll"])
def test_a_call_that_hangs_does_not_hang_the_run(tmp_path: Path, verb: str) -> None:
    world = Gate()
    world.waits, world.says = verb, {"a": RUNNING}
    stage = Stage(tmp_path, start("a", timeout=0.05), world=world)
    stage.journal.begin({})
    running = Background(stage.engine())
    state = running.end()
    world.open.set()
    assert isinstance(running.error, LeakError)
    assert [world.short(h.name) for h in running.error.handles] == ["a-1"]
    assert phases(state) == {"a": "failed"}


def test_a_start_that_returns_after_it_was_given_up_is_stopped(tmp_path: Path) -> None:
    world = Gate()
    world.waits, world.says = "start", {"a": RUNNING, "b": RUNNING}
    stage = Stage(tmp_path, start("a", timeout=0.01), start("b"), world=world)
    stage.journal.begin({})

    def see(action: Action, event: Event) -> None:
        if action.id == "a" and event.phase is Phase.FAILED:
            world.open.set()

    running = Background(stage.engine(observe=see))
    world.wait_for("stop a-1")
    world.becomes("b-1", Status(state=State.SUCCEEDED))
    running.end()
    assert world.alive == []


# -- ends of all sorts


def test_failures_spend_retries_and_losses_do_not(tmp_path: Path) -> None:
    world = World()
    lost = Status(state=State.FAILED, reason="the node is gone", cause=Cause.PREEMPTED)
    world.says = {"a-1": lost, "a-2": FAILED, "a-3": lost, "a-4": FAILED}
    stage = Stage(tmp_path, start("a", retries=1), world=world)
    state = stage.run()
    assert phases(state) == {"a": "failed"}
    assert world.log == [f"start a-{n}" for n in (1, 2, 3, 4)]
    assert state["a"].reason == "exit code 1"


def test_a_cluster_lost_in_the_middle_is_made_again_with_what_ran_on_it(tmp_path: Path) -> None:
    world = World()
    world.says = {"a-1": RUNNING}
    stage = Stage(tmp_path, *hybrid(), world=world)
    stage.journal.begin({})
    running = Background(stage.engine())
    world.wait_for("start a-1")
    world.becomes("cluster-1", Status(state=State.FAILED, reason="spot price"))
    world.becomes("a-1", Status(state=State.FAILED, cause=Cause.INFRA))
    state = running.end()
    assert running.error is None
    assert state.succeeded
    assert world.alive == []
    assert world.log == [
        "start cluster-1", "start a-1", "start cluster-2", "start a-2", "start b-1", "start c-1",
        "stop cluster-2",
    ]  # fmt: skip


def test_a_cluster_that_is_never_ready_is_tried_again_then_fails_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    world = World()
    world.says = {"cluster": Status(state=State.FAILED, reason="bootstrap failed")}
    stage = Stage(tmp_path, *hybrid(), world=world)
    stage.journal.begin({})
    state = stage.engine().run()
    assert state["cluster"].reason == "bootstrap failed"
    assert phases(state)["a"] == "skipped"
    assert world.alive == []


@pytest.mark.parametrize("stopping", [False, True])
def test_what_the_provider_no_longer_knows_has_ended(tmp_path: Path, stopping: bool) -> None:
    class Forgets(World):
        def stop(self, handle: Handle) -> None:
            self.note("stop", handle.name)
            self.things.pop(handle.name, None)

    world = Forgets()
    world.says = {"a-1": RUNNING}
    stage = Stage(tmp_path, start("a"), world=world)
    stage.journal.begin({})
    running = Background(stage.engine())
    world.wait_for("start a-1")
    if stopping:
        running.engine.cancel()
        assert phases(running.end()) == {"a": "stopped"}
    else:
        del world.things[next(iter(world.things))]
        assert running.end().succeeded
        assert world.log == ["start a-1", "start a-2"]
    assert running.error is None


def test_polls_that_fail_for_a_while_fail_nothing(tmp_path: Path) -> None:
    class Throttled(World):
        failures = 5

        def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
            if self.failures:
                self.failures -= 1
                raise UnavailableError("rate exceeded")
            return super().poll(handles)

    stage = Stage(tmp_path, *hybrid(), world=Throttled())
    assert stage.run().succeeded
    assert len(stage.troubles) == 5
    assert all(" waiting" not in seen for seen in stage.seen)


@pytest.mark.parametrize("seen", [0, 1])
def test_who_may_not_look_at_what_was_started_is_told_and_who_no_longer_may_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: int
) -> None:
    class Veiled(World):
        polls = 0

        def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
            self.polls += 1
            if seen < self.polls < 13:
                raise DeniedError("you may not list jobs; ask for the right")
            if self.polls > 12 and self.alive:
                self.becomes("a-1", SUCCEEDED)
            return super().poll(handles)

    monkeypatch.setattr(poller, "_DENIED", 0.05)
    world = Veiled()
    world.says = {"a-1": RUNNING}
    state = Stage(tmp_path, start("a", retries=3), world=world).run()
    if seen:
        assert (state["a"].phase, world.log) == (Phase.DONE, ["start a-1"])
    else:
        assert (state["a"].phase, state["a"].cause) == (Phase.FAILED, Cause.DENIED)
        assert "ask for the right" in state["a"].reason
        assert set(world.log) == {"start a-1", "stop a-1"}


def test_a_thing_whose_status_is_garbage_is_ended_and_the_plugin_named(tmp_path: Path) -> None:
    class Garbage(World):
        def poll(self, handles: Sequence[Handle]) -> Mapping[str, Any]:  # type: ignore[override]
            return {h.name: "COMPLETED" for h in handles}

    stage = Stage(tmp_path, start("a"), world=Garbage())
    with pytest.raises(LeakError, match="id-of-a-1"):
        stage.run()
    assert "stop a-1" in stage.world.log
    assert any("Garbage.poll" in str(e) or "'COMPLETED'" in str(e) for e in stage.troubles)
