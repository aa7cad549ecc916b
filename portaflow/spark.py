"""Spark's settings, where backends say or refuse the same. For plugins."""

from __future__ import annotations

from collections.abc import Mapping

from .backend import Fit, Size, Verdict

_PART, _LEAST = 0.1, 384  # of an executor's memory, at least so many MiB, is beside its heap
_SMALLEST = 512  # MiB of a heap: with less Spark refuses to start


def conf_fit(conf: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, Fit]:
    """What is refused of settings: those that are not Spark's, and `ours`, each with why."""
    fits = {}
    for key in conf:
        if key in ours:
            fits["conf"] = Fit(Verdict.REFUSED, f"{key}: {ours[key]}")
        elif not key.startswith("spark."):
            fits["conf"] = Fit(Verdict.REFUSED, f"{key}: Spark takes only what begins with spark.")
    return fits


def executor(size: Size) -> dict[str, str]:
    """What makes YARN give each executor `size`; nothing when none is asked for."""
    if size == Size():
        return {}
    cores = str(max(round(size.cpu), 1))
    return {"spark.executor.cores": cores, "spark.executor.memory": f"{heap(size.memory)}m"}


def heap(memory: float) -> int:
    """MiB of a JVM's heap in so many GiB: the rest is what Spark keeps beside it."""
    whole = memory * 1024
    return max(int(min(whole / (1 + _PART), whole - _LEAST)), _SMALLEST)
