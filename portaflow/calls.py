"""The calls that an action needs: made in threads, because they block; answers are messages.

A thread that hangs in a plugin is left behind: it may delay a run, but never its end.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from . import data
from .backend import Driver, Handle, State, Status
from .errors import (
    BackendError,
    ConflictError,
    DeniedError,
    NotFoundError,
    QuotaError,
    RejectedError,
)
from .names import resource_name
from .plan import Action, Plan, native_request
from .poller import Poller, Seen

TRIES = 8
"""How often a call is made that fails in a way that may pass: for half a minute."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0  # seconds before a call is made again
_NO = (ConflictError, DeniedError, NotFoundError, QuotaError, RejectedError)
"""With these a provider says that it has started nothing."""

Drivers = Callable[[Action], Driver[Any]]
"""The driver that carries out an action: by its kind and its place."""


@dataclass(frozen=True, slots=True)
class Started:
    """The thing is there: just started, found by its name, or asked to end."""

    handle: Handle


@dataclass(frozen=True, slots=True)
class Committed:
    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A call failed for good. `unclear`: it may have started something all the same."""

    error: Exception
    unclear: bool = False


Answer = Started | Committed | Failed | Seen
Message = tuple[Action, int, Answer]
"""An action, the attempt that is meant, and what came of it."""


class Calls:
    """Carries out parts of a plan against the drivers and the store."""

    def __init__(
        self,
        plan: Plan,
        drivers: Drivers,
        stores: data.Stores,
        cancelled: threading.Event,
        on_trouble: Callable[[Exception, float], None] | None = None,
    ) -> None:
        self.messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._plan, self._drivers, self._stores = plan, drivers, stores
        self._cancelled = cancelled
        self._poller = Poller(on_trouble)
        self._threads = _Threads(plan.max_parallel + 4)

    def name(self, action: Action, attempt: int) -> str:
        """The name of what an attempt starts; the first one's stands in the plan."""
        if attempt == 1 or action.verb == "attach":
            return action.name
        plan = self._plan
        return resource_name(plan.pipeline, plan.home, action.kind, action.subject, attempt)

    # -- in threads; each answers with one message

    def start(
        self, action: Action, attempt: int, parent: Handle | None, doubted: bool = False
    ) -> None:
        """Find the thing by its name or start it. `doubted`: somebody may have started it."""
        self._submit(action, attempt, partial(self._start, action, attempt, parent, doubted))

    def commit(self, action: Action, attempt: int) -> None:
        """Publish the task's outputs."""

        def commit() -> Answer:
            fs = self._stores(action.home)
            manifest = patiently(lambda: data.commit(fs, action, attempt), self._cancelled)
            return Committed(manifest["value"])

        self._submit(action, attempt, commit)

    def stop(self, action: Action, attempt: int, ask: Callable[[], Handle | None]) -> None:
        """Make `ask` ask for an end; it returns what is to end, or None when nothing is there."""

        def stop() -> Answer:
            handle = ask()
            return Started(handle) if handle else Status(state=State.STOPPED)

        self._submit(action, attempt, stop)

    def _submit(self, action: Action, attempt: int, call: Callable[[], Answer]) -> None:
        def guarded() -> None:
            answer: Answer
            try:
                answer = call()
            except Exception as error:  # all that a plugin may raise must reach the loop
                answer = Failed(error)
            self.messages.put((action, attempt, answer))

        self._threads.submit(guarded)

    def watch(self, action: Action, attempt: int, handle: Handle, age: float) -> None:
        """Send what the provider says of `handle` as messages, from now on.

        `age`: seconds since it was started.
        """
        tell = lambda seen: self.messages.put((action, attempt, seen))  # noqa: E731
        self._poller.watch(self._drivers(action), handle, tell, age)

    def look(self, action: Action, attempt: int, handle: Handle, age: float) -> None:
        """Watch `handle` closely: it was asked to end, or may have ended."""
        if not self._poller.hurry(self._drivers(action), handle.name):
            self.watch(action, attempt, handle, age)

    def close(self, seconds: float) -> None:
        """End the threads. What hangs for more than `seconds` is left behind."""
        self._cancelled.set()  # ends what threads still wait for
        self._threads.close(seconds)
        self._poller.close()

    # -- what blocks

    def _start(self, action: Action, attempt: int, parent: Handle | None, doubted: bool) -> Answer:
        driver, name = self._drivers(action), self.name(action, attempt)
        unclear = False

        def once() -> Answer:
            nonlocal unclear, doubted
            if found := driver.find(name, parent):
                return Started(found)
            doubted = False
            if action.verb == "attach":
                raise DeniedError(f"there is no cluster {name!r} to attach to; start it first")
            if self._cancelled.is_set() and not unclear:
                return Status(state=State.STOPPED, reason="stopped on request")
            if action.home and not unclear:
                data.clear(self._stores(action.home), action)
            request = self._request(driver, action, name, parent)
            try:
                return Started(driver.start(request, parent))
            except ConflictError:
                if found := driver.find(name, parent):
                    return Started(found)
                raise
            except QuotaError as error:
                if unclear:
                    raise
                return Failed(error)  # a moment makes no room: the attempt is over
            except _NO:
                raise
            except Exception:  # the answer may be lost, not the request
                unclear = True
                raise

        try:
            return patiently(once, self._cancelled)
        except Exception as error:
            if not unclear:
                return Failed(error, unclear=doubted and action.verb == "start")
            try:  # the last word is what the provider knows of it
                found = patiently(lambda: driver.find(name, parent), None)
            except Exception:
                return Failed(error, unclear=True)
            return Started(found) if found else Failed(error)

    def _request(
        self, driver: Driver[Any], action: Action, name: str, parent: Handle | None
    ) -> dict[str, Any]:
        """The request as planned; a later attempt, or cluster, changes the names in it."""
        parent_name = parent.name if parent else ""
        planned = self._plan.by_id[action.parent].name if action.parent else ""
        if action.spec and (name != action.name or parent_name != planned):
            return dict(native_request(driver, name, action.spec, parent_name))
        return dict(action.request or {})

    def ask(
        self, of: Action, attempt: int, handle: Handle | None, parent: Handle | None
    ) -> Handle | None:
        """Ask what an attempt has started to end; None when nothing is there.

        Also when the run is cancelled, so nothing cuts the tries short.
        """
        driver, name = self._drivers(of), self.name(of, attempt)
        if handle is None and of.parent and parent is None:
            return None  # the cluster is gone, and what ran on it
        there = handle or patiently(lambda: driver.find(name, parent), None)
        if there:
            patiently(lambda: driver.stop(there), None)
        return there


class _Threads:
    """At most `most` threads. Daemons, so that one that hangs does not keep the program."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: list[threading.Thread] = []
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def submit(self, call: Callable[[], None]) -> None:
        self._calls.put(call)
        if len(self._threads) < self._most:
            name = f"call {len(self._threads)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        while call := self._calls.get():
            call()

    def close(self, seconds: float) -> None:
        for _ in self._threads:
            self._calls.put(None)
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0.0))


T = TypeVar("T")


def patiently(call: Callable[[], T], cancelled: threading.Event | None, tries: int = 0) -> T:
    """Make a call again, later and later, while it fails in a way that may pass."""
    pause, tries = cancelled or threading.Event(), tries or TRIES
    for n in range(tries):
        try:
            return call()
        except BackendError as error:
            wait = min(_FIRST_PAUSE * 2**n, _LONGEST_PAUSE)
            if not error.retryable or n == tries - 1 or pause.wait(wait):
                raise
    raise AssertionError("the last try returns or raises")
