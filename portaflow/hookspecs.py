"""The one hook a plugin implements. Answering it imports no backend and no SDK."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pluggy

from .backend import API_VERSION

hookspec = pluggy.HookspecMarker("portaflow")
hookimpl = pluggy.HookimplMarker("portaflow")

BackendKind = Literal["compute", "container", "store"]


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """Announces one backend. `factory` is "module:Class", imported when first used."""

    name: str
    kind: BackendKind
    factory: str
    api_version: str = API_VERSION


@hookspec
def portaflow_backends() -> Iterable[BackendSpec]:  # type: ignore[empty-body]
    """Return the backends that this plugin offers."""
