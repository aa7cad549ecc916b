"""What has happened in a run, and what may happen next. Pure: a fold over events.

    WAITING -> STARTING -> RUNNING -> COMMITTING -> DONE
                              |  ^ lost, or retried: back to WAITING with the next attempt
                              v
                           STOPPING -> FAILED | STOPPED

A cluster is DONE when it is ready to use; the action that stops it is DONE when it is gone.
"""

from __future__ import annotations

import enum
import heapq
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .backend import Cause, Handle
from .plan import Action, Plan

LOSSES = 3
"""How often one action is tried again because its machine, not its code, failed."""

LOSS_DELAY = 1.0
"""Seconds until it is, the first time; twice as long each time."""


class Phase(enum.Enum):
    WAITING = "waiting"
    STARTING = "starting"  # the intent is recorded; the provider may or may not know yet
    RUNNING = "running"  # the provider gave a handle
    STOPPING = "stopping"  # asked to end; not known to have ended
    COMMITTING = "committing"  # ended well; its outputs are being published
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"  # something that it needs did not end well


_P = Phase
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    _P.WAITING: frozenset({_P.STARTING, _P.SKIPPED, _P.STOPPED, _P.WAITING}),
    _P.STARTING: frozenset({_P.RUNNING, _P.DONE, _P.WAITING, _P.FAILED, _P.STOPPED}),
    _P.RUNNING: frozenset({_P.STOPPING, _P.COMMITTING, _P.DONE, _P.WAITING, _P.FAILED, _P.STOPPED}),
    _P.STOPPING: frozenset({_P.COMMITTING, _P.WAITING, _P.FAILED, _P.STOPPED, _P.STOPPING}),
    _P.COMMITTING: frozenset({_P.DONE, _P.WAITING, _P.FAILED, _P.STOPPED}),
    # A cluster that was lost, or is needed again; on resume one that is still going down.
    _P.DONE: frozenset({_P.WAITING, _P.STOPPING}),
    _P.FAILED: frozenset({_P.WAITING, _P.STOPPING, _P.COMMITTING}),  # these three: on resume
    _P.STOPPED: frozenset({_P.WAITING}),
    _P.SKIPPED: frozenset({_P.WAITING}),
}
ENDED = frozenset({_P.DONE, _P.FAILED, _P.STOPPED, _P.SKIPPED})
BUSY = frozenset({_P.STARTING, _P.RUNNING, _P.STOPPING, _P.COMMITTING})


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened to one action. What is None or empty did not come up."""

    action: str
    phase: Phase
    time: float  # seconds since the epoch
    attempt: int = 1
    handle: Handle | None = None
    reason: str = ""
    cause: Cause | None = None
    exit_code: int | None = None
    not_before: float = 0.0  # for WAITING: when the next attempt may start
    value: Any = None  # for DONE: what the task returned
    leaked: bool = False  # for FAILED: given up, but the thing may still be there
    uncommitted: bool = False  # for FAILED: ended well, but the store did not take the commit

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "action": self.action,
            "phase": self.phase.value,
            "time": round(self.time, 3),
            "attempt": self.attempt,
        }
        if self.handle:
            body["handle"] = self.handle.to_json()
        if self.cause:
            body["cause"] = self.cause.value
        for key in ("reason", "not_before", "leaked", "uncommitted"):
            if value := getattr(self, key):
                body[key] = value
        for key in ("exit_code", "value"):
            if (value := getattr(self, key)) is not None:
                body[key] = value
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Event:
        special: dict[str, Any] = {"phase": Phase(body["phase"])}
        if "handle" in body:
            special["handle"] = Handle.from_json(body["handle"])
        if "cause" in body:
            special["cause"] = Cause(body["cause"])
        return cls(**{**body, **special})


@dataclass(slots=True)
class ActionState:
    """Where one action is. `failures` and `losses` count towards its limits of retries."""

    phase: Phase = Phase.WAITING
    attempt: int = 1
    tried: bool = False  # whether this attempt was ever started
    handle: Handle | None = None
    failures: int = 0
    losses: int = 0
    reason: str = ""
    cause: Cause | None = None
    exit_code: int | None = None
    not_before: float = 0.0
    leaked: bool = False
    uncommitted: bool = False
    began: float = 0.0  # when this attempt was started
    since: float = 0.0  # when the phase was entered
    first: float = 0.0  # when the first attempt was started
    value: Any = None


class RunState:
    """The fold of a plan and its events."""

    def __init__(self, plan: Plan, events: Iterable[Event] = ()) -> None:
        self.plan = plan
        self.of = {a.id: ActionState() for a in plan.actions}
        self._open = {a.id: len(a.needs) for a in plan.actions}  # needs that have not ended
        self._bad = dict.fromkeys(self.of, 0)  # needs that have ended, but not DONE
        self._dependents: dict[str, list[str]] = {a.id: [] for a in plan.actions}
        for action in plan.actions:
            for need in action.needs:
                self._dependents[need].append(action.id)
        self._unended = len(self.of)
        self.busy = 0  # tasks, not clusters, that are at work
        # What may have become possible, then what waits for its time, and for room.
        self._told: dict[str, None] = {a.id: None for a in plan.actions if not a.needs}
        self._delayed: list[tuple[float, str]] = []
        self._queue: deque[str] = deque()
        for event in events:
            self.apply(event)

    def __getitem__(self, id: str) -> ActionState:
        return self.of[id]

    def apply(self, event: Event) -> None:
        """Take one event in. Raises ValueError when it cannot follow what happened before."""
        try:
            mine = self.of[event.action]
        except KeyError:
            raise ValueError(f"the plan has no action {event.action!r}") from None
        before, after = mine.phase, event.phase
        if after not in TRANSITIONS[before]:
            raise ValueError(f"{event.action}: {before.value} -> {after.value}")
        mine.phase, mine.attempt, mine.since = after, event.attempt, event.time
        mine.reason, mine.cause, mine.exit_code = event.reason, event.cause, event.exit_code
        mine.handle = event.handle or mine.handle
        mine.leaked, mine.uncommitted = event.leaked, event.uncommitted
        match after:
            case Phase.STARTING:
                mine.tried, mine.began = True, event.time
                mine.first = mine.first or event.time
            case Phase.WAITING:
                self._again(mine, event)
                self._told[event.action] = None
            case Phase.STOPPING if before is not Phase.RUNNING:  # resumed, as below
                mine.failures = mine.losses = 0
            case Phase.DONE:
                mine.value = event.value
        if self.plan.by_id[event.action].kind != "cluster":
            self.busy += (after in BUSY) - (before in BUSY)
        self._tell(event.action, before, after)

    def _again(self, mine: ActionState, event: Event) -> None:
        mine.handle, mine.tried, mine.not_before = None, False, event.not_before
        if event.cause is None:  # resumed: all retries are there again
            mine.failures = mine.losses = 0
        elif event.cause is Cause.USER:
            mine.failures += 1
        else:
            mine.losses += 1

    def _tell(self, id: str, before: Phase, after: Phase) -> None:
        """Keep the counts of those that wait for `id`."""
        ended = (after in ENDED) - (before in ENDED)
        bad = _bad(after) - _bad(before)
        self._unended -= ended
        if ended or bad:
            for other in self._dependents[id]:
                self._open[other] -= ended
                self._bad[other] += bad
                if not self._open[other] or self._bad[other]:
                    self._told[other] = None

    def next(self, now: float, room: int) -> list[tuple[Action, Phase]]:
        """Return what should happen now: actions to start (`room` tasks at most) or to skip.

        Each is returned once; the caller applies an event for each.
        """
        while self._delayed and self._delayed[0][0] <= now:
            self._told[heapq.heappop(self._delayed)[1]] = None
        following = []
        told, self._told = self._told, {}
        for id in told:
            mine, action = self.of[id], self.plan.by_id[id]
            if mine.phase is not Phase.WAITING:
                continue
            phase = self._next_stop(action) if action.verb == "stop" else self._next_start(id)
            if phase is Phase.STARTING and mine.not_before > now:
                heapq.heappush(self._delayed, (mine.not_before, id))
            elif phase is Phase.STARTING and action.kind != "cluster":
                self._queue.append(id)
            elif phase:
                following.append((action, phase))
        while room > 0 and self._queue:
            id = self._queue.popleft()
            if self.of[id].phase is Phase.WAITING and self._next_start(id) is Phase.STARTING:
                following.append((self.plan.by_id[id], Phase.STARTING))
                room -= 1
        return following

    def _next_start(self, id: str) -> Phase | None:
        if self._bad[id]:
            return Phase.SKIPPED
        return None if self._open[id] else Phase.STARTING

    def _next_stop(self, action: Action) -> Phase | None:
        """A stop waits for every user to end, however they ended."""
        if self._open[action.id]:
            return None
        started = self.of[action.undoes]
        return Phase.STARTING if started.tried or started.handle else Phase.SKIPPED

    def next_time(self) -> float | None:
        """When the earliest retry is due, or None."""
        return self._delayed[0][0] if self._delayed else None

    @property
    def ended(self) -> bool:
        return not self._unended

    @property
    def succeeded(self) -> bool:
        return all(s.phase is Phase.DONE for s in self.of.values())

    def failed(self) -> list[Action]:
        """The actions that failed by themselves: not what was skipped after them."""
        return [a for a in self.plan.actions if self.of[a.id].phase is Phase.FAILED]


def _bad(phase: Phase) -> bool:
    return phase in ENDED and phase is not Phase.DONE


def after_failure(
    action: Action,
    mine: ActionState,
    now: float,
    reason: str,
    cause: Cause | None = None,
    code: int | None = None,
) -> Event:
    """The event that a failed attempt leads to: another attempt, or FAILED.

    The task's own failures use up its `retries`; lost machines do not, up to LOSSES.
    """
    cause = cause or Cause.USER
    spent, limit = (mine.failures, action.retries) if cause is Cause.USER else (mine.losses, LOSSES)
    if cause is Cause.DENIED or spent >= limit:
        return Event(
            action=action.id, phase=Phase.FAILED, time=now, attempt=mine.attempt,
            reason=reason, cause=cause, exit_code=code,
        )  # fmt: skip
    delay = (action.retry_delay if cause is Cause.USER else LOSS_DELAY) * 2**spent
    return Event(
        action=action.id, phase=Phase.WAITING, time=now, attempt=mine.attempt + 1,
        reason=reason, cause=cause, exit_code=code, not_before=now + min(delay, 3600.0),
    )  # fmt: skip


def resumption(plan: Plan, state: RunState, now: float) -> list[Event]:
    """The events with which a resumed run begins: what did not end well waits again.

    What ended well and could not be committed is committed, not run a second time. A cluster
    that is down, or about to be, is made anew if a task still needs it. What may still be
    there is ended first: two attempts are never at work at once.
    """

    def again(id: str) -> Event:
        mine = state[id]
        attempt = mine.attempt + 1 if mine.tried else mine.attempt
        return Event(action=id, phase=Phase.WAITING, time=now, attempt=attempt, reason="resumed")

    def end_first(id: str) -> Event:
        return Event(
            action=id, phase=Phase.STOPPING, time=now, attempt=state[id].attempt,
            reason="had to end before the run could go on", cause=Cause.INFRA,
        )  # fmt: skip

    unfinished = {
        a.id
        for a in plan.actions
        if a.kind != "cluster"
        and state[a.id].phase is not Phase.DONE
        and not state[a.id].uncommitted
    }
    events = []
    for action in plan.actions:
        mine = state[action.id]
        if action.verb != "stop":
            if mine.leaked or (mine.phase is Phase.STOPPING and mine.cause is None):
                events.append(end_first(action.id))
            elif mine.uncommitted:
                events.append(
                    Event(action=action.id, phase=Phase.COMMITTING, time=now, attempt=mine.attempt)
                )
            elif mine.phase in ENDED - {Phase.DONE}:
                events.append(again(action.id))
        elif action.needs & unfinished and mine.phase is not Phase.WAITING:
            if state[action.undoes].phase is Phase.DONE:
                down = mine.phase is Phase.DONE
                events.append(again(action.undoes) if down else end_first(action.undoes))
            events.append(again(action.id))
        elif mine.phase is Phase.FAILED:
            events.append(again(action.id))
    return events
