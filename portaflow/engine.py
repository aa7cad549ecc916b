"""Carries out a plan in this process: the only loop in portaflow.

The loop alone changes the state. What may block (a provider's call, a commit) is done by
threads that put what came of it into one queue. A turn of the loop takes what is in the
queue, turns it into events, records them all in one object of the journal, and only then
lets them act on the world. What an event's effect is follows from its phase alone, so a resumed
run goes on by having the effects of the phases that its journal ends with.
"""

from __future__ import annotations

import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from . import data
from .backend import Cause, Handle, State, Status
from .calls import Calls, Drivers, Message, Started, patiently
from .errors import LeakError, RunError
from .journal import Journal
from .outcome import Outcomes, leaked
from .plan import Action, Plan
from .state import BUSY, Event, Phase, RunState, resumption

STOP_AGAIN = 30.0
"""Seconds after a stop's grace until it is asked for again; twice as long each time."""

STOPS = 4
"""How often a thing is asked to end, until it counts as leaked."""

CLOSING = 10.0
"""Seconds that the end of a run waits for a provider's calls that are under way."""

_ROOM = "make its size smaller, or ask for a larger quota or for more nodes"
_RUNNING = Phase.RUNNING
_HELD = 0.05  # seconds for which the record that a thing runs may wait
_NOBODY = 0  # no attempt: nobody waits for the answer
_LIMIT, _OVER = 0, -1  # what a deadline is for, unless it counts how often a stop was asked for


