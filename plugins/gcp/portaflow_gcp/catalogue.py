"""What GCP has: images by Spark's version, machine types by size. See catalogue.toml."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from portaflow.backend import Size
from portaflow.errors import RejectedError


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type. `memory` is in GiB."""

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
    return tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text("utf-8"))


def version(of: Literal["images", "runtimes"], spark: str) -> str:
    """The image or runtime for a version of Spark, MAJOR.MINOR; "" takes the newest tried one.

    Raises RejectedError when there is none.
    """
    known: Mapping[str, str] = _read()[of]
    if not spark:
        return next(iter(known.values()))
    if spark not in known:
        setting = "image_version" if of == "images" else "runtime_version"
        raise RejectedError(
            f"none of Dataproc's {of} is known for Spark {spark!r}, but for {', '.join(known)}; "
            f"name one with `{setting}` in the target"
        )
    return known[spark]


def machine(size: Size) -> Machine:
    """The cheapest type that has `size`. Raises RejectedError when none is so large."""
    found = next((one for one in machines() if one.has(size)), None)
    if found is None:
        raise RejectedError(
            f"no known machine type has {size.cpu:g} cores, {size.memory:g} GiB and {size.gpu} "
            "GPUs; make the size smaller, or name a `machine_type` in the target"
        )
    return found


@functools.cache
def machines() -> tuple[Machine, ...]:
    """From the cheapest to the dearest."""
    return tuple(Machine(*row) for row in _read()["machines"]["types"])
