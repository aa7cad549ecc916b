"""What GCP has: images by Spark's version, machine types by size. See catalogue.toml."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from portaflow.backend import Size
from portaflow.catalogue import Catalogue, MachineType
from portaflow.errors import RejectedError

_ALL = Catalogue(Path(__file__).with_name("catalogue.toml"))
_SETTINGS = {"images": "image_version", "runtimes": "runtime_version"}


def version(of: Literal["images", "runtimes"], spark: str) -> str:
    """The image or runtime for a version of Spark; "" takes the newest tried one."""
    return _ALL.version(of, spark, _SETTINGS[of])


def hadoop(version: str) -> str:
    """The Hadoop of an image or runtime, such as 2.3-debian12."""
    short = ".".join(version.partition("-")[0].split(".")[:2])
    if not (found := _ALL.table("hadoop").get(short, "")):
        raise RejectedError(
            f"it is not known which Hadoop {version!r} has, and so which connector to S3: name "
            "org.apache.hadoop:hadoop-aws:VERSION among the task's `packages`"
        )
    return found


def machine(size: Size) -> MachineType:
    """The cheapest machine type that has `size`."""
    return _ALL.machine(size, "machine_type")


def known(name: str) -> MachineType | None:
    """The machine type of a name, when the catalogue has it."""
    return next((one for one in _ALL.machines if one.name == name), None)
