"""Finds installed plugins and opens backends; a broken plugin hurts only who selects it."""

from __future__ import annotations

import dataclasses
import importlib
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from . import hookspecs
from .backend import (
    API_VERSION,
    Backend,
    ComputeCluster,
    ContainerRun,
    Driver,
    Kind,
    ObjectStore,
)
from .errors import PluginError, TargetError
from .hookspecs import BackendKind, BackendSpec
from .pipeline import suggest
from .target import Binding, Target
from .validation import explain

_INTERFACES: Mapping[BackendKind, type[Backend]] = {
    "compute": ComputeCluster,
    "container": ContainerRun,
    "store": ObjectStore,
}


@dataclass(frozen=True)
class Offer:
    """One backend that an installed distribution announces."""

    spec: BackendSpec
    distribution: str


@dataclass(frozen=True)
class Broken:
    """One plugin that could not be loaded, and why."""

    plugin: str
    distribution: str
    error: str
    traceback: str


class Registry:
    """The backends that are on offer, by name, and the plugins that are broken."""

    def __init__(self, offers: list[Offer], broken: list[Broken]) -> None:
        self.broken = tuple(broken)
        self._offers: dict[str, list[Offer]] = {}
        for offer in offers:
            self._offers.setdefault(offer.spec.name, []).append(offer)

    def __iter__(self) -> Iterator[Offer]:
        return (o for _, offers in sorted(self._offers.items()) for o in offers)

    def load(self, kind: BackendKind, name: str) -> type[Backend]:
        """Import the class behind `name`. Raises TargetError or PluginError."""
        offers = self._offers.get(name, [])
        if not offers:
            hint = suggest(name, (n for n, o in self._offers.items() if o[0].spec.kind == kind))
            for broken in self.broken:
                hint += f"; plugin {broken.plugin!r} is broken: {broken.error}"
            raise TargetError(f"there is no {kind} backend {name!r}{hint}")
        if len(offers) > 1:
            owners = " and ".join(o.distribution for o in offers)
            raise PluginError(f"backend {name!r} is offered by {owners}; uninstall one of them")
        spec = offers[0].spec
        if spec.kind != kind:
            raise TargetError(f"backend {name!r} is a {spec.kind} backend, not a {kind} backend")
        if spec.api_version.split(".")[0] != API_VERSION.split(".")[0]:
            raise PluginError(
                f"backend {name!r} of {offers[0].distribution} is written for interface "
                f"{spec.api_version}, this is {API_VERSION}; install matching versions"
            )
        module, _, attribute = spec.factory.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # whatever a stranger's module does when imported
            raise PluginError(
                f"backend {name!r} of {offers[0].distribution} cannot be imported: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not (isinstance(cls, type) and issubclass(cls, _INTERFACES[kind])):
            raise PluginError(f"{spec.factory} is no {_INTERFACES[kind].__name__}")
        return cls

    def open(
        self,
        kind: BackendKind,
        name: str,
        settings: Mapping[str, Any],
        base: Path | None = None,
        where: str = "",
    ) -> Backend:
        """Return the backend with its settings checked; still no I/O.

        Settings that are relative paths are taken from `base` (default: the current folder).
        """
        cls = self.load(kind, name)
        where = where or f"backend {name!r}"
        known = [f.name for f in dataclasses.fields(cls.Config)]
        try:
            config = _checker(cls.Config).validate_python(dict(settings))
        except ValidationError as error:
            raise TargetError(explain(error, where, known)) from error
        values = {n: getattr(config, n) for n in known}
        base = (base or Path.cwd()).absolute()
        paths = {n: base / v.expanduser() for n, v in values.items() if isinstance(v, Path)}
        return cls(cls.Config(**values | paths))


def _checker(config: type[Any]) -> TypeAdapter[Any]:
    """A twin of a plain Config dataclass that checks types and refuses unknown keys."""
    twin = dataclasses.make_dataclass(
        config.__name__,
        [(f.name, f.type, dataclasses.field(**_default(f))) for f in dataclasses.fields(config)],
        kw_only=True,
        namespace={"__module__": config.__module__},
    )
    return TypeAdapter(checked(twin, config=ConfigDict(extra="forbid")))


def _default(field: dataclasses.Field[Any]) -> dict[str, Any]:
    if field.default_factory is not dataclasses.MISSING:
        return {"default_factory": field.default_factory}
    return {} if field.default is dataclasses.MISSING else {"default": field.default}


@lru_cache(maxsize=1)
def installed() -> Registry:
    """Read every `portaflow` entry point, each guarded: pluggy's own loading is not."""
    offers: list[Offer] = []
    broken: list[Broken] = []
    for entry in sorted(entry_points(group="portaflow"), key=lambda e: e.name):
        distribution = entry.dist.name if entry.dist else "unknown"
        try:
            offers += [Offer(spec, distribution) for spec in _announced(entry)]
        except Exception as error:  # a stranger's code: report it, go on without it
            text = f"{type(error).__name__}: {error}"
            broken.append(Broken(entry.name, distribution, text, traceback.format_exc()))
    return Registry(offers, broken)


def _announced(entry: EntryPoint) -> list[BackendSpec]:
    manager = pluggy.PluginManager("portaflow")
    manager.add_hookspecs(hookspecs)
    manager.register(entry.load(), name=entry.name)
    manager.check_pending()
    specs = [spec for answer in manager.hook.portaflow_backends() for spec in answer]
    for spec in specs:
        if not isinstance(spec, BackendSpec) or spec.kind not in _INTERFACES:
            raise PluginError(f"portaflow_backends() returned {spec!r}, which is no BackendSpec")
    return specs


class Backends:
    """A target's bindings as backends, each opened when it is first asked for."""

    def __init__(self, target: Target, registry: Registry | None = None) -> None:
        self._target = target
        self._registry = registry or installed()

    def _open(self, kind: BackendKind, binding: Binding | None) -> Any:
        where = f"target {self._target.name!r}: {kind}"
        if binding is None:
            raise TargetError(
                f"{where}: the pipeline needs a {kind} backend; "
                f'add [targets.{self._target.name}.{kind}] with backend = "..."'
            )
        return self._registry.open(kind, binding.backend, binding.config, self._target.base, where)

    @cached_property
    def store(self) -> ObjectStore:
        store: ObjectStore = self._open("store", self._target.store)
        return store

    @cached_property
    def compute(self) -> ComputeCluster:
        compute: ComputeCluster = self._open("compute", self._target.compute)
        return compute

    @cached_property
    def container(self) -> ContainerRun:
        container: ContainerRun = self._open("container", self._target.container)
        return container

    def driver(self, kind: Kind) -> Driver[Any]:
        """Return the driver for one kind of thing; the same object every time."""
        return self._drivers[kind]

    @cached_property
    def _drivers(self) -> _Drivers:
        return _Drivers(self)


class _Drivers(dict[Kind, Driver[Any]]):
    """Drivers made on first use: a poll loop may key on their identity."""

    def __init__(self, backends: Backends) -> None:
        super().__init__()
        self._backends = backends

    def __missing__(self, kind: Kind) -> Driver[Any]:
        driver: Driver[Any] | None
        match kind:
            case "cluster":
                driver = self._backends.compute.clusters
            case "job":
                driver = self._backends.compute.jobs
            case "container":
                driver = self._backends.container.containers
        if driver is None:
            raise TargetError("a serverless compute backend has no clusters")
        self[kind] = driver
        return driver
