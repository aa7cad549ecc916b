"""The sizes that workers of EMR Serverless have."""

from __future__ import annotations

import math
from collections.abc import Mapping

from portaflow.backend import Size
from portaflow.errors import RejectedError
from portaflow.spark import heap

_SIZES = (
    (1, 2, 8, 1),
    (2, 4, 16, 1),
    (4, 8, 30, 1),
    (8, 16, 60, 4),
    (16, 32, 120, 8),
)
"""Cores; GiB of memory: at least, at most, in steps of. As AWS's pages told in November 2026."""

_DISK = 20, 200  # GiB: what a worker has anyhow, and the most


def worker(size: Size) -> tuple[int, int]:
    """Cores and GiB of the smallest worker that has `size`. Raises RejectedError."""
    for cores, least, most, step in _SIZES:
        if cores >= size.cpu and most >= size.memory:
            steps = math.ceil((max(size.memory, least) - least) / step)
            return cores, least + steps * step
    raise RejectedError(
        f"no worker of EMR Serverless has {size.cpu:g} cores and {size.memory:g} GiB: at most "
        "16 and 120"
    )


def conf(size: Size) -> Mapping[str, str]:
    """Spark's settings that make the driver and each executor one worker of `size`."""
    cores, memory = worker(size)
    made = {}
    for role in ("driver", "executor"):
        made[f"spark.{role}.cores"] = str(cores)
        made[f"spark.{role}.memory"] = f"{heap(memory)}m"
        if size.disk > _DISK[0]:
            made[f"spark.emr-serverless.{role}.disk"] = f"{min(math.ceil(size.disk), _DISK[1])}g"
    return made
