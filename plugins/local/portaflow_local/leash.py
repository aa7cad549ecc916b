"""Ties a job to its shim and its cluster, and a cluster to its shim: gone one, gone all.

`python -I leash.py HOME` is the process of a cluster.
`python -I leash.py HOME GRACE CLUSTER COMMAND...` runs a job's command and ends as it does.

The kernel frees a lock when its holder is gone, however it went, and waiting for a lock
costs nothing: no pid is trusted, nothing is polled, and SIGKILL is noticed like any end.
While a job is alive its leash shares the lock `users` of its cluster.

PySpark gives its workers a process group of their own, which the shim does not signal. They
stay in the shim's session, so what a job leaves behind is ended by session.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

import psutil

_DEFAULT = (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)
_AHEAD = 0.8  # the part of the grace after which a job that goes on is ended by session


def _wait_for(lock: Path) -> None:
    """Return when nobody holds `lock` exclusively, or there is no such file any more."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.close(descriptor)


def _end_session() -> None:
    """Kill all of the session but this process and the shim, also what they start meanwhile."""
    session, spared = os.getsid(0), {os.getpid(), os.getpgrp()}
    while left := [pid for pid in psutil.pids() if pid not in spared and _session(pid) == session]:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        spared.update(left)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return -1


def _end_with_shim(home: Path) -> None:
    """Nobody is left who could end this group in order, or would note how it ended."""
    _wait_for(home / "lock")
    _end_session()
    os.killpg(0, signal.SIGKILL)


def _end_with_cluster(home: Path, cluster: Path) -> None:
    _wait_for(cluster / "lock")
    (home / "orphaned").touch()
    os.kill(os.getpgrp(), signal.SIGTERM)  # the shim leads the group: it is stopped as by `stop`


def _run(home: Path, grace: float, cluster: Path, command: list[str]) -> int:
    def stopped(number: int, frame: FrameType | None) -> None:
        """The command was told too, with the group; this process stays to see how it ends."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        timer = threading.Timer(grace * _AHEAD, _end_session)
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, stopped)
    child = os.posix_spawn(command[0], command, os.environ, setsigdef=_DEFAULT)
    users = os.open(cluster / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(users, fcntl.LOCK_SH)
    for watch, args in ((_end_with_shim, (home,)), (_end_with_cluster, (home, cluster))):
        threading.Thread(target=watch, args=args, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _end_session()
    shutil.rmtree(home / "scratch", ignore_errors=True)  # a JVM that was killed cleared nothing
    return code if code >= 0 else 128 - code


def main() -> None:
    home, *job = sys.argv[1:]
    if not job:
        _end_with_shim(Path(home))
    grace, cluster, *command = job
    os._exit(_run(Path(home), float(grace), Path(cluster), command))


if __name__ == "__main__":
    main()
