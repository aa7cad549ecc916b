"""What AWS has: releases of EMR by Spark's version, instance types by size. See catalogue.toml."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portaflow.backend import Size
from portaflow.errors import RejectedError


@dataclass(frozen=True, slots=True)
class Instance:
    """A type of machine. `memory` is in GiB."""

    name: str
    cpu: float
    memory: float
    gpu: int

    def has(self, size: Size) -> bool:
        return self.cpu >= size.cpu and self.memory >= size.memory and self.gpu >= size.gpu

    def __str__(self) -> str:
        gpus = f", {self.gpu} GPUs" if self.gpu else ""
        return f"{self.name} ({self.cpu:g} cores, {self.memory:g} GiB{gpus})"


@functools.cache
def _read() -> Mapping[str, Any]:
    text = Path(__file__).with_name("catalogue.toml").read_text("utf-8")
    return tomllib.loads(text)


def release(spark: str) -> str:
    """The release of EMR for a version of Spark, MAJOR.MINOR or longer; "" takes the newest.

    Raises RejectedError when there is none.
    """
    known: Mapping[str, str] = _read()["releases"]
    if not spark:
        return next(iter(known.values()))
    found = known.get(".".join(spark.split(".")[:2]))
    if found is None:
        raise RejectedError(
            f"no release of EMR is known for Spark {spark!r}, but for {', '.join(known)}; "
            "name one of EMR's with `release` in the target"
        )
    return found


def instance(size: Size) -> Instance:
    """The cheapest type that has `size`. Raises RejectedError when none is so large."""
    found = next((one for one in instances() if one.has(size)), None)
    if found is None:
        raise RejectedError(
            f"no known instance type has {size.cpu:g} cores, {size.memory:g} GiB and {size.gpu} "
            "GPUs; make the size smaller, or name `instance_types` in the target"
        )
    return found


@functools.cache
def instances() -> tuple[Instance, ...]:
    """From the cheapest to the dearest."""
    return tuple(Instance(*row) for row in _read()["instances"]["types"])
