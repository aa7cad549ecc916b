"""Watches any number of things with one batched call per driver and round.

The cadence follows from what a call costs and how young the youngest thing is: a call of
50 us is made every millisecond, one of 100 ms every two seconds; things that have run for
long are asked less often. Throttling and outages slow the rounds down and fail nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .backend import Driver, Handle, State, Status
from .errors import BackendError, DeniedError, NotFoundError, PluginError, PortaflowError

Seen = Status | PortaflowError
Tell = Callable[[Seen], None]
"""Called from the poller's thread with each new status, or with the error that ends the watch."""

_COST = 20  # a call may take a twentieth of the time
_AGE = 0.05  # how late an end may be noticed, as a part of the thing's age
_SHORTEST, _LONGEST = 0.001, 5.0  # seconds between two rounds
_LONGEST_TROUBLE = 60.0  # seconds between two rounds while calls fail
_GRACE = 15.0  # seconds in which a provider may not yet list what it has started
_SURE = 1.0  # seconds for which a thing that was there must be missing
_DENIED = 30.0  # seconds in which one may come to be allowed to look at what one has started
_CLOSING = 5.0  # seconds that the end waits for a call that is under way
_BROKEN = 3  # rounds after which a plugin that breaks the interface is given up


@dataclass(slots=True)
class _Watch:
    handle: Handle
    tell: Tell
    since: float
    grace: float  # seconds in which the provider may not yet know it
    new: bool = True  # it has just begun
    last: Status | None = None
    missing_since: float = 0.0


@dataclass
class _Group:
    driver: Driver[Any]
    watches: dict[str, _Watch] = field(default_factory=dict)
    changed: threading.Condition = field(default_factory=threading.Condition)
    thread: threading.Thread | None = None
    cost: float = 0.0  # seconds of the last call
    troubles: int = 0  # calls that failed in a row
    faults: int = 0  # those of them that the plugin itself is to blame for


class Poller:
    """One thread for each driver that has something to watch."""

    def __init__(self, on_trouble: Callable[[Exception, float], None] | None = None) -> None:
        """`on_trouble(error, seconds)`: a call failed; the next one is made after `seconds`."""
        self._groups: dict[int, _Group] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._on_trouble = on_trouble or (lambda error, seconds: None)

    def watch(self, driver: Driver[Any], handle: Handle, tell: Tell, age: float = 0.0) -> None:
        """Tell every change of status of `handle`, until a final one or `forget`.

        `age`: seconds since the thing was started; an old one that is missing is gone.
        """
        with self._lock:
            group = self._groups.setdefault(id(driver), _Group(driver))
            if group.thread is None:
                name = f"poll {type(driver).__name__}"
                group.thread = threading.Thread(
                    target=self._rounds, args=(group,), name=name, daemon=True
                )
                group.thread.start()
        with group.changed:
            grace = max(_GRACE - age, _SURE)
            new = age < _GRACE
            group.watches[handle.name] = _Watch(handle, tell, time.monotonic(), grace, new)
            group.changed.notify()

    def hurry(self, driver: Driver[Any], name: str) -> bool:
        """Look at the thing often again. False if nobody watches it."""
        if group := self._groups.get(id(driver)):
            with group.changed:
                if watch := group.watches.get(name):
                    watch.since = time.monotonic()
                    group.changed.notify()
                    return True
        return False

    def forget(self, driver: Driver[Any], name: str) -> None:
        if group := self._groups.get(id(driver)):
            with group.changed:
                group.watches.pop(name, None)

    def close(self) -> None:
        """End all threads; a call that is under way is waited for, but not for ever."""
        with self._lock:
            self._closed = True
            groups = list(self._groups.values())
        for group in groups:
            with group.changed:
                group.changed.notify()
        for group in groups:
            if group.thread:
                group.thread.join(_CLOSING)

    def _rounds(self, group: _Group) -> None:
        while True:
            with group.changed:
                while not group.watches and not self._closed:
                    group.changed.wait()
                asked = time.monotonic()
                while not self._closed and (left := asked + self._interval(group) - _now()) > 0:
                    group.changed.wait(left)
                if self._closed:
                    return
                watches = list(group.watches.values())
            if watches:
                self._round(group, watches)

    def _interval(self, group: _Group) -> float:
        if group.troubles:
            return min(0.5 * 2.0**group.troubles, _LONGEST_TROUBLE)
        youngest = max((w.since for w in group.watches.values()), default=0.0)
        wanted = max(_COST * group.cost, _AGE * (_now() - youngest))
        return min(max(wanted, _SHORTEST), _LONGEST)

    def _round(self, group: _Group, watches: list[_Watch]) -> None:
        began = _now()
        try:
            answer = group.driver.poll([w.handle for w in watches])
            seen = [(w, _status(answer, w.handle.name)) for w in watches]
        except BackendError as error:
            group.troubles, group.faults = group.troubles + 1, 0
            self._on_trouble(error, self._interval(group))
            if isinstance(error, DeniedError):  # else there would be no end of what was just begun
                for watch in watches:
                    unseen = watch.new and watch.last is None
                    if unseen and began - watch.since > _DENIED:
                        self._end(group, watch, error)
            return
        except (Exception, SystemExit) as error:  # a plugin's: its fault must not hang the run
            group.troubles, group.faults = group.troubles + 1, group.faults + 1
            fault = PluginError(
                f"{type(group.driver).__name__}.poll: {type(error).__name__}: {error}"
            )
            fault.__cause__ = error
            self._on_trouble(fault, self._interval(group))
            if group.faults >= _BROKEN:
                for watch in watches:
                    self._end(group, watch, fault)
            return
        group.faults = 0
        group.troubles, group.cost = 0, _now() - began
        for watch, status in seen:
            self._look(group, watch, status)

    def _look(self, group: _Group, watch: _Watch, seen: Status | NotFoundError) -> None:
        if isinstance(seen, NotFoundError):
            watch.missing_since = watch.missing_since or _now()
            if _now() - watch.missing_since >= (watch.grace if watch.last is None else _SURE):
                self._end(group, watch, seen)
            return
        watch.missing_since = 0.0
        if seen == watch.last:
            return
        watch.last = seen
        if seen.state.final:
            self._end(group, watch, seen)
        elif group.watches.get(watch.handle.name) is watch:
            watch.tell(seen)

    def _end(self, group: _Group, watch: _Watch, seen: Seen) -> None:
        with group.changed:
            if group.watches.get(watch.handle.name) is not watch:
                return  # forgotten, or watched anew, meanwhile
            del group.watches[watch.handle.name]
        watch.tell(seen)


def _status(answer: Any, name: str) -> Status | NotFoundError:
    seen = answer[name]
    if not isinstance(seen, Status | NotFoundError) or (
        isinstance(seen, Status) and not isinstance(seen.state, State)
    ):
        raise TypeError(f"the status of {name!r} is {seen!r}, not a Status")
    return seen


_now = time.monotonic
