"""Which machine types and images Dataproc knows. Those that it does not are refused."""

from __future__ import annotations

import re

_SIZES = {
    "n1-standard": (1, 2, 4, 8, 16, 32, 64, 96),
    "n1-highmem": (2, 4, 8, 16, 32, 64, 96),
    "n1-highcpu": (2, 4, 8, 16, 32, 64, 96),
    "n2-standard": (2, 4, 8, 16, 32, 48, 64, 80, 96, 128),
    "n2-highmem": (2, 4, 8, 16, 32, 48, 64, 80, 96, 128),
    "n2-highcpu": (2, 4, 8, 16, 32, 48, 64, 80, 96),
    "n2d-standard": (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224),
    "n2d-highmem": (2, 4, 8, 16, 32, 48, 64, 80, 96),
    "n2d-highcpu": (2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 224),
    "e2-standard": (2, 4, 8, 16, 32),
    "e2-highmem": (2, 4, 8, 16),
    "e2-highcpu": (2, 4, 8, 16, 32),
    "c2-standard": (4, 8, 16, 30, 60),
    **dict.fromkeys(("c2d-standard", "c2d-highmem", "c2d-highcpu"), (2, 4, 8, 16, 32, 56, 112)),
    **dict.fromkeys(("c3-standard", "c3-highmem", "c3-highcpu"), (4, 8, 22, 44, 88, 176)),
    **dict.fromkeys(
        ("c4-standard", "c4-highmem", "c4-highcpu"), (2, 4, 8, 16, 24, 32, 48, 96, 144, 192, 288)
    ),
    **dict.fromkeys(("n4-standard", "n4-highmem", "n4-highcpu"), (2, 4, 8, 16, 32, 48, 64, 80)),
    **dict.fromkeys(
        ("c4a-standard", "c4a-highmem", "c4a-highcpu"), (1, 2, 4, 8, 16, 32, 48, 64, 72)
    ),
    "m1-ultramem": (40, 80, 160),
    "m1-megamem": (96,),
    "m2-ultramem": (208, 416),
    "m2-megamem": (416,),
    "a2-highgpu": ("1g", "2g", "4g", "8g"),
    "a2-ultragpu": ("1g", "2g", "4g", "8g"),
    "g2-standard": (4, 8, 12, 16, 24, 32, 48, 96),
}
_TYPES = frozenset(f"{family}-{size}" for family, sizes in _SIZES.items() for size in sizes)
_DEFAULT = 4  # cores of the type that Dataproc takes by itself
_CUSTOM = re.compile(r"((n1|n2|n2d|e2|n4)-)?custom-([1-9]|[1-9]\d*[02468])-\d+(-ext)?")
_SYSTEMS = {
    "2.0": ("debian10", "ubuntu18", "rocky8"),
    "2.1": ("debian11", "ubuntu20", "ubuntu20-arm", "rocky8"),
    "2.2": ("debian12", "ubuntu22", "ubuntu22-arm", "rocky9"),
    "2.3": ("debian12", "ubuntu22", "ubuntu22-arm", "ml-ubuntu22", "rocky9"),
    "3.0": ("debian12", "ubuntu22", "rocky9"),
}
_IMAGE = re.compile(r"(\d+\.\d+)(?:\.\d+)?(?:-RC\d+)?(?:-([a-z0-9-]+))?")
RUNTIMES = ("1.1", "1.2", "2.0", "2.1", "2.2", "2.3", "3.0")


def machine(uri: str) -> str:
    """The short name of a machine type, which may be given by its URL."""
    return uri.rpartition("/machineTypes/")[2]


def has_machine(uri: str) -> bool:
    name = machine(uri)
    return name in _TYPES or _CUSTOM.fullmatch(name) is not None


def cores(uri: str) -> int:
    """How many cores one machine of a type has; those of the default where none is named."""
    name = machine(uri)
    found = re.search(r"custom-(\d+)", name) or re.search(r"-(\d+)g?$", name)
    return int(found[1]) if found else _DEFAULT


def has_image(version: str) -> bool:
    """Whether clusters can be made of "2.2", "2.2.14-debian12", "2.2-ubuntu22"."""
    found = _IMAGE.fullmatch(version)
    return found is not None and (found[2] or "debian12") in (
        *_SYSTEMS.get(found[1], ()),
        *(("debian12",) if found[1] in _SYSTEMS and not found[2] else ()),
    )


def has_runtime(version: str) -> bool:
    """Whether batches can run in "2.3", "2.3.4"."""
    return (
        ".".join(version.split(".")[:2]) in RUNTIMES
        and re.fullmatch(r"\d+\.\d+(\.\d+)?", version) is not None
    )
