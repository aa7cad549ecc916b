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
from pathlib import Path
from typing import Any

_LINGER = 3.0  # seconds without work before it ends; longer than from one wake to the next
_TAKEOVER = 2.0  # seconds in which one that is about to end lets go of the lock
_LONGEST = 5.0  # seconds between two looks: what ends by itself is nobody's to tell
_GIVE_UP = 86400.0  # seconds without an answer from the daemon
_UNSTARTED = 3600.0  # seconds after which a container that was made is not started any more
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
    from . import daemon

    api, heard, answered = None, time.time(), time.time()
    while True:
        try:
            api = api or daemon.connect(url)
            next_look = sweep(api)
            answered = time.time()
        except Exception:  # whatever it is, giving up would let containers run for ever
            api, next_look = None, time.time() + 2
            (folder / "trouble").write_text(traceback.format_exc())
        if next_look is None and time.time() - heard >= _LINGER:
            os.close(bell)  # from here on, who wakes finds nobody and starts another
            if api and sweep(api) is None:
                return
            bell, heard = _listen(folder), time.time()
        if time.time() - answered > _GIVE_UP:
            return
        until = min(next_look or heard + _LINGER, time.time() + _LONGEST)
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
    """End what must end and clear away what is old; when to look again, None if never."""
    from . import daemon

    marks = daemon.marks(api)
    rows = daemon.listed(api)  # second: a mark without a container is left over
    for name in marks.keys() - rows.keys():
        daemon.unmark(api, name)
    looks = [_look(api, name, row, marks.get(name)) for name, row in rows.items()]
    return min((at for at in looks if at is not None), default=None)


def _look(
    api: Any, name: str, row: Mapping[str, Any], mark: Mapping[str, str] | None
) -> float | None:
    from . import daemon

    labels, now, state = row["Labels"], time.time(), row["State"].lower()
    try:
        ttl, grace = float(labels[daemon.TTL]), float(labels[daemon.GRACE])
    except (KeyError, ValueError):
        return None  # not made by portaflow
    made = float(row["Created"])
    if state in daemon.ENDED:
        if now > made + ttl + _KEPT:
            daemon.remove(api, name)
        return None
    if state not in daemon.ALIVE:
        if now > made + _UNSTARTED:
            daemon.remove(api, name)
        return None
    if mark is None and now >= made + ttl:
        daemon.mark(api, name, "ttl", labels.get(daemon.OWNER, ""))
        daemon.kill(api, name, "SIGTERM")
        return now + grace
    if mark is None:
        return made + ttl
    hard = float(mark[daemon.MARKED_AT]) + grace
    if now >= hard:
        daemon.kill(api, name, "SIGKILL")
        return now + 1  # until it is seen to have ended
    return hard


if __name__ == "__main__":
    main()
