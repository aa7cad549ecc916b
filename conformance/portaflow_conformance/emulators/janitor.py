"""Clears away what this process would leave behind if it were killed."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

# It reads until the last writer is gone, which is we, however we died. Our children end by
# themselves (running.py), some perhaps while the folder is being removed, and write into it:
# so it is tried until it is gone.
_SCRIPT = r"""
while IFS= read -r path; do
    set -- "$@" "$path"
done
for pause in 0 0.1 0.3 1 3; do
    sleep "$pause"
    rm -rf -- "$@"
    [ -e "$1" ] || break
done
"""


class Janitor:
    """A process in a session of its own that waits for our end, then removes `folder`, and what
    else it was told of."""

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
        self._telling = threading.Lock()

    def removes(self, path: Path) -> None:
        """Tell of a path that somebody will make outside of the folder."""
        assert self._process.stdin is not None
        with self._telling:
            self._process.stdin.write(os.fsencode(path) + b"\n")
            self._process.stdin.flush()

    def stop(self) -> None:
        """Let it do its work now; returns when it is done."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
