"""What AWS has: releases of EMR by Spark's version, instance types by size. See catalogue.toml."""

from __future__ import annotations

from pathlib import Path

from portaflow.backend import Size
from portaflow.catalogue import Catalogue, MachineType

_ALL = Catalogue(Path(__file__).with_name("catalogue.toml"))


def release(spark: str) -> str:
    """The release of EMR for a version of Spark; "" takes the newest tried one."""
    return _ALL.version("releases", spark, "release")


def instance(size: Size) -> MachineType:
    """The cheapest instance type that has `size`."""
    return _ALL.machine(size, "instance_types")
