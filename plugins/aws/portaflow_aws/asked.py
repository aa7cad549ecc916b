"""What this machine has asked for a short while ago: for calls that know no token of the client.

EMR makes a second cluster, or step, when it is asked twice under one name, and may list one
only after some seconds. So one thread of one process at a time asks under a name, what was
made is known before it is listed, and after an answer that was lost nothing is asked again
until the listing has caught up. A file for each name remembers it across the end of a process;
an engine on another machine waits longer than that before it takes a run over.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from portaflow.backend import Handle
from portaflow.errors import BackendError, RejectedError, UnavailableError

from .connect import answered

_LATE = 10.0  # seconds after which a listing has what was made
_OLD = 3600.0  # seconds after which a file is of no use


def once(key: str, find: Callable[[], Handle | None], make: Callable[[], Handle]) -> Handle:
    """What `find` finds, else what `make` makes. `find` asks `made`, unless to make the thing
    twice does no harm."""
    with _held(_file(key)) as file:
        if found := find():
            return found
        _write(file, None)
        try:
            handle = make()
        except BackendError as error:
            if answered(error) or not isinstance(error, UnavailableError):
                os.ftruncate(file, 0)
            raise
        _write(file, handle)
        return handle


def made(key: str) -> Handle | None:
    """What was made so lately that a listing may not have it yet.

    Raises UnavailableError while it is not known whether something was made.
    """
    try:
        file = os.open(_file(key), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        note = _read(file)
    finally:
        os.close(file)
    if note is None:
        return None
    if note["handle"] is None:
        raise UnavailableError(
            "it is not known whether AWS has made what it was asked for a moment ago: the answer "
            "was lost, or is under way, and a listing may come late"
        )
    return Handle.from_json(note["handle"])


def _read(file: int) -> dict[str, dict[str, object] | None] | None:
    """What was asked for, unless that was long ago."""
    age = time.time() - os.fstat(file).st_mtime
    text = os.pread(file, 65536, 0)
    return json.loads(text) if text and 0 <= age < _LATE else None


def _write(file: int, handle: Handle | None) -> None:
    text = json.dumps({"handle": handle.to_json() if handle else None})
    os.ftruncate(file, 0)
    os.pwrite(file, text.encode(), 0)


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """The file, which nobody else has meanwhile."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file).st_nlink:  # else it was cleared away before we had it
                yield file
                return
        finally:
            os.close(file)


def _file(key: str) -> Path:
    return _folder() / hashlib.sha256(key.encode()).hexdigest()[:40]


def _folder() -> Path:
    """A folder that is this user's alone; what is old in it goes."""
    folder = Path(tempfile.gettempdir()) / f"portaflow-aws-{os.getuid()}"
    try:
        with suppress(FileExistsError):
            folder.mkdir(0o700)
        stat = folder.lstat()
    except OSError as error:
        raise RejectedError(f"{folder} cannot be made ({error}); set TMPDIR") from error
    if stat.st_uid != os.getuid() or stat.st_mode & 0o077 or folder.is_symlink():
        raise RejectedError(f"{folder} must be a folder that nobody else can use; remove it")
    for file in folder.iterdir():
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < time.time() - _OLD:
                file.unlink()
    return folder
