"""The calls that an action needs: what may block, made in threads of the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from . import data
from .backend import Driver, Handle
from .errors import BackendError, ConflictError, DeniedError
from .names import resource_name
from .plan import Action, Plan, native_request

TRIES = 6
"""How often a call is made that fails in a way that may pass."""

Drivers = Callable[[str], Driver[Any]]
"""The driver for a kind of action: "cluster", "job", "container" or "call"."""


class Calls:
    """Carries out parts of a plan against the drivers and the store. Keeps no state."""

    def __init__(self, plan: Plan, drivers: Drivers, fs: Any, cancelled: threading.Event) -> None:
        self._plan, self._drivers, self._fs, self._cancelled = plan, drivers, fs, cancelled

    def name(self, action: Action, attempt: int) -> str:
        """The name of what an attempt starts; the first one's stands in the plan."""
        if attempt == 1 or action.verb == "attach":
            return action.name
        plan = self._plan
        return resource_name(plan.pipeline, plan.run, action.kind, action.subject, attempt)

    def start(self, action: Action, attempt: int, parent: Handle | None) -> Handle:
        """Find the thing by its name or start it; either way there is one."""
        return patiently(lambda: self._start_once(action, attempt, parent), self._cancelled)

    def _start_once(self, action: Action, attempt: int, parent: Handle | None) -> Handle:
        driver, name = self._drivers(action.kind), self.name(action, attempt)
        if found := driver.find(name, parent):
            return found
        if action.verb == "attach":
            raise DeniedError(f"there is no cluster {name!r} to attach to; start it first")
        if action.home:
            data.clear(self._fs, action)
        request, parent_name = action.request, parent.name if parent else ""
        planned = self._plan.by_id[action.parent].name if action.parent else ""
        if action.spec and (attempt > 1 or parent_name != planned):
            request = native_request(driver, name, action.spec, parent_name)
        try:
            return driver.start(request or {}, parent)
        except ConflictError:
            if found := driver.find(name, parent):
                return found
            raise

    def find(self, action: Action, attempt: int) -> Handle | None:
        driver, name = self._drivers(action.kind), self.name(action, attempt)
        return patiently(lambda: driver.find(name), None)

    def stop(self, action: Action, handle: Handle) -> None:
        """Ask for the end; also when the run is cancelled, so nothing cuts the tries short."""
        driver = self._drivers(action.kind)
        patiently(lambda: driver.stop(handle), None)

    def commit(self, action: Action, attempt: int) -> Any:
        """Publish the task's outputs and return its value."""
        manifest = patiently(lambda: data.commit(self._fs, action, attempt), self._cancelled)
        return manifest["value"]


T = TypeVar("T")


def patiently(call: Callable[[], T], cancelled: threading.Event | None) -> T:
    """Make a call again, later and later, while it fails in a way that may pass."""
    pause = cancelled or threading.Event()
    for n in range(TRIES):
        try:
            return call()
        except BackendError as error:
            if not error.retryable or n == TRIES - 1 or pause.wait(min(0.2 * 2**n, 30.0)):
                raise
    raise AssertionError("the last try returns or raises")
