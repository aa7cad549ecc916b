"""What the command line costs before it does anything, and to plan the demo on a cloud."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from . import Figure, paired

_ROOT = Path(__file__).parents[2]
_ROUNDS = 15
_TARGETS = ("aws", "gcp")


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        # Compiled code is kept as for everybody, whatever the environment says of it.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = folder
        run = partial(subprocess.run, cwd=_ROOT, env=env, check=True, capture_output=True)
        bare = partial(run, [sys.executable, "-c", "pass"])
        portaflow = [sys.executable, "-m", "portaflow"]
        mine, other = paired(partial(run, [*portaflow, "--help"]), bare, _ROUNDS)
        yield Figure(
            "`portaflow --help`", mine, "s", "<= 0.15 s", mine <= 0.15, f"bare Python {other:.3f} s"
        )
        for target in _TARGETS:
            words = ["plan", "dags/recommendations", "--target", target]
            plan = partial(run, [*portaflow, *words])
            before = _processor()
            mine, other = paired(plan, bare, _ROUNDS)
            used = (_processor() - before) / (_ROUNDS + 1)
            yield Figure(
                f"`portaflow {' '.join(words)}`", mine, "s", "<= 0.5 s", mine <= 0.5,
                f"bare Python {other:.3f} s; a processor was used for {used:.3f} s by both",
            )  # fmt: skip


def _processor() -> float:
    """Seconds that processes of ours have used a processor for."""
    used = getrusage(RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
