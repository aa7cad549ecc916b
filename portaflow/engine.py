"""Carries out a plan in this process: the only loop in portaflow.

The loop alone changes the state. What may block (a provider's call, a commit) is done by
threads that put what came of it into one queue. A turn of the loop takes what is in the
queue, turns it into events, records them all in one object of the journal, and only then
lets them take effect.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import data
from .backend import Cause, Handle, State, Status
from .calls import Calls, Drivers, patiently
from .errors import (
    BackendError,
    DeniedError,
    LeakError,
    NotFoundError,
    PortaflowError,
    QuotaError,
    RunError,
    UnavailableError,
)
from .journal import Journal
from .plan import Action, Plan
from .poller import Poller, Seen
from .state import BUSY, Event, Phase, RunState, after_failure, resumption

_STOP_AGAIN = 30.0  # seconds after a stop's grace, until it is asked for again
_STOPS = 4  # how often, until the thing counts as leaked


@dataclass(frozen=True, slots=True)
class _Started:
    handle: Handle


@dataclass(frozen=True, slots=True)
class _Failed:
    """A call for an action failed for good."""

    error: Exception


@dataclass(frozen=True, slots=True)
class _Committed:
    value: Any


_Message = tuple[Action, int, "_Started | _Failed | _Committed | Seen"]
"""An action, the attempt that is meant, and what came of it."""


class Engine:
    """One run. `run` may be called once; `cancel` from any thread or signal handler."""

    def __init__(
        self,
        plan: Plan,
        drivers: Drivers,
        fs: Any,
        journal: Journal,
        *,
        past: Iterable[Event] = (),
        observe: Callable[[Action, Event], None] | None = None,
        on_trouble: Callable[[Exception, float], None] | None = None,
    ) -> None:
        """`past`: the journal's events, when a run is resumed. `observe` sees each new event."""
        self.plan = plan
        self.state = RunState(plan, past)
        self.leaks: list[Handle] = []
        self._drivers, self._fs, self._journal = drivers, fs, journal
        self._cancelled = threading.Event()
        self._calls = Calls(plan, drivers, fs, self._cancelled)
        self._observe = observe or (lambda action, event: None)
        self._messages: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        self._poller = Poller(on_trouble)
        self._pool = ThreadPoolExecutor(plan.max_parallel + 4, thread_name_prefix="call")
        self._events: list[Event] = []  # of this turn, not yet recorded
        self._effects: list[Callable[[], None]] = []  # of these events
        self._deadlines: list[tuple[float, str, int, Phase, int]] = []

    def cancel(self) -> None:
        """Stop what runs, clusters too, and start nothing more."""
        self._cancelled.set()
        self._messages.put(None)

    def run(self) -> RunState:
        """Run to the end and return the state. Failed tasks are in it; they do not raise.

        Raises LeakError when something may still cost money, and RunError when the journal
        cannot be written or belongs to another engine.
        """
        try:
            data.stage(self._fs, self.plan.staged)
            self._pick_up()
            while not self.state.ended:
                self._turn(self._wait())
        except PortaflowError as error:
            if not isinstance(error, RunError):  # the journal is out of reach, not taken
                self._abandon()
                self._raise_leaks()
            raise
        finally:
            self._cancelled.set()  # ends what threads still wait for
            self._poller.close()
            self._pool.shutdown()
            self._journal.close()
        self._raise_leaks()
        return self.state

    def _raise_leaks(self) -> None:
        if self.leaks:
            names = ", ".join(f"{h.name} ({h.id})" for h in self.leaks)
            raise LeakError(
                f"these could not be stopped and may still cost money: {names}; "
                "try `portaflow reap`, then look into the provider's console",
                self.leaks,
            )

    # -- the turn of the loop

    def _turn(self, message: _Message | None) -> None:
        while message:
            self._take(*message)
            message = self._waiting()
        self._expire()
        if self._cancelled.is_set():
            self._cancel_all()
        while True:
            room = self.plan.max_parallel - self.state.busy
            following = self.state.next(time.time(), room)
            for action, phase in following:
                self._note(action, phase)
                if phase is Phase.STARTING:
                    self._later(self._begin, action)
            if not following:
                break
        self._commit_turn()

    def _commit_turn(self) -> None:
        """Record this turn's events; then, and not before, let them take effect."""
        events, self._events = self._events, []
        effects, self._effects = self._effects, []
        if events:
            patiently(lambda: self._journal.append(events), self._cancelled)
            for event in events:
                self._observe(self.plan.by_id[event.action], event)
        for effect in effects:
            effect()

    def _wait(self) -> _Message | None:
        """Return the next message, or None when a deadline or a retry is due before it."""
        times = [t for t in (self.state.next_time(),) if t is not None]
        if self._deadlines:
            times.append(self._deadlines[0][0])
        timeout = max(min(times) - time.time(), 0.0) if times else None
        try:
            return self._messages.get(timeout=timeout)
        except queue.Empty:
            return None

    def _waiting(self) -> _Message | None:
        """Return a message that is there already."""
        try:
            return self._messages.get_nowait()
        except queue.Empty:
            return None

    def _event(self, event: Event) -> None:
        self.state.apply(event)
        self._events.append(event)

    def _note(self, action: Action, phase: Phase, **what: Any) -> None:
        attempt = self.state[action.id].attempt
        self._event(Event(action=action.id, phase=phase, time=time.time(), attempt=attempt, **what))

    def _later(self, effect: Callable[..., None], *args: Any) -> None:
        self._effects.append(partial(effect, *args))

    # -- what came of what

    def _take(self, action: Action, attempt: int, what: Any) -> None:
        mine = self.state[action.id]
        if attempt != mine.attempt:
            return  # of an attempt that has ended
        match what:
            case _Started(handle):
                self._note(action, Phase.RUNNING, handle=handle)
                self._later(self._watch, action, handle)
            case _Committed(value):
                self._note(action, Phase.DONE, value=value)
            case _Failed(error):
                self._take_error(action, error)
            case Status():
                self._take_status(action, what)
            case NotFoundError():
                gone = f"{action.kind} {self._calls.name(action, attempt)} is gone: {what}"
                self._take_status(action, Status(state=State.STOPPED, reason=gone))
            case PortaflowError():  # it cannot be watched: end it
                self._stop_attempt(action, str(what), Cause.INFRA)

    def _take_status(self, action: Action, status: Status) -> None:
        mine = self.state[action.id]
        if action.verb == "stop":
            if status.state.final and mine.phase in (Phase.STARTING, Phase.RUNNING):
                self._note(action, Phase.DONE)
        elif status.state is State.SUCCEEDED and mine.phase in (Phase.RUNNING, Phase.STOPPING):
            self._note(action, Phase.COMMITTING)
            self._later(self._commit, action)
        elif status.state is State.RUNNING and action.kind == "cluster":
            if mine.phase is Phase.RUNNING:
                self._note(action, Phase.DONE)
        elif status.state.final and mine.phase is Phase.STOPPING:
            self._take_stopped(action, status)
        elif status.state.final and mine.phase is Phase.RUNNING:
            stopped = status.state is State.STOPPED or action.kind == "cluster"
            cause = status.cause or (Cause.INFRA if stopped else Cause.USER)
            self._fail(action, status.reason or status.state.value, cause, status.exit_code)
        elif status.state.final and mine.phase is Phase.DONE and self._needed(action):
            lost = f"the cluster was lost: {status.reason or status.state.value}"
            event = after_failure(action, mine, time.time(), lost, Cause.INFRA)
            if event.phase is Phase.WAITING:  # else its jobs fail, and say so
                self._event(event)

    def _take_stopped(self, action: Action, status: Status) -> None:
        """It has ended, as it was asked to; why it was asked stands in its state."""
        mine = self.state[action.id]
        if mine.cause is None:
            self._note(action, Phase.STOPPED, reason=mine.reason)
        else:
            reason = "\n".join(filter(None, (mine.reason, status.reason)))
            self._fail(action, reason, mine.cause, status.exit_code)

    def _take_error(self, action: Action, error: Exception) -> None:
        """A start, stop or commit failed for good."""
        mine = self.state[action.id]
        text = str(error) if isinstance(error, PortaflowError) else _shown(error)
        if action.verb == "stop" or mine.phase is Phase.STOPPING:
            self._leak(action, text)
        elif mine.phase is Phase.COMMITTING:
            self._fail(action, text, Cause.USER if isinstance(error, RunError) else Cause.INFRA)
        elif isinstance(error, NotFoundError) and action.parent:
            self._fail(action, text, Cause.INFRA)  # its cluster died just now
        else:
            cause = next((c for e, c in _CAUSES.items() if isinstance(error, e)), Cause.USER)
            self._note(action, Phase.FAILED, reason=text, cause=cause)

    def _fail(self, action: Action, reason: str, cause: Cause, code: int | None = None) -> None:
        mine = self.state[action.id]
        if self._cancelled.is_set():
            self._note(action, Phase.FAILED, reason=reason, cause=cause, exit_code=code)
        else:
            self._event(after_failure(action, mine, time.time(), reason, cause, code))

    def _leak(self, action: Action, reason: str) -> None:
        of = self.plan.by_id[action.undoes or action.id]
        name = self._calls.name(of, self.state[of.id].attempt)
        handle = self.state[of.id].handle or Handle(name=name, id="unknown")
        self.leaks.append(handle)
        reason = f"{of.kind} {handle.name} could not be stopped: {reason}"
        self._note(action, Phase.FAILED, reason=reason, cause=Cause.INFRA)

    def _needed(self, cluster: Action) -> bool:
        """Whether a task that has not ended runs, or will run, on the cluster."""
        return any(
            self.state[a.id].phase not in (Phase.DONE, Phase.SKIPPED, Phase.FAILED, Phase.STOPPED)
            for a in self.plan.actions
            if a.parent == cluster.id
        )

    # -- deadlines and the end before the end

    def _expire(self) -> None:
        now = time.time()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, id, attempt, phase, asked = heapq.heappop(self._deadlines)
            action, mine = self.plan.by_id[id], self.state[id]
            if mine.attempt != attempt or mine.phase is not phase:
                continue
            if action.verb == "stop" or phase is Phase.STOPPING:
                if asked >= _STOPS:
                    self._leak(action, f"it was asked {asked} times and goes on")
                else:
                    self._later(self._ask, action, asked + 1)
            else:
                limit = f"{action.timeout:g} s"
                self._stop_attempt(action, f"timed out after {limit}", Cause.USER)

    def _stop_attempt(self, action: Action, reason: str, cause: Cause | None) -> None:
        if self.state[action.id].phase is Phase.RUNNING:
            self._note(action, Phase.STOPPING, reason=reason, cause=cause)
            self._later(self._ask, action, 1)

    def _cancel_all(self) -> None:
        for action in self.plan.actions:
            if action.verb == "stop":
                continue
            phase = self.state[action.id].phase
            if phase is Phase.WAITING:
                self._note(action, Phase.STOPPED, reason="stopped on request")
            elif phase is Phase.RUNNING:
                self._stop_attempt(action, "stopped on request", None)

    def _abandon(self) -> None:
        """Without a journal nothing more may be started: stop all, tasks before clusters."""
        self._cancelled.set()
        self._pool.shutdown()  # a start that is under way still tells its handle
        running = {
            action.id: handle
            for action in self.plan.actions
            if action.verb == "start" and (handle := self._alive(action))
        }
        while message := self._waiting():
            if isinstance(message[2], _Started) and message[0].verb == "start":
                running[message[0].id] = message[2].handle
        for id in sorted(running, key=lambda id: self.plan.by_id[id].kind == "cluster"):
            try:
                self._calls.stop(self.plan.by_id[id], running[id])
            except BackendError:
                self.leaks.append(running[id])

    def _alive(self, action: Action) -> Handle | None:
        mine = self.state[action.id]
        up = action.kind == "cluster" and mine.phase is Phase.DONE
        return mine.handle if up or mine.phase in BUSY else None

    # -- effects: what the loop has done, by itself or by a thread

    def _begin(self, action: Action) -> None:
        attempt = self.state[action.id].attempt
        if action.verb == "stop":
            of = self.plan.by_id[action.undoes]
            begun = self.state[of.id]
            self._submit(action, partial(self._stop, of, begun.handle, begun.attempt))
        else:
            parent = self.state[action.parent].handle if action.parent else None
            start = partial(self._calls.start, action, attempt, parent)
            self._submit(action, lambda: _Started(start()))

    def _stop(self, of: Action, handle: Handle | None, attempt: int) -> _Started | Status:
        """Ask for the end of what another action started, if there is such a thing."""
        handle = handle or self._calls.find(of, attempt)
        if handle is None:
            return Status(state=State.STOPPED)
        self._calls.stop(of, handle)
        return _Started(handle)

    def _commit(self, action: Action) -> None:
        commit = partial(self._calls.commit, action, self.state[action.id].attempt)
        self._submit(action, lambda: _Committed(commit()))

    def _submit(self, action: Action, call: Callable[[], Any]) -> None:
        """Make a call in a thread; what it returns or raises comes back as a message."""
        attempt = self.state[action.id].attempt

        def guarded() -> None:
            try:
                answer = call()
            except Exception as error:  # all that a plugin may raise must reach the loop
                answer = _Failed(error)
            if answer is not None:
                self._messages.put((action, attempt, answer))

        self._pool.submit(guarded)

    def _watch(self, action: Action, handle: Handle) -> None:
        attempt = self.state[action.id].attempt
        driver = self._drivers(action.kind)
        tell = lambda seen: self._messages.put((action, attempt, seen))  # noqa: E731
        self._poller.watch(driver, handle, tell)
        if action.verb == "stop":
            self._deadline(_STOP_AGAIN, action, Phase.RUNNING, 1)
        else:
            began = self.state[action.id].began
            self._deadline(began + action.timeout - time.time(), action, Phase.RUNNING)

    def _deadline(self, seconds: float, action: Action, phase: Phase, asked: int = 0) -> None:
        attempt = self.state[action.id].attempt
        heapq.heappush(self._deadlines, (time.time() + seconds, action.id, attempt, phase, asked))

    def _ask(self, action: Action, asked: int) -> None:
        """Ask a thing to end, and look again later whether it did."""
        of = self.plan.by_id[action.undoes or action.id]
        handle = self.state[of.id].handle
        grace = of.spec.grace if of.spec else 0
        self._deadline(grace + _STOP_AGAIN, action, self.state[action.id].phase, asked)
        if handle:
            self._submit(action, partial(self._calls.stop, of, handle))
            self._poller.hurry(self._drivers(of.kind), handle.name)

    # -- resume

    def _pick_up(self) -> None:
        """Go on where the journal ends: what is in flight is found by name and watched."""
        for action in self.plan.actions:
            mine = self.state[action.id]
            if mine.phase is Phase.DONE and action.home and not data.intact(self._fs, action):
                lost = "its outputs are no longer what was committed"
                again = mine.attempt + 1
                self._event(
                    Event(
                        action=action.id, phase=Phase.WAITING, time=time.time(),
                        attempt=again, reason=lost,
                    )
                )  # fmt: skip
        for event in resumption(self.plan, self.state, time.time()):
            self._event(event)
        for action in self.plan.actions:
            mine = self.state[action.id]
            if action.kind == "call" and mine.phase in BUSY - {Phase.COMMITTING}:
                lost = "the engine that made the call has ended, and the call with it"
                self._fail(action, lost, Cause.INFRA)
            elif mine.phase is Phase.STARTING:
                self._later(self._begin, action)
            elif mine.phase is Phase.COMMITTING:
                self._later(self._commit, action)
            elif mine.phase in (Phase.RUNNING, Phase.STOPPING):
                of = self.state[action.undoes].handle if action.undoes else mine.handle
                if handle := mine.handle or of:
                    self._later(self._watch, action, handle)
                if mine.phase is Phase.STOPPING or action.verb == "stop":
                    self._later(self._ask, action, 1)
            elif self._alive(action) and self._needed(action) and mine.handle:
                self._later(self._watch, action, mine.handle)
        self._turn(None)


_CAUSES: dict[type[BackendError], Cause] = {
    DeniedError: Cause.DENIED,
    QuotaError: Cause.CAPACITY,
    UnavailableError: Cause.INFRA,
}


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
