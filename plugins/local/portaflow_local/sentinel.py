"""Ends containers whose time is over: one process for each user and daemon.

Docker and Podman have no time-to-live, and an image may have no shell to keep one, so a
process outside does it. It knows nothing but what the daemon says: the labels on containers
and the marks of those that were asked to end. So it may die at any time, and the next call
of portaflow that starts or stops something starts it again. It ends when nothing is left
to wait for. It also clears away what has ended long ago.

`python -m portaflow_local.sentinel URL FOLDER`
"""

from __future__ import annotations

import fcntl
import os
import select
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from portaflow.errors import BackendError

from . import daemon

_LINGER = 3.0  # seconds without work before it ends; longer than from one wake to the next
_TAKEOVER = 2.0  # seconds in which one that is about to end lets go of the lock
_LONGEST = 5.0  # seconds between two looks: what ends by itself is nobody's to tell
_GIVE_UP = 86400.0  # seconds without an answer from the daemon
_UNSTARTED = 3600.0  # seconds after which a container that was made is not started any more
_TIDY = 3600.0  # seconds between two times that what is old is cleared away
_KEPT = 86400.0  # seconds that an ended container is kept beyond its time-to-live


def wake(url: str, folder: Path) -> None:
    """Let the sentinel look again, or start one: something was started or marked."""
    if not ring(folder):
        _spawn(url, folder)


def ring(folder: Path) -> bool:
    """Let the sentinel look again; whether there is one."""
    try:
        bell = os.open(folder / "bell", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # nobody listens
        return False
    try:
        os.write(bell, b"!")
    except OSError:  # it is full, or was let go just now: the last look comes after that
        return True
    finally:
        os.close(bell)
    return True


def _spawn(url: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    program = [sys.executable, "-m", "portaflow_local.sentinel", url, str(folder)]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PORTAFLOW_SECRET_")}
    # A shell in between, so that it is nobody's child and leaves no zombie.
    shell = os.posix_spawn(
        "/bin/sh",
        ["sh", "-c", 'cd /; "$@" </dev/null >/dev/null 2>&1 &', "sh", *program],
        env,
        setsid=True,
        setsigmask=(),
    )
    os.waitpid(shell, 0)


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    lock = os.open(folder / "sentinel", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if not _locked(lock):
        return
    if not (folder / "bell").exists():
        os.mkfifo(folder / "bell", 0o600)
    bell = _listen(folder)
    api, tidied, heard, answered = None, 0.0, time.time(), time.time()
    look: float | None = heard
    while True:
        ending = look is None and time.time() - heard >= _LINGER
        if ending:
            os.close(bell)  # from here on, who wakes finds nobody and starts another
        try:
            api = api or daemon.connect(url)
            look = sweep(api)
            answered = time.time()
            if ending and look is None:
                return
            if time.time() - tidied >= _TIDY:
                tidy(api)
                tidied = time.time()
        except Exception:  # whatever it is, giving up would let containers run for ever
            api, look = None, time.time() + 2
            (folder / "trouble").write_text(traceback.format_exc())
        if time.time() - answered > _GIVE_UP:
            return
        if ending:
            bell, heard = _listen(folder), time.time()
        until = min(look or heard + _LINGER, time.time() + _LONGEST)
        if select.select([bell], [], [], max(until - time.time(), 0.05))[0]:
            os.read(bell, 65536)
            heard = time.time()


def _listen(folder: Path) -> int:
    return os.open(folder / "bell", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)


def _locked(lock: int) -> bool:
    deadline = time.monotonic() + _TAKEOVER
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
            continue
        return True


def sweep(api: Any) -> float | None:
    """End what must end; when to look again, None if nothing is alive."""
    rows, marks, looks = daemon.listed(api, alive=True), daemon.marks(api), []
    for name, row in rows.items():
        try:
            looks.append(_look(api, name, row, marks.get(name)))
        except (KeyError, ValueError):  # not made by portaflow, though labelled as if
            continue
        except BackendError:  # one in trouble is no harm to the others
            looks.append(time.time() + 2)
    return min(looks, default=None)


def _look(api: Any, name: str, row: Mapping[str, Any], mark: Mapping[str, str] | None) -> float:
    """End a container that is alive, if it is time; when to look again."""
    labels, now = row["Labels"], time.time()
    over, grace = _over(row), float(labels[daemon.GRACE])
    if mark is None and now < over:
        return over
    if mark is None:
        daemon.mark(api, name, "ttl", labels.get(daemon.OWNER, ""))
        daemon.kill(api, name, "SIGTERM")
        return now + grace
    hard = float(mark[daemon.MARKED_AT]) + grace
    if now >= hard:
        daemon.kill(api, name, "SIGKILL")
        return now + 1  # until it is seen to have ended
    return hard


def _over(row: Mapping[str, Any]) -> float:
    """When the time-to-live of a container is over, in seconds since 1970."""
    return float(row["Created"]) + float(row["Labels"][daemon.TTL])


def tidy(api: Any) -> None:
    """Remove what ended long ago, what was made and never started, and marks left over."""
    now, marks = time.time(), daemon.marks(api)
    rows = daemon.listed(api)  # second, so that a mark without a container is left over
    gone = marks.keys() - rows.keys()
    for name, row in rows.items():
        state = row["State"].lower()
        with suppress(KeyError, ValueError, BackendError):  # as above
            old = state in daemon.ENDED and now > _over(row) + _KEPT
            unstarted = state not in daemon.ENDED | daemon.ALIVE
            if old or (unstarted and now > row["Created"] + _UNSTARTED):
                daemon.remove(api, name)
                gone.add(name)
    for name in gone & marks.keys():
        daemon.unmark(api, name)


if __name__ == "__main__":
    main()
