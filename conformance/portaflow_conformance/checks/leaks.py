"""L1, end to end: after all checks nothing is left, seen by somebody outside the plugin."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..subject import Subject, expect

_PROC = Path("/proc")


def leak_audit_zero(subject: Subject) -> None:
    """Neither the backends list anything of ours, nor has this machine a process of ours."""
    subject.close()
    deadline = time.monotonic() + subject.soon("container")
    while (left := [*_listed(subject), *_processes(subject)]) and time.monotonic() < deadline:
        time.sleep(0.2)
    expect(not left, f"left behind: {', '.join(left[:10])}")


def _listed(subject: Subject) -> Iterator[str]:
    """What the backends themselves know of: a beginning, no proof."""
    for kind in subject.kinds():
        for handle in subject.fresh().driver(kind).owned(subject.owner):
            yield f"{kind} {handle.name}"


def _processes(subject: Subject) -> Iterator[str]:
    """Processes of this machine that carry our token in environment, arguments or folder."""
    token, own = subject.token.encode(), os.getpid()
    for entry in _PROC.glob("[0-9]*"):
        if int(entry.name) == own:
            continue
        command = _read(entry / "cmdline")
        if token in command or token in _read(entry / "environ") or token in _folder(entry):
            shown = command.replace(b"\0", b" ").decode(errors="replace")[:80]
            yield f"process {entry.name} ({shown.strip()})"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has ended, or is somebody else's
        return b""


def _folder(entry: Path) -> bytes:
    try:
        return os.fsencode(os.readlink(entry / "cwd"))
    except OSError:
        return b""
