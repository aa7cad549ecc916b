"""Clears away what this process would leave behind if it were killed."""

from __future__ import annotations

import subprocess
from pathlib import Path

# It reads until the last writer is gone, which is we, however we died. Our children end by
# themselves (running.py), some perhaps while the folder is being removed, and write into it:
# so it is tried until it is gone.
_SCRIPT = r"""
read -r line
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

    def stop(self) -> None:
        """Let it do its work now; returns when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
