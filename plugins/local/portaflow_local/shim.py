"""The process that stands between portaflow and a command: a few lines of sh.

It outlives portaflow, so what must happen come what may is here: the exit code is kept, a
stop that is ignored turns into a kill after the grace, and the time-to-live ends everything.
A supervisor in Python would cost more than most small tasks.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from portaflow.backend import Request
from portaflow.errors import RejectedError

SCRIPT = r"""
# $1 the thing's folder, $2 its time-to-live and $3 the grace in seconds; the command follows.
# Descriptor 9 is its lock, held until the shim ends and by nothing else; what is written to it
# tells the pid and the exit code. The code fits where the pid did, on a full disk as well.
cd "$1" || exit
echo $$ >&9 || exit
# A stop marks first and looks for the pid second: whoever comes second sees the other.
if [ -e stopping ]; then exit; fi
ttl=$2 grace=$3 woken=
shift 3
end() {
    woken=yes
    trap '' TERM
    kill -TERM 0
    # Two shells, so that it is not this one's `$!`: the command may be about to become that.
    ( ( sleep "$grace"; kill -KILL 0 ) >/dev/null 2>&1 & ) 9>&-
}
trap end TERM
# A TERM that comes while a shell forks is lost to the child; the mark of the stop is not.
# exec, so that a command named like a builtin of sh is the program of that name.
( cd work && unset PWD OLDPWD && [ ! -e ../stopping ] && exec 9>&- "$@" ) >>log 2>&1 &
child=$!
( sleep "$ttl" && : >expired && kill -TERM $$ ) 9>&- >/dev/null 2>&1 &
wait $child
code=$?
if [ "$woken" ]; then  # the code may be that of the wait; 127 says that it was the child's
    wait $child
    again=$?
    [ $again = 127 ] || code=$again
fi
echo $code >&9
# As with a container: when the main process has ended, what it left behind ends too.
trap '' TERM
kill -KILL 0
"""


def spawn(
    home: Path, request: Request, command: Sequence[str], env: Mapping[str, str], lock: int
) -> int:
    """Start a shim, which takes over the lock, and return its pid."""
    limits = [str(request["ttl"]), str(request["grace"])]
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDWR, 0)
    try:
        return os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", SCRIPT, "shim", str(home), *limits, *command],
            env,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, lock, 9),
                null,
                (os.POSIX_SPAWN_DUP2, 0, 1),
                (os.POSIX_SPAWN_DUP2, 0, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGQUIT),
        )
    except ValueError as error:
        raise RejectedError(f"{home.name}: an argument or variable has a NUL in it") from error
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        text = "its arguments and environment are too large for this system"
        raise RejectedError(f"{home.name}: {text}; pass a file instead") from error


def end_orphans(shim: int) -> None:
    """End what a shim that was killed has left: nobody would note its end or its time."""
    with suppress(ChildProcessError):  # dead, and nobody has waited for it: it would look alive
        os.waitpid(shim, os.WNOHANG)
    try:
        os.kill(shim, 0)
    except ProcessLookupError:
        pass
    except PermissionError:
        return
    else:
        return  # the number is somebody else's by now, and so may be the group
    try:
        os.killpg(shim, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
