"""Turns what pydantic finds wrong into one message: file, field, cause, next step."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from .pipeline import suggest

_SHOWN = 5
_LONGEST = 60  # characters of a key or a value of the user's


def explain(
    error: ValidationError,
    where: str,
    known: Iterable[str] = (),
    origin: Callable[[str], str] = lambda field: "",
) -> str:
    """Say each problem as "where: field: cause". `known` are the keys a typo is held against;
    `origin(field)` says where a value came from, if not from `where`.
    """
    problems = error.errors(include_url=False, include_context=False)
    lines = []
    for problem in problems[:_SHOWN]:
        field = _field(problem["loc"])
        lines.append(f"{origin(field) or where}: {field}: {_cause(problem, known)}")
    if len(problems) > _SHOWN:
        lines.append(f"{where}: and {len(problems) - _SHOWN} more")
    return "\n".join(lines)


def _field(location: tuple[int | str, ...]) -> str:
    path = ""
    for before, part in zip((None, *location), location, strict=False):
        if isinstance(before, int) and part in ("spark", "container", "call"):
            continue  # pydantic's tag of the kind of task, not a key that the user wrote
        text = part if isinstance(part, int) else printable(part)
        path += f"[{text}]" if isinstance(part, int) else f".{text}" if path else str(text)
    return path or "(the whole)"


def printable(text: str) -> str:
    """A key as a terminal may see it: short, and without control characters."""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return text if text.isprintable() else repr(text)[1:-1]


def _cause(problem: Mapping[str, Any], known: Iterable[str]) -> str:
    match problem["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"unknown key{suggest(str(problem['loc'][-1]), known)}"
        case "missing" | "missing_argument":
            return "is missing"
        case _:
            shown = reprlib.repr(problem["input"])  # bounded, however long or deep it is
            shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 3] + "..."
            return f"{problem['msg'].removeprefix('Value error, ')} (got {shown})"
