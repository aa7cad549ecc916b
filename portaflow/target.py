"""Where to do it: a named choice of backends and settings, read from portaflow.toml.

What a setting is comes from, strongest first: `--set`, the environment
(`PORTAFLOW__STORE__ROOT=...`), the target, the targets it extends, the defaults.
"""

from __future__ import annotations

import datetime
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, JsonValue, ValidationError, model_validator

from .errors import TargetError
from .pipeline import Model, Name, Source, Variable, suggest
from .validation import explain, printable

FILE = "portaflow.toml"
PREFIX = "PORTAFLOW__"
_BINDINGS = ("store", "compute", "container")
_LARGEST_FILE = 4 * 2**20  # bytes
_DEEPEST = 50  # levels of tables

BUILT_IN: Mapping[str, Mapping[str, Any]] = {
    "local": {
        "store": {"backend": "folder"},
        "compute": {"backend": "spark-local"},
        "container": {"backend": "process"},
    }
}
"""The target that is there when no file names one."""


class Binding(Model):
    """One backend and its settings. `overrides`: merged into each native request, by kind."""

    backend: str
    config: Mapping[str, JsonValue] = {}
    overrides: Mapping[str, Mapping[str, JsonValue]] = {}

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        own = {k: v for k, v in value.items() if k in ("backend", "overrides")}
        return own | {"config": {k: v for k, v in value.items() if k not in own}}


class Prices(Model):
    """What an hour of each type of machine costs, and on which day that was so.

    The price of a spot machine is that of "TYPE spot".
    """

    date: datetime.date | None = None
    currency: str = "USD"
    hourly: Mapping[str, Annotated[float, Field(ge=0)]] = {}


class Limits(Model):
    """`max_cost`: what a run may cost, in the currency of the prices; else it does not start."""

    max_cost: float | None = Field(None, gt=0)


class Target(Model):
    """Bindings, and what a pipeline needs to know of the place.

    `images`: image of a pipeline -> reference, or folder with a Dockerfile. `sources`,
    `params`: take the place of the pipeline's. `tasks`, `clusters`: settings by task id or
    cluster name that take the place of the pipeline's. `max_parallel`: tasks at one time.
    `place`: task id -> name of the target on which that task runs instead; `others` are these
    targets. A cluster is where its tasks are. Parameters and sources are this target's for all.
    """

    name: Name
    base: Path = Path()
    file: Path | None = None
    store: Binding
    compute: Binding | None = None
    container: Binding | None = None
    images: Mapping[str, str] = {}
    sources: Mapping[str, Source] = {}
    params: Mapping[Variable, JsonValue] = {}
    tasks: Mapping[str, Mapping[str, JsonValue]] = {}
    clusters: Mapping[str, Mapping[str, JsonValue]] = {}
    max_parallel: int = Field(16, ge=1, le=10_000)
    prices: Prices | None = None
    limits: Limits = Limits()
    place: Mapping[str, Name] = {}
    others: Mapping[str, Target] = {}

    def placed(self, task: str) -> str:
        """The name of the other target on which a task runs; "" for this one."""
        place = self.place.get(task, "")
        return "" if place == self.name else place

    def at(self, place: str) -> Target:
        """The target that `placed` names."""
        return self.others[place] if place else self

    @property
    def where(self) -> str:
        """What an error calls it: its place in the file."""
        name = printable(self.name)
        return f"{self.file} [targets.{name}]" if self.file else f"target {name!r}"


@dataclass
class Settings:
    """Merged settings as a tree, and for each leaf (a dotted path) where it came from."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def merge(self, layer: Mapping[str, Any], origin: str) -> None:
        """Lay `layer` on top. Another backend drops the settings of the one before."""
        for kind in _BINDINGS:
            mine, new = self.values.get(kind), layer.get(kind)
            if not isinstance(mine, dict) or not isinstance(new, Mapping):
                continue
            if new.get("backend", mine.get("backend")) != mine.get("backend"):
                self._drop(kind)
        self._merge(self.values, layer, origin, "")

    def _merge(self, into: dict[str, Any], layer: Mapping[str, Any], origin: str, at: str) -> None:
        if at.count(".") > _DEEPEST:
            raise TargetError(f"{origin}: {printable(at)}: nested deeper than {_DEEPEST} levels")
        for key, value in layer.items():
            path = f"{at}{key}"
            mine = into.get(key)
            if isinstance(mine, dict) != isinstance(value, Mapping):
                self._forget(path)
            if isinstance(value, Mapping):
                into[key] = mine = mine if isinstance(mine, dict) else {}
                self._merge(mine, value, origin, path + ".")
            else:
                into[key] = value
                self.origins[path] = origin

    def _drop(self, kind: str) -> None:
        del self.values[kind]
        self._forget(kind)

    def _forget(self, path: str) -> None:
        gone = [p for p in self.origins if p == path or p.startswith(path + ".")]
        for p in gone:
            del self.origins[p]

    def origin(self, path: str) -> str:
        """Where the value at `path`, or the first one below it, came from; "" when unknown."""
        near = (o for p, o in self.origins.items() if p.startswith(path + "."))
        return self.origins.get(path) or next(near, "")


def find_file(start: Path) -> Path | None:
    """Return the nearest portaflow.toml at or above `start`."""
    start = start.absolute()
    return next((p / FILE for p in (start, *start.parents) if (p / FILE).is_file()), None)


def read_file(path: Path) -> dict[str, Any]:
    """Read a portaflow.toml. Raises TargetError with the line when it cannot be read."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise TargetError(f"{path}: larger than {_LARGEST_FILE} bytes; is it the right file?")
        document = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise TargetError(f"{path}: cannot be read: {error}") from error
    for key in document:
        if key not in ("targets", "default_target"):
            hint = suggest(key, ("targets", "default_target"))
            raise TargetError(f"{path}: {printable(key)}: unknown key{hint}")
    targets = document.get("targets", {})
    if not isinstance(targets, dict):
        raise TargetError(f"{path}: targets: must be tables, as in [targets.local]")
    for key, value in targets.items():
        if not isinstance(value, dict):
            raise TargetError(f"{path}: targets.{printable(key)}: must be a table")
    if not isinstance(document.get("default_target", ""), str):
        raise TargetError(f"{path}: default_target: must be the name of a target")
    return document


