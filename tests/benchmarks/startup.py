"""What the command line costs before it does anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial

from . import Figure, paired


def measure() -> Iterator[Figure]:
    portaflow = [sys.executable, "-m", "portaflow", "--help"]
    bare = [sys.executable, "-c", "pass"]
    run = partial(subprocess.run, check=True, capture_output=True)
    mine, other = paired(partial(run, portaflow), partial(run, bare), 15)
    yield Figure(
        "`portaflow --help`", mine, "s", "<= 0.15 s", mine <= 0.15, f"bare Python {other:.3f} s"
    )
