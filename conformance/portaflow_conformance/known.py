"""Known failures: a TOML file that says which check fails, why, where it is followed, how long.

    [["store.list_2500"]]
    backend = "my-store"          # optional
    reason = "lists at most 1000 keys"
    issue = "https://github.com/me/my-store/issues/7"
    expires = 2027-01-31

A known failure makes the report partial instead of not conformant; it is never a pass.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from portaflow.errors import TargetError


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One entry of the file."""

    id: str
    reason: str
    issue: str
    expires: date
    backend: str = ""

    def matches(self, id: str, backend: str) -> bool:
        return id == self.id and self.backend in ("", backend)

    def __str__(self) -> str:
        return f"{self.id}[{self.backend}]" if self.backend else self.id


def read_known(path: Path) -> list[Known]:
    """Read the file. Raises TargetError that names the entry and the field."""
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TargetError(f"{path}: cannot be read: {error}") from error
    entries: list[Known] = []
    for id, tables in document.items():
        if not isinstance(tables, list) or not all(isinstance(t, dict) for t in tables):
            raise TargetError(f'{path}: {id}: must be tables, as in [["{id}"]]')
        entries += [_entry(path, id, table) for table in tables]
    return entries


def _entry(path: Path, id: str, table: Mapping[str, Any]) -> Known:
    types = {"reason": str, "issue": str, "expires": date, "backend": str}
    for key, value in table.items():
        if key not in types:
            raise TargetError(f"{path}: {id}.{key}: unknown key; known are {', '.join(types)}")
        if type(value) is not types[key]:
            raise TargetError(f"{path}: {id}.{key}: must be a {types[key].__name__}")
    for key in ("reason", "issue", "expires"):
        if not table.get(key):
            raise TargetError(f"{path}: {id}.{key}: is missing")
    return Known(id=id, **table)


def wrong(entries: Iterable[Known], results: Iterable[Any], today: date) -> list[str]:
    """Say which entries do not hold: expired, matching nothing, or of a check that passes."""
    found = list(results)
    problems = []
    for entry in entries:
        mine = [r for r in found if entry.matches(r.id, r.backend)]
        if entry.expires < today:
            problems.append(f"{entry}: expired on {entry.expires}; fix it or decide anew")
        elif not mine:
            problems.append(f"{entry}: no check of this run has that id and backend")
        elif all(r.outcome == "passed" for r in mine):
            problems.append(f"{entry}: passes; remove the entry ({entry.issue})")
    return problems
