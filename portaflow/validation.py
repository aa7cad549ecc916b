"""Turns what pydantic finds wrong into one message: file, field, cause, next step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from .pipeline import suggest

_SHOWN = 5


def explain(error: ValidationError, where: str, known: Iterable[str] = ()) -> str:
    """Say each problem as "where: field: cause". `known` are the keys a typo is held against."""
    problems = error.errors(include_url=False, include_context=False)
    lines = [f"{where}: {_field(p['loc'])}: {_cause(p, known)}" for p in problems[:_SHOWN]]
    if len(problems) > _SHOWN:
        lines.append(f"{where}: and {len(problems) - _SHOWN} more")
    return "\n".join(lines)


def _field(location: tuple[int | str, ...]) -> str:
    path = ""
    for before, part in zip((None, *location), location, strict=False):
        if isinstance(before, int) and part in ("spark", "container", "call"):
            continue  # pydantic's tag of the kind of task, not a key that the user wrote
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path or "(the whole)"


def _cause(problem: Mapping[str, Any], known: Iterable[str]) -> str:
    match problem["type"]:
        case "extra_forbidden" | "unexpected_keyword_argument":
            return f"unknown key{suggest(str(problem['loc'][-1]), known)}"
        case "missing" | "missing_argument":
            return "is missing"
        case _:
            shown = repr(problem["input"])
            shown = shown if len(shown) <= 60 else shown[:57] + "..."
            return f"{problem['msg'].removeprefix('Value error, ')} (got {shown})"
