"""What the three local clouds cost before anybody calls them: time to start, memory at rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from statistics import median

import psutil

from . import Figure

_ROUNDS = 3
_CLOUDS = ("aws", "gcp", "kubernetes")


def measure() -> Iterator[Figure]:
    _started()  # what is compiled and read once is there then
    found = [_started() for _ in range(_ROUNDS)]
    took, memory = (median(column) for column in zip(*found, strict=True))
    names = "`portaflow emulate aws gcp kubernetes`"
    yield Figure(f"{names}: up", took, "s", "< 3 s", took < 3)
    yield Figure(f"{names}: at rest", memory, "MB", "< 400 MB", memory < 400)


def _started() -> tuple[float, float]:
    """Seconds until all of them answer, and then MB of all their processes."""
    command = [sys.executable, "-m", "portaflow", "emulate", *_CLOUDS, "--json"]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as emulator:
        assert emulator.stdout
        while emulator.stdout.readline() not in (b"}\n", b""):
            pass
        took = time.monotonic() - began
        ours = [psutil.Process(emulator.pid), *psutil.Process(emulator.pid).children(True)]
        memory = sum(process.memory_full_info().pss for process in ours) / 2**20
        os.kill(emulator.pid, signal.SIGTERM)
        emulator.stdout.read()
    assert emulator.returncode == 0, emulator.returncode
    return took, memory
