"""A command that runs in its own process group, and never outlives this process."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

# The watcher's read ends when the last writer is gone: this process, however it died. Unlike
# PR_SET_PDEATHSIG that does not depend on the thread that started the command. A polite end is
# the command's to hear, not the watcher's.
_LEASHED = r"""
{ trap '' TERM HUP; read -r line <&8; kill -KILL 0; } >/dev/null 2>&1 &
exec 8<&-
exec "$@"
"""


def leashed(command: Sequence[str], read: int | None = None) -> list[str]:
    """The words of a command whose process group is killed when nobody can write any more to a
    pipe. Its end is `read`, inherited; or standard input, which the command then has not."""
    # By its path: a shell need not know descriptors of more than one digit.
    pipe = "exec 8<&0 </dev/null" if read is None else f"exec 8</dev/fd/{read}"
    return ["/bin/sh", "-c", f"{pipe}\n{_LEASHED}", "sh", *command]


class Running:
    """Start a command; `poll` tells its exit code, `stop` ends it and all that it started.

    A command that a signal ended has the code 128 + signal, as a shell would tell. `ended` is
    called once with the code, in a thread of this object.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        env: Mapping[str, str],
        stdout: Path,
        stderr: Path,
        ended: Callable[[int], None] = lambda code: None,
    ) -> None:
        self._ended = ended
        self._done = threading.Event()
        self._code: int | None = None
        read, write = os.pipe()
        self._leash = write
        with ExitStack() as files:
            files.callback(os.close, read)
            out = files.enter_context(stdout.open("ab"))
            err = out if stderr == stdout else files.enter_context(stderr.open("ab"))
            try:
                self._process = subprocess.Popen(
                    leashed(command),
                    cwd=folder,
                    env=dict(env),
                    stdin=read,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except OSError:
                os.close(write)
                raise
        self.pid = self._process.pid
        threading.Thread(target=self._wait, name=f"wait-{self.pid}", daemon=True).start()

    def poll(self) -> int | None:
        return self._code if self._done.is_set() else None

    def wait(self, seconds: float | None = None) -> int | None:
        self._done.wait(seconds)
        return self.poll()

    def stop(self, grace: float = 2.0) -> None:
        """Ask it to end, and kill it after the grace. Returns when it has ended."""
        if not self._done.is_set():
            self._signal(signal.SIGTERM)
            if not self._done.wait(grace):
                self._signal(signal.SIGKILL)
                self._done.wait()

    def ring(self) -> None:
        """Tell the command itself, and nothing that it started, that its alarm clock rings."""
        if not self._done.is_set():
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGALRM)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _wait(self) -> None:
        code = self._process.wait()
        self._signal(signal.SIGKILL)  # what it left behind, and the watcher of the leash
        os.close(self._leash)
        self._code = code if code >= 0 else 128 - code
        try:
            self._ended(self._code)
        finally:
            self._done.set()
