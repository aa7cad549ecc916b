"""Finds installed plugins and opens backends; a broken plugin hurts only who selects it."""

from __future__ import annotations

import dataclasses
import importlib
import re
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any, get_type_hints

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
from .errors import PluginError, PortaflowError, TargetError
from .hookspecs import BackendKind, BackendSpec
from .pipeline import suggest
from .target import Binding, Target
from .validation import explain, printable

_STRANGERS = (Exception, SystemExit)
"""What the code of a plugin may raise; KeyboardInterrupt is the user's."""

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

    def load(self, kind: BackendKind, name: str, where: str = "") -> type[Backend]:
        """Import the class behind `name`. Raises TargetError or PluginError."""
        where = f"{where}: " if where else ""
        offers = self._offers.get(name, [])
        if not offers:
            hint = suggest(name, (n for n, o in self._offers.items() if o[0].spec.kind == kind))
            for broken in self.broken:
                hint += f"; plugin {broken.plugin!r} is broken: {broken.error}"
            raise TargetError(f"{where}there is no {kind} backend {printable(name)!r}{hint}")
        if len(offers) > 1:
            owners = " and ".join(o.distribution for o in offers)
            raise PluginError(f"backend {name!r} is offered by {owners}; uninstall one of them")
        spec = offers[0].spec
        if spec.kind != kind:
            raise TargetError(
                f"{where}backend {name!r} is a {spec.kind} backend, not a {kind} backend"
            )
        if not _speaks(spec.api_version):
            raise PluginError(
                f"backend {name!r} of {offers[0].distribution} is written for interface "
                f"{spec.api_version}, this is {API_VERSION}; install matching versions"
            )
        module, _, attribute = spec.factory.partition(":")
        try:
            cls = getattr(importlib.import_module(module), attribute)
        except _STRANGERS as error:  # whatever a stranger's module does when imported
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
        cls = self.load(kind, name, where)
        where = where or f"backend {name!r}"
        base = (base or Path.cwd()).absolute()
        try:
            return _opened(cls, settings, base, where)
        except PortaflowError:
            raise
        except _STRANGERS as error:
            raise PluginError(
                f"{where}: backend {name!r} cannot be opened: {type(error).__name__}: {error}; "
                f"report it to the author of {self._offers[name][0].distribution}"
            ) from error


def _opened(cls: type[Backend], settings: Mapping[str, Any], base: Path, where: str) -> Backend:
    known = [f.name for f in dataclasses.fields(cls.Config)]
    try:
        config = _checker(cls.Config).validate_python(dict(settings))
        values = {n: getattr(config, n) for n in known}
    except ValidationError as error:
        raise TargetError(explain(error, where, known)) from error
    for name, value in values.items():
        if isinstance(value, Path) and settings.get(name) == "":
            raise TargetError(f"{where}: {name}: is empty; say a folder, or leave it out")
    try:
        paths = {n: base / v.expanduser() for n, v in values.items() if isinstance(v, Path)}
    except RuntimeError as error:  # ~somebody who is not known here
        raise TargetError(f"{where}: {error}") from error
    return cls(cls.Config(**values | paths))


def _speaks(version: str) -> bool:
    """Whether a backend written for `version` of the interface can be used by this one."""
    try:
        theirs, ours = (tuple(map(int, v.split("."))) for v in (version, API_VERSION))
    except ValueError:
        return False
    return theirs[:1] == ours[:1] and theirs <= ours


def _checker(config: type[Any]) -> TypeAdapter[Any]:
    """A twin of a plain Config dataclass that checks types and refuses unknown keys."""
    types = get_type_hints(config, include_extras=True)  # an inherited one's, where it was written
    twin = dataclasses.make_dataclass(
        config.__name__,
        [
            (f.name, types[f.name], dataclasses.field(**_default(f)))
            for f in dataclasses.fields(config)
        ],
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

    def report(plugin: str, distribution: str, error: BaseException) -> None:
        text = f"{type(error).__name__}: {error}"
        broken.append(Broken(plugin, distribution, text, traceback.format_exc()))

    seen: set[str] = set()
    for found in distributions():
        if not _mentions(found):
            continue
        name = "unknown"
        try:
            name = found.metadata["Name"] or name
            if (canonical := re.sub(r"[-_.]+", "-", name).lower()) in seen:
                continue  # the first on the path hides the others, as for imports
            seen.add(canonical)
            entries = list(found.entry_points.select(group="portaflow"))
        except _STRANGERS as error:
            report(name, name, error)
            continue
        for entry in entries:
            try:
                offers += [Offer(spec, name) for spec in _announced(entry)]
            except _STRANGERS as error:  # report it, go on without it
                report(entry.name, name, error)
    return Registry(sorted(offers, key=lambda o: (o.spec.name, o.distribution)), broken)


def _mentions(distribution: Distribution) -> bool:
    """Whether a distribution has plugins at all: the rest of it need not be readable."""
    try:
        return "[portaflow]" in (distribution.read_text("entry_points.txt") or "")
    except (OSError, ValueError):
        return False


def _announced(entry: EntryPoint) -> list[BackendSpec]:
    manager = pluggy.PluginManager("portaflow")
    manager.add_hookspecs(hookspecs)
    manager.register(entry.load(), name=entry.name)
    manager.check_pending()
    specs = [spec for answer in manager.hook.portaflow_backends() for spec in answer]
    for spec in specs:
        if not isinstance(spec, BackendSpec) or not all(
            isinstance(v, str) for v in dataclasses.astuple(spec)
        ):
            raise PluginError(f"portaflow_backends() returned {spec!r}, which is no BackendSpec")
        if spec.kind not in _INTERFACES or not spec.name or ":" not in spec.factory:
            raise PluginError(f"portaflow_backends() returned {spec!r}, which cannot be used")
    if not specs:
        raise PluginError("it announces no backend: portaflow_backends() is missing, or empty")
    return specs


class Backends:
    """A target's bindings as backends, each opened when it is first asked for."""

    def __init__(self, target: Target, registry: Registry | None = None) -> None:
        self._target = target
        self._registry = registry or installed()
        self._others: dict[str, Backends] = {}

    def at(self, place: str) -> Backends:
        """The backends of the target where `place` puts a task; "" is this target."""
        if not place:
            return self
        if place not in self._others:
            self._others[place] = Backends(self._target.at(place), self._registry)
        return self._others[place]

    def _open(self, kind: BackendKind, binding: Binding | None) -> Any:
        where = f"{self._target.where}: {kind}"
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
