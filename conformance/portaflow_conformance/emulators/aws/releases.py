"""Which releases EMR has, and on which instance types each runs: by the lists that moto keeps."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any


@functools.cache
def labels(region: str) -> tuple[str, ...]:
    """The newest first."""
    for where in (region, "us-east-1"):
        found = _resource(f"release-labels-{where}")
        if found is not None:
            return tuple(found)
    raise FileNotFoundError("moto has no list of the releases of EMR")


@functools.cache
def instance_types(label: str) -> Mapping[str, Mapping[str, Any]]:
    """What `ListSupportedInstanceTypes` tells of each, by its name."""
    known = _resource("instance_types") or {}
    names = _resource(f"instance-types-{label}")
    return {name: known[name] for name in (known if names is None else names) if name in known}


def _resource(name: str) -> Any:
    from moto.utilities.utils import load_resource  # not before a call needs it

    try:
        return load_resource(f"emr/resources/{name}.json")
    except FileNotFoundError:
        return None
