"""Sees whether a piece of code reads or writes anything outside of itself."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_IO = ("open", "socket.", "subprocess.", "os.", "shutil.", "urllib.", "ctypes.dlopen", "fcntl.")
_HARMLESS = ("os.fspath",)


class _Watch(threading.local):
    seen: list[str] | None = None


_watch = _Watch()
_installed = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    seen = _watch.seen
    if seen is not None and event.startswith(_IO) and event not in _HARMLESS:
        seen.append(f"{event}({', '.join(repr(a)[:60] for a in args[:2])})")


@contextmanager
def outside(only: str = "") -> Iterator[list[str]]:
    """Collect what this thread does outside of itself; `only` narrows it to one kind."""
    global _installed
    if not _installed:  # such a hook stays for as long as the process lives
        sys.addaudithook(_hook)
        _installed = True
    seen: list[str] = []
    _watch.seen = seen
    try:
        yield seen
    finally:
        _watch.seen = None
        seen[:] = [s for s in seen if s.startswith(only)]
