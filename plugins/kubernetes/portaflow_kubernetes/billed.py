"""What pods ask of their nodes, as far as that can have a price: cores, GiB, GPUs. Pure.

Kubernetes bills nothing. A team that shares a cluster knows what an hour of its parts costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from portaflow.backend import Machines

from .manifest import GPU

_TYPES = {"cpu": ("core", 1.0), "memory": ("GiB", 2.0**30), GPU: (GPU, 1.0)}
_QUANTITY = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(m|k|[MGTPE]|[KMGTPE]i)?")
_UNITS = {"m": 1e-3, "k": 1e3} | {
    letter + end: float(base**power)
    for end, base in (("", 1000), ("i", 1024))
    for power, letter in enumerate("KMGTPE", 1)
}

Amounts = Mapping[str, Any]  # resource -> quantity


def machines(asked: Iterable[tuple[Amounts, float]]) -> list[Machines] | None:
    """The sum of what containers ask for, each so many times; None when it cannot be read."""
    total = dict.fromkeys(_TYPES, 0.0)
    for amounts, count in asked:
        for name in _TYPES.keys() & amounts.keys():
            if (amount := quantity(amounts[name])) is None:
                return None
            total[name] += amount * count
    return [
        Machines(type=type_, least=many, most=many)
        for name, (type_, unit) in _TYPES.items()
        if (many := round(total[name] / unit, 3))
    ]


def of_pod(pod: Mapping[str, Any]) -> list[Amounts]:
    """What each container of a pod asks for; a limit alone is a request too."""
    asked = (box.get("resources", {}) for box in pod["containers"])
    return [{**one.get("limits", {}), **one.get("requests", {})} for one in asked]


def quantity(text: Any) -> float | None:
    """A quantity of Kubernetes as a number, 0.5 for "500m"; None when it is none."""
    found = _QUANTITY.fullmatch(str(text))
    return float(found[1]) * _UNITS.get(found[2] or "", 1.0) if found else None
