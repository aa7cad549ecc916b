"""What a provider has to choose from: versions by Spark's, machine types by size. For plugins.

A catalogue is a TOML file with a date. Each table of versions goes from Spark's MAJOR.MINOR to
the provider's own, the first of them the default; `machines.types` has rows of [name, cores,
GiB of memory, GPUs], from the cheapest to the dearest.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .backend import Size
from .errors import RejectedError


@dataclass(frozen=True, slots=True)
class MachineType:
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


class Catalogue:
    """Reads `file` when it is first asked."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @functools.cached_property
    def _tables(self) -> Mapping[str, Any]:
        return tomllib.loads(self._file.read_text("utf-8"))

    @functools.cached_property
    def machines(self) -> tuple[MachineType, ...]:
        return tuple(MachineType(*row) for row in self._tables["machines"]["types"])

    def table(self, of: str) -> Mapping[str, str]:
        found: Mapping[str, str] = self._tables[of]
        return found

    def version(self, of: str, spark: str, setting: str) -> str:
        """The version in table `of` for a Spark, MAJOR.MINOR or longer; "" takes the default.

        Raises RejectedError when there is none; `setting` of the target names one all the same.
        """
        known = self.table(of)
        if not spark:
            return next(iter(known.values()))
        found = known.get(".".join(spark.split(".")[:2]))
        if found is None:
            raise RejectedError(
                f"none of the {of} that are known has Spark {spark!r}, but {', '.join(known)}; "
                f"name one with `{setting}` in the target"
            )
        return found

    def machine(self, size: Size, setting: str) -> MachineType:
        """The cheapest type that has `size`. Raises RejectedError when none is so large."""
        found = next((one for one in self.machines if one.has(size)), None)
        if found is None:
            raise RejectedError(
                f"no known machine type has {size.cpu:g} cores, {size.memory:g} GiB and "
                f"{size.gpu} GPUs; make the size smaller, or name one with `{setting}` in the "
                "target"
            )
        return found
