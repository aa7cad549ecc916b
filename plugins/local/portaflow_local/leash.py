"""Ties a job to its shim and its cluster, and a cluster to its shim: gone one, gone all.

`python -I leash.py HOME` is the process of a cluster.
`python -I leash.py HOME CLUSTER COMMAND...` runs a job's command and ends as it does.

The kernel frees a lock when its holder is gone, however it went, and waiting for a lock
costs nothing: no pid is trusted, nothing is polled, and SIGKILL is noticed like any end.
While a job is alive its leash shares the lock `users` of its cluster.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import threading
from pathlib import Path

_DEFAULT = (signal.SIGTERM, signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ)


def _wait_for(lock: Path) -> None:
    """Return when nobody holds `lock` exclusively, or there is no such file any more."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.close(descriptor)


def _end_with_shim(home: Path) -> None:
    """Nobody is left who could end this group in order, or would note how it ended."""
    _wait_for(home / "lock")
    os.killpg(0, signal.SIGKILL)


def _end_with_cluster(home: Path, cluster: Path) -> None:
    _wait_for(cluster / "lock")
    (home / "orphaned").touch()
    os.kill(os.getpgrp(), signal.SIGTERM)  # the shim leads the group: it is stopped as by `stop`


def main() -> None:
    home = Path(sys.argv[1])
    if len(sys.argv) == 2:
        _end_with_shim(home)
    cluster, command = Path(sys.argv[2]), sys.argv[3:]
    # The group is signalled as a whole; this process stays to tell how the command ended.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = os.posix_spawn(command[0], command, os.environ, setsigdef=_DEFAULT)
    users = os.open(cluster / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(users, fcntl.LOCK_SH)
    for watch, args in ((_end_with_shim, (home,)), (_end_with_cluster, (home, cluster))):
        threading.Thread(target=watch, args=args, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    main()
