"""Faults on order, the log of calls, and the clock: one for all stand-ins of a place."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

Effect = Literal[
    "throttle", "error", "latency", "reset-before", "reset-after", "hang", "fail", "die",
    "hide", "expire-watch", "evict",
]  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Fault:
    """An order: what shall happen to which calls.

    `operation` is a pattern of "provider:Operation" ("aws:emr.RunJobFlow", "gcp:dataproc.*").
    `times` how often (-1: for ever), `skip` how many calls are let through first,
    `probability` of each further one by the seed, `seconds` for latency and hiding.
    """

    effect: Effect
    operation: str = "*"
    times: int = 1
    skip: int = 0
    probability: float = 1.0
    seconds: float = 0.0
    status: int = 500
    hit: int = 0  # how often it has happened


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that a client made."""

    time: float
    operation: str
    principal: str
    params: Mapping[str, Any]
    fault: str = ""


@dataclass
class Control:
    """Thread-safe; deterministic by `seed` for one order of calls."""

    seed: int = 0
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._dice = random.Random(self.seed)  # noqa: S311  reproducible, not secret
        self._jump = 0.0
        self.on_call: Callable[[Call], None] = lambda call: None

    def order(self, fault: Fault) -> Fault:
        with self._lock:
            self.faults.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self.faults.clear()

    def called(self, operation: str, principal: str = "", **params: Any) -> Fault | None:
        """Record a call, and return the fault that was ordered for it, if any."""
        with self._lock:
            fault = next((f for f in self.faults if self._strikes(f, operation)), None)
            call = Call(
                time=time.time(), operation=operation, principal=principal, params=params,
                fault=fault.effect if fault else "",
            )  # fmt: skip
            self.calls.append(call)
        self.on_call(call)
        return fault

    def _strikes(self, fault: Fault, operation: str) -> bool:
        if fault.times == 0 or not fnmatchcase(operation, fault.operation):
            return False
        if fault.skip > 0:
            fault.skip -= 1
            return False
        if fault.probability < 1.0 and self._dice.random() >= fault.probability:
            return False
        fault.times -= fault.times > 0
        fault.hit += 1
        return True

    def count(self, operation: str) -> int:
        """How many calls match a pattern."""
        with self._lock:
            return sum(fnmatchcase(c.operation, operation) for c in self.calls)

    def now(self) -> float:
        """The clock of times-to-live, in seconds since the epoch."""
        return time.time() + self._jump

    def jump(self, seconds: float) -> None:
        """Let times-to-live age at once."""
        self._jump += seconds

    def to_json(self) -> dict[str, Any]:
        with self._lock:
            return {
                "faults": [asdict(f) for f in self.faults],
                "calls": [asdict(c) for c in self.calls],
            }
