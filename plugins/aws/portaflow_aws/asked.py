"""What this process has asked for a short while ago: for calls that know no token of the client.

EMR makes a second cluster, or step, when it is asked twice under one name, and may list one
only after some seconds. So one thread at a time asks under a name, what was made is known
before it is listed, and after an answer that was lost nothing is asked again until the
listing has caught up. An engine that takes over comes later than that: a lease is longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from portaflow.backend import Handle
from portaflow.errors import BackendError, UnavailableError

from .connect import answered

_LATE = 15.0  # seconds after which a listing has what was made
_KEPT = 120.0  # seconds for which a name is remembered


@dataclass(slots=True)
class _Name:
    lock: threading.Lock = field(default_factory=threading.Lock)
    asked: float = 0.0
    handle: Handle | None = None


class Asked:
    """By name, whatever identifies it: one for all of a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: dict[Hashable, _Name] = {}

    def once(
        self,
        key: Hashable,
        find: Callable[[], Handle | None],
        make: Callable[[], Handle],
    ) -> Handle:
        """What `find` finds, else what `make` makes.

        Raises UnavailableError while it is not known whether something was made.
        """
        name = self._name(key)
        with name.lock:
            if found := find():
                return found
            if name.asked and (passed := time.monotonic() - name.asked) < _LATE:
                raise UnavailableError(
                    f"it is not known whether AWS has made what it was asked for {passed:.0f} s "
                    "ago: the answer was lost, and a listing may come late"
                )
            name.asked, name.handle = time.monotonic(), None
            try:
                name.handle = make()
            except BackendError as error:
                if answered(error):
                    name.asked = 0.0
                raise
            return name.handle

    def made(self, key: Hashable) -> Handle | None:
        """What was made under a name so lately that a listing may not have it yet."""
        with self._lock:
            name = self._names.get(key)
        if name and time.monotonic() - name.asked < _LATE:
            return name.handle
        return None

    def _name(self, key: Hashable) -> _Name:
        with self._lock:
            old = time.monotonic() - _KEPT
            for other, name in list(self._names.items()):
                if other != key and 0 < name.asked < old:
                    del self._names[other]
            return self._names.setdefault(key, _Name())