def settings(
    name: str = "",
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    sets: Iterable[str] = (),
) -> tuple[str, Settings]:
    """Merge all layers of the target `name` (default: the environment's, the file's, "local").

    `sets` are "dotted.path=value"; values are TOML, or plain text where that is no TOML.
    """
    environ = os.environ if environ is None else environ
    document = read_file(file) if file else {}
    name = name or environ.get("PORTAFLOW_TARGET") or document.get("default_target") or "local"
    merged = Settings()
    for layer, origin in reversed(_chain(name, document.get("targets", {}), file)):
        merged.merge({k: v for k, v in layer.items() if k != "extends"}, origin)
    for key in sorted(environ):
        if key.startswith(PREFIX):
            path = key[len(PREFIX) :].lower().split("__")
            merged.merge(_nested(path, environ[key], key), f"environment {key}")
    for text in sets:
        path_text, mark, value = text.partition("=")
        if not mark:
            raise TargetError(
                f"--set {printable(text)}: say it as path=value, as in store.root=/data"
            )
        where = f"--set {printable(path_text)}"
        merged.merge(_nested(path_text.split("."), value, where), where)
    return name, merged


def _chain(
    name: str, targets: Mapping[str, Mapping[str, Any]], file: Path | None
) -> list[tuple[Mapping[str, Any], str]]:
    """The target's own layer, then those it extends, then the built-in ones of these names."""
    chain: list[tuple[Mapping[str, Any], str]] = []
    seen: list[str] = []
    where = str(file or FILE)
    while name:
        if name in seen:
            circle = " -> ".join(map(printable, [*seen, name]))
            raise TargetError(f"{where}: targets extend each other: {circle}")
        if name not in targets and name not in BUILT_IN:
            hint = suggest(name, {*targets, *BUILT_IN})
            raise TargetError(f"{where}: there is no target {printable(name)!r}{hint}")
        seen.append(name)
        layer = targets.get(name, {})
        own = f"{file} [targets.{printable(name)}]"
        chain.append((layer, own))
        name = layer.get("extends", "")
        if not isinstance(name, str):
            raise TargetError(f"{own}: extends: must be the name of a target")
        where = f"{own}: extends"
    return chain + [(BUILT_IN[n], "default") for n in seen if n in BUILT_IN]


def _nested(path: list[str], text: str, where: str) -> dict[str, Any]:
    if not all(path):
        raise TargetError(f"{where}: the path of the setting has an empty part")
    if len(path) > _DEEPEST:
        raise TargetError(f"{where}: nested deeper than {_DEEPEST} levels")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    for part in reversed(path):
        value = {part: value}
    return value  # type: ignore[no-any-return]


def load_target(
    name: str = "",
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    sets: Iterable[str] = (),
) -> Target:
    """Return the checked target. Raises TargetError that names file and field.

    `environ` and `sets` are for the target alone, not for others where it places tasks.
    """
    target = _load(name, file, environ, sets)
    names = sorted({p for p in map(target.placed, target.place) if p})
    return target.model_copy(update={"others": {n: _load(n, file, {}, ()) for n in names}})


def _load(
    name: str, file: Path | None, environ: Mapping[str, str] | None, sets: Iterable[str]
) -> Target:
    name, merged = settings(name, file=file, environ=environ, sets=sets)
    where = f"{file or FILE} [targets.{printable(name)}]"
    base = file.absolute().parent if file else Path.cwd()
    known = [k for k in Target.model_fields if k not in ("name", "base", "file", "others")]
    for key in merged.values:
        if key not in known:
            place = merged.origin(key) or where
            raise TargetError(f"{place}: {printable(key)}: unknown key{suggest(key, known)}")
    try:
        return Target.model_validate({**merged.values, "name": name, "base": base, "file": file})
    except ValidationError as error:
        raise TargetError(explain(error, where, known, merged.origin)) from error
