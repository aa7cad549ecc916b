"""Where to do it: a named choice of backends and settings, read from portaflow.toml.

What a setting is comes from, strongest first: `--set`, the environment
(`PORTAFLOW__STORE__ROOT=...`), the target, the targets it extends, the defaults.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, JsonValue, ValidationError, model_validator

from .errors import TargetError
from .pipeline import Model, Name, Source, Variable, suggest
from .validation import explain

FILE = "portaflow.toml"
PREFIX = "PORTAFLOW__"
_BINDINGS = ("store", "compute", "container")
_LARGEST_FILE = 4 * 2**20  # bytes

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


class Target(Model):
    """Bindings, and what a pipeline needs to know of the place.

    `images`: image of a pipeline -> reference, or folder with a Dockerfile. `sources`,
    `params`: take the place of the pipeline's. `tasks`, `clusters`: settings by task id or
    cluster name that take the place of the pipeline's. `max_parallel`: tasks at one time.
    """

    name: Name
    base: Path = Path()
    store: Binding
    compute: Binding | None = None
    container: Binding | None = None
    images: Mapping[str, str] = {}
    sources: Mapping[str, Source] = {}
    params: Mapping[Variable, JsonValue] = {}
    tasks: Mapping[str, Mapping[str, JsonValue]] = {}
    clusters: Mapping[str, Mapping[str, JsonValue]] = {}
    max_parallel: int = Field(16, ge=1, le=10_000)


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
        for key, value in layer.items():
            path = f"{at}{key}"
            if isinstance(value, Mapping) and isinstance(into.setdefault(key, {}), dict):
                self._merge(into[key], value, origin, path + ".")
            else:
                into[key] = value
                self.origins[path] = origin

    def _drop(self, kind: str) -> None:
        del self.values[kind]
        self.origins = {p: o for p, o in self.origins.items() if not p.startswith(kind + ".")}


def find_file(start: Path) -> Path | None:
    """Return the nearest portaflow.toml at or above `start`."""
    start = start.absolute()
    return next((p / FILE for p in (start, *start.parents) if (p / FILE).is_file()), None)


def read_file(path: Path) -> dict[str, Any]:
    """Read a portaflow.toml. Raises TargetError with the line when it cannot be read."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise TargetError(f"{path}: larger than {_LARGEST_FILE} bytes; is it the right file?")
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise TargetError(f"{path}: cannot be read: {error}") from error
    for key in document:
        if key not in ("targets", "default_target"):
            known = ("targets", "default_target")
            raise TargetError(f"{path}: {key}: unknown key{suggest(key, known)}")
    targets = document.get("targets", {})
    if not isinstance(targets, dict) or not all(isinstance(t, dict) for t in targets.values()):
        raise TargetError(f"{path}: targets: must be tables, as in [targets.local]")
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
            raise TargetError(f"--set {text!r}: say it as path=value, as in store.root=/data")
        merged.merge(_nested(path_text.split("."), value, f"--set {text}"), f"--set {path_text}")
    return name, merged


def _chain(
    name: str, targets: Mapping[str, Mapping[str, Any]], file: Path | None
) -> list[tuple[Mapping[str, Any], str]]:
    """The target's own layer, then those it extends; a built-in one is under its namesake."""
    chain: list[tuple[Mapping[str, Any], str]] = []
    seen: list[str] = []
    while name:
        if name in seen:
            raise TargetError(f"{file}: targets extend each other: {' -> '.join([*seen, name])}")
        if name not in targets and name not in BUILT_IN:
            known = {*targets, *BUILT_IN}
            raise TargetError(f"{file or FILE}: there is no target {name!r}{suggest(name, known)}")
        seen.append(name)
        layer = targets.get(name, {})
        chain.append((layer, f"{file} [targets.{name}]"))
        if name in BUILT_IN:
            chain.append((BUILT_IN[name], "default"))
        name = layer.get("extends", "")
        if not isinstance(name, str):
            raise TargetError(f"{file}: targets.{seen[-1]}.extends: must be the name of a target")
    return chain


def _nested(path: list[str], text: str, where: str) -> dict[str, Any]:
    if not all(path):
        raise TargetError(f"{where}: the path of the setting has an empty part")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
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
    """Return the checked target. Raises TargetError that names file and field."""
    name, merged = settings(name, file=file, environ=environ, sets=sets)
    where = f"{file or FILE} [targets.{name}]"
    base = file.absolute().parent if file else Path.cwd()
    known = [k for k in Target.model_fields if k not in ("name", "base")]
    for key in merged.values:
        if key not in known:
            raise TargetError(f"{where}: {key}: unknown key{suggest(key, known)}")
    try:
        return Target.model_validate({**merged.values, "name": name, "base": base})
    except ValidationError as error:
        raise TargetError(explain(error, where, known)) from error
