"""What GCP has: images by Spark's version, machine types by size. See catalogue.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from portaflow.backend import Size
from portaflow.catalogue import Catalogue, MachineType

_ALL = Catalogue(Path(__file__).with_name("catalogue.toml"))
_SETTINGS = {"images": "image_version", "runtimes": "runtime_version"}


def version(of: Literal["images", "runtimes"], spark: str) -> str:
    """The image or runtime for a version of Spark; "" takes the newest tried one."""
    return _ALL.version(of, spark, _SETTINGS[of])


def machine(size: Size) -> MachineType:
    """The cheapest machine type that has `size`."""
    return _ALL.machine(size, "machine_type")