class Engine:
    """One run. `run` may be called once; `cancel` from any thread."""

    def __init__(
        self,
        plan: Plan,
        drivers: Drivers,
        stores: data.Stores,
        journal: Journal,
        *,
        past: Iterable[Event] = (),
        observe: Callable[[Action, Event], None] | None = None,
        on_trouble: Callable[[Exception, float], None] | None = None,
    ) -> None:
        """`past`: the journal's events, when a run is resumed. `observe` sees each new event."""
        self.plan = plan
        self.state = RunState(plan, past)
        self.leaks: list[Handle] = []  # known at the end
        self._stores, self._journal = stores, journal
        self._cancelled = threading.Event()
        self._calls = Calls(plan, drivers, stores, self._cancelled, on_trouble)
        self._messages = self._calls.messages
        self._outcomes = Outcomes(plan, self.state, self._cancelled)
        self._observe = observe or (lambda action, event: None)
        self._events: list[Event] = []  # not yet recorded
        self._held_until = 0.0
        self._doubtful = threading.Event()  # whether the run is still this engine's
        self._deadlines: list[tuple[float, str, int, int]] = []
        self._adopted: set[str] = set()  # what a former engine began and nobody has seen since
        self._doubted: set[str] = set()  # whose start a former engine may have asked for
        self._waits: dict[str, Status] = {}  # of what is not at work yet, by action
        self._hurried: set[str] = set()  # whose start was under way when the run was cancelled

    def cancel(self) -> None:
        """Stop what runs, clusters too, and start nothing more."""
        self._cancelled.set()
        self._messages.put(None)

    def look_for_rival(self) -> None:
        """Find out soon whether the run is still this engine's: only a record can tell."""
        self._doubtful.set()
        self._messages.put(None)

    def run(self) -> RunState:
        """Run to the end and return the state. Failed tasks are in it; they do not raise.

        Raises LeakError when something may still cost money, and RunError when the journal
        cannot be written or belongs to another engine.
        """
        try:
            patiently(lambda: data.stage(self._stores, self.plan.staged), self._cancelled)
            self._events_of_resume()
            self._go_on()
        finally:
            self._calls.close(CLOSING)
            self._journal.close()
        self._raise_leaks(
            handle or Handle(name=self._calls.name(a, self.state[a.id].attempt), id="unknown")
            for a, handle in leaked(self.plan, self.state)
        )
        return self.state

    def _raise_leaks(self, handles: Iterable[Handle]) -> None:
        self.leaks = list(handles)
        if self.leaks:
            names = ", ".join(f"{h.name} ({h.id})" for h in self.leaks)
            raise LeakError(
                f"these could not be stopped and may still cost money: {names}; "
                "try `portaflow reap`, then look into the provider's console",
                self.leaks,
            )

    def _go_on(self) -> None:
        try:
            self._pick_up()
            while not self.state.ended:
                self._turn(self._wait())
        except RunError:  # another engine has the run, and all that is not inside this one
            self._abandon(lambda action: action.inside)
            raise
        except Exception as error:  # without a journal nothing more may be started
            self._raise_leaks(self._abandon(lambda action: action.verb == "start"))
            raise RunError(
                f"{error}; all that ran was asked to stop; when the cause is gone, "
                "`portaflow resume` goes on"
            ) from error

    # -- the turn of the loop

    def _turn(self, message: Message | None) -> None:
        while message:
            self._take(*message)
            message = self._next_message(0.0)
        self._expire()
        if self._cancelled.is_set():
            self._cancel_all()
        while True:
            room = self.plan.max_parallel - self.state.busy
            following = self.state.next(time.time(), room)
            for action, phase in following:
                self._note(action, phase)
            if not following:
                break
        self._record()

    def _take(self, action: Action, attempt: int, answer: Any) -> None:
        mine = self.state[action.id]
        if attempt != mine.attempt:
            return  # of an attempt that has ended
        if isinstance(answer, Status) and answer.state is State.PENDING:
            self._waits[action.id] = answer
        elif isinstance(answer, Status | Started):
            self._waits.pop(action.id, None)
        event = self._outcomes.of(action, answer, time.time())
        if action.id in self._adopted and not isinstance(answer, Started):
            self._adopted.remove(action.id)
            event = event and self._outcomes.missed(event)
        if event:
            self._event(event)
            if event.cause is Cause.INFRA and action.parent:
                self._suspect(self.plan.by_id[action.parent])
        elif isinstance(answer, Started):
            if mine.phase in BUSY:  # it was asked to end
                self._calls.look(action, attempt, answer.handle, self._age(action))
            elif mine.leaked and action.verb == "start":  # given up, and there after all
                ask = partial(self._calls.ask, action, attempt, answer.handle, None)
                self._calls.stop(action, _NOBODY, ask)

    def _suspect(self, cluster: Action) -> None:
        """Look at a cluster soon: what ran on it was lost, so that it may be gone, too."""
        mine = self.state[cluster.id]
        if mine.handle and mine.phase is Phase.DONE:
            self._calls.look(cluster, mine.attempt, mine.handle, self._age(cluster))

    def _record(self) -> None:
        """Record the events so far; then, and not before, let them take effect.

        That a thing runs is recorded with what follows soon: a resume would find it by name.
        """
        held = time.time() < self._held_until and all(e.phase is _RUNNING for e in self._events)
        if not self._doubtful.is_set() and (held or not self._events):
            return
        self._doubtful.clear()
        events, self._events = self._events, []
        patiently(lambda: self._journal.append(events), None)
        for event in events:
            self._observe(self.plan.by_id[event.action], event)
        for event in events:
            if event.phase is not _RUNNING:
                self._effect(self.plan.by_id[event.action], event.phase)

    def _wait(self) -> Message | None:
        """Return the next message, or None when a deadline or a retry is due before it."""
        times = [t for t in (self.state.next_time(),) if t is not None]
        if self._deadlines:
            times.append(self._deadlines[0][0])
        if self._events:
            times.append(self._held_until)
        return self._next_message(max(min(times) - time.time(), 0.0) if times else None)

    def _next_message(self, timeout: float | None) -> Message | None:
        try:
            return self._messages.get(block=timeout != 0.0, timeout=timeout)
        except queue.Empty:
            return None

    def _event(self, event: Event) -> None:
        self.state.apply(event)
        if not self._events:
            self._held_until = time.time() + _HELD
        self._events.append(event)
        if event.phase is _RUNNING:  # to look does no harm
            self._effect(self.plan.by_id[event.action], _RUNNING)

    def _note(self, action: Action, phase: Phase, reason: str = "") -> None:
        self._event(self._outcomes.event(action, phase, time.time(), reason=reason))

    # -- effects

    def _effect(self, action: Action, phase: Phase) -> None:
        """Do what a phase stands for, at its beginning or when a run is resumed in it."""
        mine = self.state[action.id]
        match phase:
            case Phase.STARTING if action.verb != "stop":
                self._deadline(mine.began + action.timeout, action, _LIMIT)
                doubted = action.id in self._doubted
                self._doubted.discard(action.id)
                self._calls.start(action, mine.attempt, self._parent(action), doubted)
            case Phase.STARTING | Phase.STOPPING:
                self._ask(action, 1)
            case Phase.RUNNING if mine.handle:
                self._calls.watch(action, mine.attempt, mine.handle, self._age(action))
            case Phase.COMMITTING:
                self._calls.commit(action, mine.attempt)

    def _parent(self, action: Action) -> Handle | None:
        return self.state[action.parent].handle if action.parent else None

    def _ask(self, action: Action, times: int) -> None:
        """Ask a thing to end, and look again later whether it did."""
        of = self.plan.by_id[action.undoes or action.id]
        grace = of.spec.grace if of.spec else 0
        self._deadline(time.time() + grace + STOP_AGAIN * 2 ** (times - 1), action, times)
        begun = self.state[of.id]
        ask = partial(self._calls.ask, of, begun.attempt, begun.handle, self._parent(of))
        self._calls.stop(action, self.state[action.id].attempt, ask)

    def _age(self, action: Action) -> float:
        """For how long the provider has known what an action is about."""
        return time.time() - self.state[action.undoes or action.id].began

    # -- deadlines and the end before the end

    def _deadline(self, at: float, action: Action, what: int) -> None:
        heapq.heappush(self._deadlines, (at, action.id, self.state[action.id].attempt, what))

    def _expire(self) -> None:
        now = time.time()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, id, attempt, what = heapq.heappop(self._deadlines)
            action, mine = self.plan.by_id[id], self.state[id]
            if mine.attempt == attempt and mine.phase in BUSY:
                if what > 0:
                    self._stop_unheard(action, what, now)
                else:
                    self._timed_out(action, what, now)

    def _stop_unheard(self, action: Action, times: int, now: float) -> None:
        if action.verb != "stop" and self.state[action.id].phase is not Phase.STOPPING:
            return
        if times < STOPS:
            self._ask(action, times + 1)
        else:
            unheard = f"it was asked to end {times} times, and is not known to have done so"
            reason = "; ".join(filter(None, (self.state[action.id].reason, unheard)))
            self._event(self._outcomes.leak(action, reason, now))

    def _timed_out(self, action: Action, what: int, now: float) -> None:
        phase = self.state[action.id].phase
        if phase is Phase.RUNNING:
            waits = self._waits.get(action.id)
            waiting = f", while it waited: {waits.reason}" if waits and waits.reason else ""
            cause = (waits and waits.cause) or Cause.USER
            helps = f"; {_ROOM}" if cause is Cause.CAPACITY else ""
            reason = f"timed out after {action.timeout:g} s{waiting}{helps}"
            self._event(self._outcomes.end(action, reason, cause, now))
        elif phase is Phase.STARTING and what == _LIMIT:
            self._deadline(now + STOP_AGAIN, action, _OVER)
        elif phase is Phase.STARTING:
            reason = "the call that starts it does not return"
            self._event(self._outcomes.leak(action, reason, now))

    def _cancel_all(self) -> None:
        for action in self.plan.actions:
            if action.verb == "stop":
                continue
            mine, now = self.state[action.id], time.time()
            if mine.phase is Phase.WAITING:
                self._note(action, Phase.STOPPED, "stopped on request")
            elif mine.phase is Phase.RUNNING:
                self._event(self._outcomes.end(action, "stopped on request", None, now))
            elif mine.phase is Phase.STARTING and action.id not in self._hurried:
                self._hurried.add(action.id)  # the call is waited for, but not for ever
                self._deadline(now + STOP_AGAIN, action, _OVER)

    def _abandon(self, which: Callable[[Action], bool]) -> list[Handle]:
        """Ask for the end of all that may be alive, tasks before clusters.

        Returns what could not be asked.
        """
        self._calls.close(CLOSING)  # a start that is under way still tells its handle
        told = {}
        while message := self._next_message(0.0):
            if isinstance(message[2], Started):
                told[message[0].id] = message[2].handle
        alive = [a for a in self.plan.actions if which(a) and self._alive(a)]
        lost = []
        for action in sorted(alive, key=lambda a: a.kind == "cluster"):
            mine = self.state[action.id]
            handle = mine.handle or told.get(action.id)
            ask = partial(self._calls.ask, action, mine.attempt, handle, self._parent(action))
            try:
                ask()
                if action.inside:
                    ask()  # the second time is a kill: nobody will look again
            except Exception:  # also a plugin's fault must not keep the others
                name = self._calls.name(action, mine.attempt)
                lost.append(handle or Handle(name=name, id="unknown"))
        return lost

    def _alive(self, action: Action) -> bool:
        mine = self.state[action.id]
        at_work = mine.phase in BUSY - {Phase.COMMITTING}
        return at_work or mine.leaked or self._up(action)

    def _up(self, action: Action) -> bool:
        cluster = action.kind == "cluster" and action.verb != "stop"
        return cluster and self.state[action.id].phase is Phase.DONE

    # -- resume

    def _pick_up(self) -> None:
        """Go on where the journal ends: what is in flight is found by name and watched."""
        new = {event.action for event in self._events}
        before = {a.id: self.state[a.id].phase for a in self.plan.actions if a.id not in new}
        self._turn(None)
        for id, phase in before.items():
            action, mine = self.plan.by_id[id], self.state[id]
            if mine.phase is not phase:
                continue  # by an event of the first turn, which has had its effect
            if mine.phase in BUSY:
                if mine.phase is Phase.STARTING:
                    self._doubted.add(id)
                self._effect(action, mine.phase)
                if action.kind != "cluster":
                    self._adopted.add(id)
            if mine.phase is Phase.RUNNING and action.verb == "stop":
                self._ask(action, 1)
            elif mine.phase is Phase.RUNNING:
                self._deadline(mine.began + action.timeout, action, _LIMIT)
            elif mine.handle and self._up(action) and self._outcomes.needed(action):
                self._calls.watch(action, mine.attempt, mine.handle, self._age(action))

    def _events_of_resume(self) -> None:
        now, cancelled = time.time(), self._cancelled.is_set()
        for action in self.plan.actions:
            if cancelled or not action.home or self.state[action.id].phase is not Phase.DONE:
                continue
            intact = partial(data.intact, self._stores(action.home), action)
            if not patiently(intact, self._cancelled):
                self._event(
                    Event(
                        action=action.id, phase=Phase.WAITING, time=now,
                        attempt=self.state[action.id].attempt + 1,
                        reason="its outputs are no longer what was committed",
                    )
                )  # fmt: skip
        for event in resumption(self.plan, self.state, now):
            stops = self.plan.by_id[event.action].verb == "stop"
            if not cancelled or stops or self.state[event.action].leaked:  # else it may rest
                self._event(event)
        for action in self.plan.actions:
            phase = self.state[action.id].phase
            if action.inside and phase in BUSY - {Phase.COMMITTING}:
                self._event(self._outcomes.lost_call(action, now))
