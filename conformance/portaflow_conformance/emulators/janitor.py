"""Clears away what this process would leave behind if it were killed."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from pathlib import Path

# It reads the numbers of process groups until the last writer is gone, which is we, however
# we died. The children of stand-ins end by themselves (running.py), some perhaps while the
# folder is being removed, and write into it: so it is tried until it is gone.
_SCRIPT = r"""
groups=
while read -r group; do groups="$groups $group"; done
for group in $groups; do kill -KILL "-$group"; done
for pause in 0 0.1 0.3 1 3; do
    sleep "$pause"
    rm -rf -- "$1"
    [ -e "$1" ] || break
done
"""


class Janitor:
    """A process in a session of its own that waits for our end, then removes `folder`."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _SCRIPT, "portaflow-janitor", str(folder)],
            cwd="/",
            env={"PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, group: int) -> None:
        """Kill this process group too."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{group}\n".encode())
        self._process.stdin.flush()

    def stop(self) -> None:
        """Let it do its work now; returns when it is done."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
