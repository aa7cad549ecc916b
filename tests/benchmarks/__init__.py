"""Benchmarks: `make bench`. Figures that count are ratios against a peer in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value, and the bound that the project promises for it."""

    name: str
    value: float
    unit: str
    bound: str  # as the table shows it
    good: bool
    peer: str = ""  # what it was measured against, with the peer's own figure


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def paired(mine: Callable[[], object], other: Callable[[], object], n: int) -> tuple[float, float]:
    """Median seconds of each, measured in turn: a machine that drifts slows both.

    Each is the first as often as the other.
    """
    mine(), other()
    took: dict[Callable[[], object], list[float]] = {mine: [], other: []}
    for turn in range(n):
        for call in (mine, other) if turn % 2 else (other, mine):
            took[call].append(seconds(call))
    return statistics.median(took[mine]), statistics.median(took[other])
