"""The one state machine: never off its table, the same by fold and step by step, never stuck."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaflow.backend import Cause, Handle
from portaflow.plan import Action, Plan
from portaflow.state import (
    BUSY,
    ENDED,
    LOSSES,
    TRANSITIONS,
    Event,
    Phase,
    RunState,
    after_failure,
    resumption,
)

P = Phase


def plan(*actions: Action) -> Plan:
    return Plan("p", "t", "r", "o", "mem://home", actions)


def task(id: str, *needs: str, **rest: Any) -> Action:
    rest.setdefault("kind", "container")
    return Action(id=id, verb="start", subject=id, needs=frozenset(needs), **rest)


def cluster(*users: str, needs: frozenset[str] = frozenset()) -> tuple[Action, Action]:
    start = Action(id="cluster/c", verb="start", kind="cluster", subject="c", needs=needs)
    stop = Action(
        id="stop/c", verb="stop", kind="cluster", subject="c", undoes="cluster/c",
        needs=frozenset(["cluster/c", *users]),
    )  # fmt: skip
    return start, stop


def event(action: str, phase: Phase, **rest: Any) -> Event:
    return Event(action=action, phase=phase, time=rest.pop("time", 1.0), **rest)


def folded(plan: Plan, *path: tuple[str, Phase]) -> RunState:
    return RunState(plan, [event(id, phase) for id, phase in path])


def following(state: RunState, room: int = 99, now: float = 0.0) -> list[tuple[str, Phase]]:
    return [(action.id, phase) for action, phase in state.next(now, room)]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Up to six tasks, some on a cluster, each waiting for some of those before it."""
    tasks: list[Action] = []
    users = []
    for n in range(draw(st.integers(1, 6))):
        needs = [t.id for t in tasks if draw(st.booleans())]
        retries = draw(st.integers(0, 2))
        if on_cluster := draw(st.booleans()):
            users.append(f"t{n}")
            needs.append("cluster/c")
        kind: Any = "job" if on_cluster else "container"
        parent = "cluster/c" if on_cluster else ""
        tasks.append(task(f"t{n}", *needs, kind=kind, parent=parent, retries=retries))
    if not users:
        return plan(*tasks)
    start, stop = cluster(*users)
    return plan(start, *tasks, stop)


# -- the table


@given(plans(), st.data())
def test_no_sequence_of_events_leaves_the_table(given_plan: Plan, data: st.DataObject) -> None:
    state = RunState(given_plan)
    ids = st.sampled_from([a.id for a in given_plan.actions] + ["nobody"])
    events = st.builds(
        event, ids, st.sampled_from(Phase), attempt=st.integers(1, 3),
        cause=st.none() | st.sampled_from(Cause),
    )  # fmt: skip
    taken = []
    for one in data.draw(st.lists(events, max_size=30)):
        before = copy.deepcopy(state.of)
        try:
            state.apply(one)
        except ValueError:
            assert state.of == before  # what is refused changes nothing
            assert one.action == "nobody" or one.phase not in TRANSITIONS[before[one.action].phase]
        else:
            assert one.phase in TRANSITIONS[before[one.action].phase]
            taken.append(one)
    again = RunState(given_plan, taken)
    assert (again.of, again.busy, again.ended) == (state.of, state.busy, state.ended)
    assert state.ended == all(s.phase in ENDED for s in state.of.values())
    assert state.busy == sum(
        s.phase in BUSY for id, s in state.of.items() if given_plan.by_id[id].kind != "cluster"
    )
    assert sorted(following(again)) == sorted(following(state))


@pytest.mark.parametrize(("before", "after"), list(itertools.product(Phase, Phase)))
def test_a_step_is_taken_exactly_when_the_table_has_it(before: Phase, after: Phase) -> None:
    state = RunState(plan(task("a")))
    state.of["a"].phase = before
    if after in TRANSITIONS[before]:
        state.apply(event("a", after))
        assert state["a"].phase is after
    else:
        with pytest.raises(ValueError, match=f"a: {before.value} -> {after.value}"):
            state.apply(event("a", after))


def test_success_is_never_taken_back_but_by_a_resume_or_a_loss() -> None:
    assert P.FAILED not in TRANSITIONS[P.DONE]
    assert all(P.DONE not in TRANSITIONS[p] for p in (P.WAITING, P.FAILED, P.STOPPED, P.SKIPPED))


# -- what follows


