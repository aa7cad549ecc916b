"""Faults on order, the log of calls, and the clock: one for all stand-ins of a place."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args

Effect = Literal[
    "throttle", "error", "deny", "latency", "reset-before", "reset-after", "hold", "hang", "fail",
    "die", "capacity", "hide", "expire-watch", "evict",
]  # fmt: skip

TOLD = ("hit", "held")  # of a fault: what is told, not ordered
_KEPT = 20_000  # calls in memory: hours of load must not grow without end; the file has all


@dataclass(slots=True, kw_only=True)
class Fault:
    """An order: what shall happen to which calls.

    `operation` is a pattern of "provider:Operation" ("aws:emr.RunJobFlow", "gcp:dataproc.*"),
    `principal` one of who calls, and `about` one of its parameters, as JSON, as the log of calls
    tells them. `times` how often (-1: for ever), `skip` how many calls are let through first,
    `probability` of each further one by the seed, `seconds` for latency, holding and hiding.
    """

    effect: Effect
    operation: str = "*"
    principal: str = "*"
    about: str = "*"
    times: int = 1
    skip: int = 0
    probability: float = 1.0
    seconds: float = 0.0
    status: int = 500
    hit: int = 0  # how often it has happened
    held: bool = False  # a call that was applied waits now

    def __post_init__(self) -> None:
        if self.effect == "deny":
            self.status = 403

    def meets(self, operation: str, principal: str) -> bool:
        """Whether it is not over yet, and is for such calls."""
        return (
            self.times != 0
            and fnmatchcase(operation, self.operation)
            and fnmatchcase(principal, self.principal)
        )

    @classmethod
    def parse(cls, order: Any) -> Fault:
        """Read an order from JSON. Raises ValueError, which says what is wrong with it."""
        if not isinstance(order, dict):
            raise ValueError(f"a fault is a JSON object, not {order!r}")
        types = {f.name: str(f.type) for f in fields(cls) if f.name not in TOLD}
        for key, value in order.items():
            if key not in types:
                raise ValueError(f"a fault has no {key!r}; it has {', '.join(types)}")
            wanted = {"int": int, "float": (int, float)}.get(types[key], str)
            if isinstance(value, bool) or not isinstance(value, wanted):  # type: ignore[arg-type]
                raise ValueError(f"{key} of a fault is of type {types[key]}, not {value!r}")
        if order.get("effect") not in get_args(Effect):
            raise ValueError(f"effect of a fault is one of {', '.join(get_args(Effect))}")
        fault = cls(**order)
        if not 0 <= fault.probability <= 1:
            raise ValueError(f"probability of a fault is from 0 to 1, not {fault.probability}")
        if fault.times < -1 or fault.skip < 0 or not 0 <= fault.seconds < float("inf"):
            raise ValueError("times of a fault is -1 or more, skip and seconds 0 or more")
        if not 400 <= fault.status <= 599:
            raise ValueError(f"status of a fault is an HTTP error, not {fault.status}")
        return fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that a client made."""

    time: float
    operation: str
    principal: str
    params: Mapping[str, Any]
    fault: str = ""

    @property
    def about(self) -> str:
        """Its parameters as JSON."""
        return json.dumps(self.params, default=str)


@dataclass
class Control:
    """Thread-safe; deterministic by `seed` for one order of the calls that a fault matches."""

    seed: int = 0
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._dice: dict[int, random.Random] = {}
        self._jump = 0.0
        self._counts: Counter[str] = Counter()
        self._log: Any = None
        self.on_call: Callable[[Call], None] = lambda call: None

    def order(self, fault: Fault) -> Fault:
        with self._lock:
            self.faults.append(fault)
        return fault

    def clear(self) -> None:
        """Forget all faults; calls that are held go on."""
        with self._lock:
            for fault in self.faults:
                fault.held = False
            self.faults.clear()
            self._dice.clear()

    def called(self, operation: str, principal: str = "", **params: Any) -> Fault | None:
        """Record a call, and return the fault that was ordered for it, if any."""
        with self._lock:
            call = Call(time=time.time(), operation=operation, principal=principal, params=params)
            fault = next((f for f in self.faults if self._strikes(f, call)), None)
            call = self._record(replace(call, fault=fault.effect if fault else ""))
        self.on_call(call)
        return fault

    def denies(self, operation: str, principal: str) -> bool:
        """Whether such a call would be denied now. It counts as no call."""
        with self._lock:
            return any(
                f.effect == "deny" and f.skip == 0 and f.meets(operation, principal)
                for f in self.faults
            )

    def note(self, operation: str, principal: str = "", **params: Any) -> None:
        """Record what is no provider's call, such as a host refused: no fault strikes it."""
        call = Call(time=time.time(), operation=operation, principal=principal, params=params)
        with self._lock:
            self._record(call)
        self.on_call(call)

    def _record(self, call: Call) -> Call:
        if len(self.calls) >= _KEPT:
            del self.calls[: _KEPT // 10]
        self.calls.append(call)
        self._counts[call.operation] += 1
        if self._log is not None:
            self._log.write(json.dumps(asdict(call), default=str) + "\n")
        return call

    def _strikes(self, fault: Fault, call: Call) -> bool:
        if not fault.meets(call.operation, call.principal):
            return False
        if fault.about != "*" and not fnmatchcase(call.about, fault.about):
            return False
        if fault.skip > 0:
            fault.skip -= 1
            return False
        if fault.probability < 1.0 and self._dice_of(fault).random() >= fault.probability:
            return False
        fault.times -= fault.times > 0
        fault.hit += 1
        return True

    def _dice_of(self, fault: Fault) -> random.Random:
        """One for each fault: calls that it does not match must not change what it does."""
        if id(fault) not in self._dice:
            place = next(i for i, f in enumerate(self.faults) if f is fault)
            self._dice[id(fault)] = random.Random(f"{self.seed}/{place}")
        return self._dice[id(fault)]

    def count(self, operation: str) -> int:
        """How many calls match a pattern, of all that ever were."""
        with self._lock:
            return sum(n for name, n in self._counts.items() if fnmatchcase(name, operation))

    def now(self) -> float:
        """The clock of times-to-live, in seconds since the epoch."""
        return time.time() + self._jump

    def jump(self, seconds: float) -> None:
        """Let times-to-live age at once."""
        with self._lock:
            self._jump += seconds

    def log_to(self, path: Path) -> None:
        """From now on append each call to a file too, as a line of JSON."""
        with self._lock:
            self._close()
            self._log = path.open("a", buffering=1, encoding="utf-8")

    def close(self) -> None:
        """Close the file of the log; idempotent."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def seen(self, operation: str = "*") -> list[Call]:
        """The calls whose operation matches a pattern, in their order; the latest of very many."""
        with self._lock:
            return [c for c in self.calls if fnmatchcase(c.operation, operation)]

    def ordered(self) -> list[Fault]:
        """The faults that were ordered, done or not, each as it is now."""
        with self._lock:
            return [replace(f) for f in self.faults]
