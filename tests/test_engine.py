"""The engine against a provider in memory that answers late, wrongly, twice or never."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from portaflow import calls, engine, journal, poller, state
from portaflow.backend import Cause, Handle, Request, State, Status
from portaflow.errors import (
    DeniedError,
    LeakError,
    NotFoundError,
    RejectedError,
    RunError,
    UnavailableError,
)
from portaflow.plan import Action
from portaflow.state import Event, Phase

from .world import FAILED, RUNNING, Background, Stage, World, start, stop


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps with shorter pauses."""
    monkeypatch.setattr(calls, "TRIES", 3)
    monkeypatch.setattr(calls, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(engine, "STOP_AGAIN", 0.05)
    monkeypatch.setattr(engine, "CLOSING", 0.2)
    monkeypatch.setattr(state, "LOSS_DELAY", 0.01)
    monkeypatch.setattr(poller, "_LONGEST_TROUBLE", 0.01)
    monkeypatch.setattr(poller, "_GRACE", 0.05)
    monkeypatch.setattr(poller, "_SURE", 0.05)
    monkeypatch.setattr(poller, "_CLOSING", 0.2)


def hybrid(*, retries: int = 0) -> tuple[Action, ...]:
    return (
        start("cluster"),
        start("a", parent="cluster", retries=retries),
        start("b", needs=["a"]),
        start("c", parent="cluster", needs=["b"]),
        stop("cluster", "a", "c"),
    )


_WHOLE = ["start cluster-1", "start a-1", "start b-1", "start c-1", "stop cluster-1"]


def phases(stage_state: Any) -> dict[str, str]:
    return {id: s.phase.value for id, s in stage_state.of.items()}


def test_a_run_starts_each_thing_once_in_order_and_stops_the_cluster_last(tmp_path: Path) -> None:
    stage = Stage(tmp_path, *hybrid())
    assert stage.run().succeeded
    assert stage.world.log == _WHOLE


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
    class Refuses(World):
        def start(self, request: Request, parent: Handle | None = None) -> Handle:
            if "-a-" not in request["name"]:
                return super().start(request, parent)
            self.note("start", request["name"])
            raise error

    stage = Stage(tmp_path, *hybrid(retries=3), world=Refuses())
    state = stage.run()
    assert phases(state) == {
        "cluster": "done", "a": "failed", "b": "skipped", "c": "skipped", "stop/cluster": "done"
    }  # fmt: skip
    assert str(error) in state["a"].reason
    assert state["a"].cause is cause
    assert stage.world.log == ["start cluster-1", "start a-1", "stop cluster-1"]


class Gate(World):
    """A call that waits until the test lets it go."""

    waits = ""  # which one: "start", "stop" or "poll"

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.open = threading.Event(), threading.Event()

    def _gate(self, verb: str) -> None:
        if verb == self.waits:
            self.reached.set()
            self.open.wait(60)

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        if "-a-" in request["name"]:
            self._gate("start")
        return super().start(request, parent)

    def stop(self, handle: Handle) -> None:
        self._gate("stop")
        super().stop(handle)

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        self._gate("poll")
        return super().poll(handles)


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


# -- cancel


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
    assert world.log == _WHOLE


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


def test_a_thing_whose_status_is_garbage_is_ended_and_the_plugin_named(tmp_path: Path) -> None:
    class Garbage(World):
        def poll(self, handles: Sequence[Handle]) -> Mapping[str, Any]:  # type: ignore[override]
            return {h.name: "COMPLETED" for h in handles}

    stage = Stage(tmp_path, start("a"), world=Garbage())
    with pytest.raises(LeakError, match="id-of-a-1"):
        stage.run()
    assert "stop a-1" in stage.world.log
    assert any("Garbage.poll" in str(e) or "'COMPLETED'" in str(e) for e in stage.troubles)


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
    assert world.log == _WHOLE


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