@given(plans(), st.data())
def test_every_run_ends_and_nothing_starts_too_early(given_plan: Plan, data: st.DataObject) -> None:
    """An engine in a few lines, against a world that does what it likes."""
    state, now, events = RunState(given_plan), 0.0, list[Event]()
    room = data.draw(st.integers(1, 3))

    def take(one: Event) -> None:
        events.append(one)
        state.apply(one)

    for _ in range(500):
        while step := state.next(now, room - state.busy):
            for action, phase in step:
                if phase is P.STARTING:
                    needs = {state[n].phase for n in action.needs}
                    assert needs <= (ENDED if action.verb == "stop" else {P.DONE})
                take(event(action.id, phase, attempt=state[action.id].attempt, time=now))
        assert state.busy <= room
        if state.ended:
            break
        busy = [a.id for a in given_plan.actions if state[a.id].phase in BUSY]
        if not busy:
            due = state.next_time()
            assert due is not None, "nothing is at work and nothing is due"
            now = due
            continue
        action = given_plan.by_id[data.draw(st.sampled_from(busy))]
        take(_what_happens(action, state, now, data))
    assert state.ended
    assert RunState(given_plan, events).of == state.of
    if stop := given_plan.by_id.get("stop/c"):
        started = any(e.action == stop.undoes and e.phase is P.STARTING for e in events)
        stopped = any(e.action == stop.id and e.phase is P.STARTING for e in events)
        assert stopped == started


def _what_happens(action: Action, state: RunState, now: float, data: st.DataObject) -> Event:
    mine = state[action.id]
    good = {
        P.STARTING: P.RUNNING,
        P.RUNNING: P.DONE if action.kind == "cluster" else P.COMMITTING,
        P.COMMITTING: P.DONE,
        P.STOPPING: P.STOPPED,
    }[mine.phase]
    outcome = data.draw(st.sampled_from(["good", "good", "user", "infra", "denied"]))
    if outcome == "good" or action.verb == "stop":
        return event(action.id, good, attempt=mine.attempt, time=now)
    return after_failure(action, mine, now, "because", Cause(outcome))


def test_what_waits_for_nothing_starts_at_once_and_once() -> None:
    state = RunState(plan(task("a"), task("b"), task("c", "a")))
    assert following(state) == [("a", P.STARTING), ("b", P.STARTING)]
    assert following(state) == []


def test_no_more_tasks_start_than_there_is_room_for() -> None:
    state = RunState(plan(*(task(f"t{n}") for n in range(5))))
    assert len(following(state, room=2)) == 2
    assert following(state, room=0) == []
    assert len(following(state, room=9)) == 3


def test_a_cluster_takes_no_room() -> None:
    start, stop = cluster("a")
    state = RunState(plan(start, task("a", "cluster/c", kind="job"), stop))
    assert following(state, room=0) == [("cluster/c", P.STARTING)]


def test_what_needs_something_that_failed_is_skipped_all_the_way_down() -> None:
    state = folded(
        plan(task("a"), task("b", "a"), task("c", "b")), ("a", P.STARTING), ("a", P.FAILED)
    )
    assert following(state) == [("b", P.SKIPPED)]
    state.apply(event("b", P.SKIPPED))
    assert following(state) == [("c", P.SKIPPED)]
    state.apply(event("c", P.SKIPPED))
    assert (state.ended, state.succeeded) == (True, False)
    assert [a.id for a in state.failed()] == ["a"]


@pytest.mark.parametrize("end", [P.DONE, P.FAILED, P.STOPPED])
def test_a_stop_waits_for_all_users_however_they_end(end: Phase) -> None:
    start, stop = cluster("a", "b")
    state = folded(
        plan(start, task("a", "cluster/c"), task("b", "cluster/c"), stop),
        ("cluster/c", P.STARTING), ("cluster/c", P.DONE), ("a", P.STARTING), ("b", P.STARTING),
        ("a", P.DONE),
    )  # fmt: skip
    assert following(state) == []
    state.apply(event("b", end))
    assert following(state) == [("stop/c", P.STARTING)]


def test_a_cluster_that_was_never_started_is_not_stopped() -> None:
    start, stop = cluster("b", needs=frozenset(["a"]))
    state = folded(
        plan(task("a"), start, task("b", "cluster/c"), stop),
        ("a", P.STARTING), ("a", P.FAILED), ("cluster/c", P.SKIPPED), ("b", P.SKIPPED),
    )  # fmt: skip
    assert following(state) == [("stop/c", P.SKIPPED)]


def test_a_cluster_that_failed_to_start_is_stopped_all_the_same() -> None:
    start, stop = cluster("a")
    state = folded(
        plan(start, task("a", "cluster/c"), stop),
        ("cluster/c", P.STARTING), ("cluster/c", P.FAILED), ("a", P.SKIPPED),
    )  # fmt: skip
    assert following(state) == [("stop/c", P.STARTING)]


# -- retries


def attempts(causes: list[Cause | None], retries: int) -> tuple[RunState, list[Event]]:
    """What becomes of a task whose attempts end for these causes, one after the other."""
    action = task("a", retries=retries)
    state, events = RunState(plan(action)), []
    for cause in causes:
        state.apply(event("a", P.STARTING, attempt=state["a"].attempt))
        events.append(after_failure(action, state["a"], 100.0, "because", cause))
        state.apply(events[-1])
    return state, events


def test_a_task_is_tried_as_often_as_it_says() -> None:
    _, events = attempts([Cause.USER, None, Cause.USER], retries=2)
    assert [(e.phase, e.attempt) for e in events] == [
        (P.WAITING, 2), (P.WAITING, 3), (P.FAILED, 3),
    ]  # fmt: skip


