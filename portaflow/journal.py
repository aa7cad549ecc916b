"""The append-only record of a run, kept in the target's store.

Record n is the object `_journal/{n}.json`, made by create-if-absent. That is the lock: of
two engines that write record n one wins, and the other learns that the run is no longer its
own. `_lease.json` tells others that an engine is alive; nothing but politeness rests on it.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from .data import contents, store_errors
from .errors import NotFoundError, PortaflowError, RunError
from .state import Event

HEARTBEAT = 2.0
"""Seconds between two signs of life of an engine, and between two looks for a wish to stop."""

_STALE = 60.0  # seconds without one, after which another engine may take over
_WIDTH = 8
_LEASE = {"engine": str, "host": str, "pid": int, "time": float, "closed": bool}


class Journal:
    """One run's record. `fs` is the store's filesystem, `home` the run's URI."""

    def __init__(self, fs: Any, home: str) -> None:
        self.fs = fs
        self.home = home
        self.engine = uuid4().hex
        self.header: dict[str, Any] = {}
        self._next = 1
        self._closed = threading.Event()
        self._heart: threading.Thread | None = None

    # -- reading

    def read(self) -> list[Event]:
        """Return all events so far and set `header`. Raises NotFoundError without a run."""
        folder = f"{self.home}/_journal"
        with store_errors(folder):
            paths = sorted(p for p in self.fs.find(folder) if p.endswith(".json"))
        if not paths:
            raise NotFoundError(f"there is no run at {self.home}")
        events: list[Event] = []
        found = zip(paths, contents(lambda path: self.fs, paths), strict=True)
        for number, (path, data) in enumerate(found, 1):
            if data is None or Path(path).stem != f"{number:0{_WIDTH}d}":
                raise RunError(f"{path}: record {number} of the journal is missing")
            events += self._events(path, data)
        self._next = len(paths) + 1
        return events

    def news(self) -> list[Event]:
        """Return the events that were recorded since this journal was last read."""
        events: list[Event] = []
        while True:
            path = f"{self.home}/_journal/{self._next:0{_WIDTH}d}.json"
            try:
                with store_errors(path):
                    data = self.fs.cat_file(path)
            except NotFoundError:
                return events
            events += self._events(path, data)
            self._next += 1

    def _events(self, path: str, data: bytes) -> list[Event]:
        record = _record(path, data)
        self.header = record.get("header") or self.header
        try:
            return [Event.from_json(e) for e in record["events"]]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise _damaged(path, error) from error

    def lease(self) -> Mapping[str, Any] | None:
        """The last sign of life of an engine, or None."""
        try:
            with store_errors(self.home):
                lease = json.loads(self.fs.cat_file(f"{self.home}/_lease.json"))
        except (NotFoundError, ValueError, RecursionError):
            return None
        whole = isinstance(lease, dict) and _LEASE.items() <= {
            (key, type(value)) for key, value in lease.items()
        }
        return lease if whole else None

    def alive(self) -> bool:
        """Whether an engine works on this run, as far as can be told."""
        lease = self.lease()
        if not lease or lease["closed"]:
            return False
        if lease["host"] == _host() and not _process_alive(lease["pid"]):
            return False
        return bool(time.time() - lease["time"] < _STALE)

    # -- writing

    def begin(self, header: Mapping[str, Any]) -> None:
        """Make the run, or take it over: the first record of this engine.

        Raises RunError when another engine was faster.
        """
        self.header = dict(header)
        self._write([], header)
        self._beat()

    def keep_alive(
        self, on_wish: Callable[[], None], on_rival: Callable[[], None] = lambda: None
    ) -> None:
        """Give signs of life until `close`; call `on_wish` once when a stop is asked for.

        `on_rival` is called while the lease is another engine's: one of the two lost the run.
        """
        self._heart = threading.Thread(
            target=self._live, args=(on_wish, on_rival), name="lease", daemon=True
        )
        self._heart.start()

    def append(self, events: Iterable[Event]) -> None:
        """Record `events` before they take effect. Raises RunError when the run was taken."""
        self._write([e.to_json() for e in events], None)

    def _write(self, events: list[dict[str, Any]], header: Mapping[str, Any] | None) -> None:
        path = f"{self.home}/_journal/{self._next:0{_WIDTH}d}.json"
        record: dict[str, Any] = {"engine": self.engine, "events": events}
        if header is not None:
            record["header"] = header
        data = json.dumps(record).encode()  # ASCII: a task's value may hold half a surrogate
        try:
            with store_errors(path):
                self.fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            # After a lost answer the record that is there may well be our own.
            with store_errors(path):
                there = self.fs.cat_file(path)
            if _record(path, there).get("engine") != self.engine:
                raise RunError(
                    f"another engine works on the run at {self.home}; this one stops here and "
                    "leaves everything to it"
                ) from None
        self._next += 1

    def close(self) -> None:
        """Say that this engine is done with the run."""
        self._closed.set()
        if self._heart:
            self._heart.join()
        with suppress(PortaflowError):  # a lease that is not closed goes stale by itself
            if (self.lease() or {}).get("engine") == self.engine:  # else another took over
                self._beat(closed=True)

    # -- signs of life, and the wish to stop

    def _live(self, on_wish: Callable[[], None], on_rival: Callable[[], None]) -> None:
        told = False
        while not self._closed.wait(HEARTBEAT):
            with suppress(PortaflowError):  # the next record will tell
                if (self.lease() or {}).get("engine", self.engine) != self.engine:
                    on_rival()
            self._beat()
            if not told and self.asked_to_stop():
                told = True
                on_wish()

    def _beat(self, closed: bool = False) -> None:
        lease = {
            "engine": self.engine, "host": _host(), "pid": os.getpid(), "time": time.time(),
            "closed": closed,
        }  # fmt: skip
        try:
            with store_errors(self.home):
                self.fs.pipe_file(f"{self.home}/_lease.json", json.dumps(lease).encode())
        except PortaflowError:
            return  # the next beat, or the next record, will tell

    def ask_to_stop(self) -> None:
        """Leave the wish that whoever runs this stops it."""
        with store_errors(self.home):
            self.fs.pipe_file(f"{self.home}/_stop.json", json.dumps({"time": time.time()}).encode())

    def asked_to_stop(self) -> bool:
        try:
            with store_errors(self.home):
                return bool(self.fs.exists(f"{self.home}/_stop.json"))
        except PortaflowError:
            return False  # a store that is away for a while is no wish to stop

    def forget_wish(self) -> None:
        """A resumed run starts without the wish that ended it."""
        with store_errors(self.home):
            if self.fs.exists(f"{self.home}/_stop.json"):
                self.fs.rm_file(f"{self.home}/_stop.json")


def _record(path: str, data: bytes) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(record, dict) or not isinstance(record.get("header", {}), dict):
        raise _damaged(path, TypeError("no object with a header and events"))
    return record


def _damaged(path: str, error: Exception) -> RunError:
    cause = f"{type(error).__name__}: {error}"[:200]
    return RunError(f"{path}: is no record of a journal: {cause}; somebody else has written it")


def _host() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {boot}".strip()


def _process_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
