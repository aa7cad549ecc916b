"""Peak memory of the engine over a run of 10,000 tasks."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from . import Figure
from .tasks import run

_COUNT = 10_000


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.memory", folder]
        said = subprocess.run(command, check=True, capture_output=True, text=True)
    peak = int(said.stdout) / 1024
    yield Figure("peak memory of a 10,000-task run", peak, "MB", "< 300 MB", peak < 300)


if __name__ == "__main__":
    run(Path(sys.argv[1]), _COUNT, "many")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