def test_a_retry_waits_longer_each_time_and_starts_then() -> None:
    state, events = attempts([Cause.USER, Cause.USER], retries=9)
    assert [e.not_before - 100.0 for e in events] == [10.0, 20.0]
    assert following(state, now=119.9) == []
    assert state.next_time() == 120.0
    assert following(state, now=120.0) == [("a", P.STARTING)]


def test_no_retry_waits_for_more_than_an_hour() -> None:
    _, events = attempts([Cause.USER] * 100, retries=100)
    assert max(e.not_before for e in events) == 100.0 + 3600.0


@pytest.mark.parametrize("cause", [Cause.INFRA, Cause.CAPACITY, Cause.PREEMPTED, Cause.THROTTLED])
def test_lost_machines_spend_no_retries_and_end_at_some_time(cause: Cause) -> None:
    state, events = attempts([cause] * (LOSSES + 1), retries=0)
    assert [e.phase for e in events] == [P.WAITING] * LOSSES + [P.FAILED]
    assert (state["a"].failures, state["a"].losses) == (0, LOSSES)


def test_losses_and_retries_are_counted_apart() -> None:
    state, _ = attempts([Cause.INFRA, Cause.USER, Cause.INFRA], retries=1)
    assert (state["a"].failures, state["a"].losses, state["a"].phase) == (1, 2, P.WAITING)


def test_what_is_denied_is_not_tried_again() -> None:
    _, events = attempts([Cause.DENIED], retries=5)
    assert events[0].phase is P.FAILED


# -- resume


def test_a_resumed_run_tries_again_what_did_not_end_well_and_nothing_else() -> None:
    given_plan = plan(task("a"), task("b"), task("c", "b"), task("d"))
    state = folded(
        given_plan, ("a", P.STARTING), ("a", P.DONE), ("b", P.STARTING), ("b", P.FAILED),
        ("c", P.SKIPPED), ("d", P.STARTING),
    )  # fmt: skip
    events = resumption(given_plan, state, 9.0)
    assert [(e.action, e.phase, e.attempt) for e in events] == [
        ("b", P.WAITING, 2), ("c", P.WAITING, 1),
    ]  # fmt: skip
    for one in events:
        state.apply(one)
    assert state["b"].failures == 0
    assert following(state) == [("b", P.STARTING)]


def test_a_cluster_that_is_down_is_made_anew_for_a_resumed_run() -> None:
    start, stop = cluster("a")
    given_plan = plan(start, task("a", "cluster/c"), stop)
    state = folded(
        given_plan,
        ("cluster/c", P.STARTING), ("cluster/c", P.DONE), ("a", P.STARTING), ("a", P.FAILED),
        ("stop/c", P.STARTING), ("stop/c", P.DONE),
    )  # fmt: skip
    for one in resumption(given_plan, state, 9.0):
        state.apply(one)
    assert following(state) == [("cluster/c", P.STARTING)]
    assert state["cluster/c"].attempt == 2


def test_what_ended_well_and_could_not_be_committed_is_only_committed() -> None:
    start, stop = cluster("a")
    given_plan = plan(start, task("a", "cluster/c"), stop, task("b", "a"))
    state = folded(
        given_plan,
        ("cluster/c", P.STARTING), ("cluster/c", P.DONE),
        ("a", P.STARTING), ("a", P.RUNNING), ("a", P.COMMITTING),
    )  # fmt: skip
    state.apply(event("a", P.FAILED, uncommitted=True))
    for id, phase in (("b", P.SKIPPED), ("stop/c", P.STARTING), ("stop/c", P.DONE)):
        state.apply(event(id, phase))
    events = resumption(given_plan, state, 9.0)
    assert [(e.action, e.phase, e.attempt) for e in events] == [
        ("a", P.COMMITTING, 1), ("b", P.WAITING, 1),
    ]  # fmt: skip
    for one in events:
        state.apply(one)
    assert following(state) == []
    assert state.busy == 1
    state.apply(event("a", P.DONE))
    assert following(state) == [("b", P.STARTING)]


def test_a_run_that_succeeded_has_nothing_to_resume() -> None:
    given_plan = plan(task("a"))
    state = folded(
        given_plan, ("a", P.STARTING), ("a", P.RUNNING), ("a", P.COMMITTING), ("a", P.DONE)
    )
    assert resumption(given_plan, state, 9.0) == []
    assert state.succeeded


# -- events as JSON


@given(
    st.builds(
        Event,
        action=st.text(), phase=st.sampled_from(Phase), time=st.integers(0, 2**31).map(float),
        attempt=st.integers(1, 99), reason=st.text(), cause=st.none() | st.sampled_from(Cause),
        handle=st.none() | st.builds(Handle, name=st.text(), id=st.text(), parent=st.text()),
        exit_code=st.none() | st.integers(0, 255),
        not_before=st.integers(0, 10).map(float),
        value=st.none() | st.dictionaries(st.text(), st.integers()),
        leaked=st.booleans(), uncommitted=st.booleans(),
    )
)  # fmt: skip
def test_an_event_survives_json(one: Event) -> None:
    assert Event.from_json(json.loads(json.dumps(one.to_json()))) == one
