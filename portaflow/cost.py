"""What a plan may cost at most, as far as the target has prices. Pure.

A bound and no forecast: everything is taken to live until its time-to-live is over. What has no
price is unknown, which is not 0.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .backend import Machines
from .errors import TargetError
from .target import Prices, Target


@dataclass(frozen=True, slots=True)
class Cost:
    """What one action may cost. `machines` is None when its backend cannot tell.

    `date`: the day of the prices, where the table names one. `hourly`: at least and at most, while
    it lives; `most`: in all. None where it is unknown; `why` says then what is missing.
    """

    action: str
    machines: tuple[Machines, ...] | None
    currency: str = ""
    hourly: tuple[float, float] | None = None
    most: float | None = None
    why: str = ""
    date: datetime.date | None = None

    def to_json(self) -> dict[str, Any]:
        machines = None if self.machines is None else [_machines_json(m) for m in self.machines]
        hourly = None if self.hourly is None else [round(h, 4) for h in self.hourly]
        most = None if self.most is None else round(self.most, 2)
        body = {"action": self.action, "machines": machines, "currency": self.currency or None}
        date = None if self.date is None else self.date.isoformat()
        return {**body, "date": date, "hourly": hourly, "most": most, "unknown": self.why or None}


def _machines_json(machines: Machines) -> dict[str, Any]:
    count = [machines.least, machines.most]
    return {"type": machines.type, "count": count, "spot": machines.spot}


def cost(
    action: str, machines: Sequence[Machines] | None, seconds: float, target: Target, backend: str
) -> Cost:
    """The cost of what lives for at most `seconds`."""
    if machines is None:
        return Cost(action, None, why=f"backend {backend!r} does not tell what it takes")
    kinds = tuple(machines)
    if not kinds:
        return Cost(action, kinds, hourly=(0.0, 0.0), most=0.0)
    prices = target.prices or Prices()
    missing = sorted({m.key for m in kinds} - prices.hourly.keys())
    if missing:
        where = f"{target.where}: prices.hourly"
        return Cost(action, kinds, why=f"{where} has no price for {', '.join(missing)}")
    least = sum(m.least * prices.hourly[m.key] for m in kinds)
    most = sum(m.most * prices.hourly[m.key] for m in kinds)
    total = most * seconds / 3600
    return Cost(action, kinds, prices.currency, (least, most), total, date=prices.date)


def check(costs: Sequence[Cost], target: Target) -> None:
    """Raise TargetError when the plan may cost more than the target's `limits.max_cost`."""
    limit = target.limits.max_cost
    if limit is None:
        return
    where = f"{target.where}: limits.max_cost"
    if unknown := [f"  {c.action}: {c.why}" for c in costs if c.most is None]:
        raise TargetError(
            f"{where}: is {limit:g}, but it is unknown what this would cost:\n"
            + "\n".join(unknown)
            + "\ngive these prices (`portaflow prices` asks the provider), or no limit"
        )
    if len(currencies := sorted({c.currency for c in costs if c.currency})) > 1:
        raise TargetError(f"{where}: prices are in {' and '.join(currencies)}; give them in one")
    total = sum(c.most or 0.0 for c in costs)
    if total > limit:
        dear = (f"  {c.action}: {c.most:.2f}" for c in costs if c.most)
        raise TargetError(
            f"{where}: is {limit:g}, but this may cost {total:.2f} {currencies[0]}, if all "
            "lives until its time-to-live is over:\n"
            + "\n".join(dear)
            + "\nlower ttl, timeout, workers or size, or raise the limit"
        )
