"""The checks: public functions of these modules, named as in the manifest."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..manifest import Area

Function = Callable[..., None]
"""`check(subject)`, or `check(subject, role)` for those of the area "plugin"."""

_MODULES: Mapping[Area, tuple[str, ...]] = {
    "plugin": ("plugin",),
    "store": ("store_objects", "store_listing", "store_keys"),
    "container": ("container_run", "container_life"),
    "spark": ("spark_cluster", "spark_job"),
    "end-to-end": ("leaks",),
}


def implemented() -> dict[str, Function]:
    """All checks that are written, by their id."""
    return {
        f"{area}.{name}": function
        for area, modules in _MODULES.items()
        for module in modules
        for name, function in _public(importlib.import_module(f"{__name__}.{module}"))
    }


def _public(module: Any) -> list[tuple[str, Function]]:
    return [
        (name, function)
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    ]
