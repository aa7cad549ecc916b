"""Decides what follows when something came of an action. Pure: it returns events, or None."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from .backend import Cause, Handle, State, Status
from .calls import Answer, Committed, Failed, Started
from .errors import (
    BackendError,
    DeniedError,
    NotFoundError,
    PortaflowError,
    QuotaError,
)
from .plan import Action, Plan
from .state import BUSY, ENDED, Event, Phase, RunState, after_failure


class Outcomes:
    """What follows in one run. Once it is `cancelled`, nothing is tried again."""

    def __init__(self, plan: Plan, state: RunState, cancelled: threading.Event) -> None:
        self._plan, self._state, self._cancelled = plan, state, cancelled

    def of(self, action: Action, answer: Answer, now: float) -> Event | None:
        """The event that an answer leads to; None when it changes nothing.

        An answer may come late: after the thing has ended, or when nobody waits for it.
        """
        mine = self._state[action.id]
        ready = mine.phase is Phase.DONE and action.kind == "cluster" and action.verb != "stop"
        if mine.phase not in BUSY and not ready:
            return None
        match answer:
            case Started(handle):
                if mine.phase is Phase.STARTING:
                    return self.event(action, Phase.RUNNING, now, handle=handle)
            case Committed(value):
                if mine.phase is Phase.COMMITTING:
                    return self.event(action, Phase.DONE, now, value=value)
            case Failed():
                return self._failed(action, answer, now)
            case Status():
                return self._status(action, answer, now)
            case NotFoundError():
                gone = Status(state=State.STOPPED, reason=f"{action.kind} is gone: {answer}")
                return self._status(action, gone, now)
            case PortaflowError() if action.verb != "stop" and mine.phase is Phase.RUNNING:
                cause = Cause.DENIED if isinstance(answer, DeniedError) else Cause.INFRA
                return self.end(action, str(answer), cause, now)  # it cannot be watched
        return None

    def event(self, action: Action, phase: Phase, now: float, **what: Any) -> Event:
        attempt = self._state[action.id].attempt
        return Event(action=action.id, phase=phase, time=now, attempt=attempt, **what)

    def _status(self, action: Action, status: Status, now: float) -> Event | None:
        mine, final = self._state[action.id], status.state.final
        if action.verb == "stop":
            busy = mine.phase in (Phase.STARTING, Phase.RUNNING)
            return self.event(action, Phase.DONE, now) if final and busy else None
        match mine.phase:
            case Phase.RUNNING | Phase.STOPPING if status.state is State.SUCCEEDED:
                return self.event(action, Phase.COMMITTING, now)
            case Phase.RUNNING if status.state is State.RUNNING and action.kind == "cluster":
                return self.event(action, Phase.DONE, now)
            case Phase.RUNNING if final:
                stopped = status.state is State.STOPPED or action.kind == "cluster"
                cause = status.cause or (Cause.INFRA if stopped else Cause.USER)
                reason = status.reason or status.state.value
                return self._again(action, reason, cause, now, status.exit_code)
            case Phase.STARTING if final:  # cancelled before anything was started
                return self.event(action, Phase.STOPPED, now, reason=status.reason)
            case Phase.STOPPING if final and mine.cause is None:
                return self.event(action, Phase.STOPPED, now, reason=mine.reason)
            case Phase.STOPPING if final:  # as it was asked to; why stands in its state
                reason = "\n".join(filter(None, (mine.reason, status.reason)))
                # Its time was over before there was room for it: the user says how often, too.
                spends = Cause.USER if mine.cause is Cause.CAPACITY else mine.cause
                event = self._again(action, reason, spends, now, status.exit_code)
                return replace(event, cause=mine.cause) if event.phase is Phase.FAILED else event
            case Phase.DONE if final and self.needed(action):
                lost = f"the cluster was lost: {status.reason or status.state.value}"
                event = after_failure(action, mine, now, lost, Cause.INFRA)
                return event if event.phase is Phase.WAITING else None  # else its jobs say so
        return None

    def _failed(self, action: Action, failed: Failed, now: float) -> Event | None:
        """A start, stop or commit failed for good."""
        mine, error = self._state[action.id], failed.error
        ours = isinstance(error, PortaflowError)
        text = str(error) if ours else f"{type(error).__name__}: {error}"
        passing = isinstance(error, BackendError) and error.retryable
        cause = Cause.USER
        if isinstance(error, BackendError):
            denied, full = isinstance(error, DeniedError), isinstance(error, QuotaError)
            cause = Cause.DENIED if denied else Cause.CAPACITY if full else Cause.INFRA
        if action.verb == "stop" and not passing and self._never_made(action):
            return self.event(action, Phase.DONE, now)
        if action.verb == "stop" or mine.phase is Phase.STOPPING:
            return None if passing else self.leak(action, text, now)  # it is asked again
        if mine.phase is Phase.COMMITTING:
            if cause in (Cause.DENIED, Cause.CAPACITY):  # the task is not to blame
                return self.event(
                    action, Phase.FAILED, now, reason=text, cause=cause, uncommitted=True
                )
            if ours:
                return self._again(action, text, cause, now)
        elif mine.phase is not Phase.STARTING:
            return None
        elif failed.unclear:
            return self.leak(action, text, now)
        elif passing or (isinstance(error, NotFoundError) and action.parent):
            return self._again(action, text, cause, now)  # the latter: its cluster died just now
        if isinstance(error, BackendError) and cause is Cause.INFRA:
            cause = Cause.USER  # it was refused, and would be again
        return self.event(action, Phase.FAILED, now, reason=text, cause=cause)

    def _again(
        self, action: Action, reason: str, cause: Cause | None, now: float, code: int | None = None
    ) -> Event:
        if self._cancelled.is_set():
            return self.event(action, Phase.FAILED, now, reason=reason, cause=cause, exit_code=code)
        return after_failure(action, self._state[action.id], now, reason, cause, code)

    def missed(self, event: Event) -> Event:
        """What follows when an attempt turns out to have failed before this run was resumed.

        It counts as if that had been known at the resume: what failed then is tried again.
        """
        if event.phase is not Phase.FAILED or event.leaked or self._cancelled.is_set():
            return event
        return Event(
            action=event.action, phase=Phase.WAITING, time=event.time,
            attempt=event.attempt + 1, reason=event.reason, exit_code=event.exit_code,
        )  # fmt: skip

    def lost_call(self, action: Action, now: float) -> Event:
        """A call ends with its engine, so a new engine finds none of the old one's."""
        reason = "the engine that made the call has ended, and the call with it"
        return self._again(action, reason, Cause.INFRA, now)

    def end(self, action: Action, reason: str, cause: Cause | None, now: float) -> Event:
        """End a running attempt before its end. A cluster that is not ours is only let go."""
        if action.verb == "attach":
            phase = Phase.STOPPED if cause is None else Phase.FAILED
            return self.event(action, phase, now, reason=reason, cause=cause)
        return self.event(action, Phase.STOPPING, now, reason=reason, cause=cause)

    def leak(self, action: Action, reason: str, now: float) -> Event:
        """Give up an action whose thing may go on."""
        of = self._plan.by_id[action.undoes or action.id]
        reason = f"{of.kind} {of.subject!r} may still be there: {reason}"
        return self.event(action, Phase.FAILED, now, reason=reason, cause=Cause.INFRA, leaked=True)

    def _never_made(self, stop: Action) -> bool:
        """Whether the start of what is to be stopped was refused: else it has a handle, or leaks.

        Who may not start it may often not look for it either, and then nothing can be told.
        """
        started = self._state[stop.undoes]
        return started.phase is Phase.FAILED and not started.handle and not started.leaked

    def needed(self, cluster: Action) -> bool:
        """Whether a task that has not ended runs, or will run, on the cluster."""
        return any(
            self._state[a.id].phase not in ENDED
            for a in self._plan.actions
            if a.parent == cluster.id
        )


def leaked(plan: Plan, state: RunState) -> Iterator[tuple[Action, Handle | None]]:
    """What was given up and may still cost money: the action that started it, and its handle.

    What was stopped later, by itself or with its cluster, is not among it.
    """
    stopped = {a.undoes: state[a.id] for a in plan.actions if a.verb == "stop"}
    for action in plan.actions:
        if action.verb != "start":
            continue
        mine, stop = state[action.id], stopped.get(action.parent or action.id)
        gone = stop is not None and stop.phase is Phase.DONE
        if (mine.leaked and not gone) or (not action.parent and stop and stop.leaked):
            yield action, mine.handle
