"""Pages of lists, and the filters that Dataproc's lists take."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from .rpc import invalid

Thing = TypeVar("Thing")

_USUAL, _MOST = 100, 1000  # things on a page
_TERM = re.compile(
    r"""\s*([A-Za-z_][\w.]*(?:\."[^"]*"|\.[\w-]+)*)\s*(=|!=|<=|>=|<|>|:)\s*("[^"]*"|'[^']*'|[^\s"']+)"""
)
_AND = re.compile(r"\s+AND\b|\s+and\b|(?=\s)")


def page(
    found: Iterable[Thing], size: int, token: str, number: Callable[[Thing], int]
) -> tuple[list[Thing], str]:
    """The things of one page in the order of their numbers, and the token of the next page.

    A token tells the number where the page before ended: things that come and go between two
    calls neither break a list nor appear twice. It is "" when this is the last page.
    """
    if size < 0:
        raise invalid(f"Invalid page size: {size}")
    most = min(size or _USUAL, _MOST)
    ordered = sorted(found, key=number)
    if token:
        try:
            last = int(base64.urlsafe_b64decode(token.encode()))
        except ValueError as error:
            raise invalid("Invalid page token.") from error
        ordered = [thing for thing in ordered if number(thing) > last]
    shown = ordered[:most]
    if len(ordered) <= most:
        return shown, ""
    return shown, base64.urlsafe_b64encode(str(number(shown[-1])).encode()).decode()


def terms(text: str) -> list[tuple[str, str, str]]:
    """The terms (field, operator, value) of a filter; all must hold."""
    found: list[tuple[str, str, str]] = []
    at = 0
    text = text.strip()
    while at < len(text):
        term = _TERM.match(text, at)
        if not term:
            raise invalid(f"Invalid filter: {text!r} is not a list of field = value by AND")
        field, operator, value = term.groups()
        found.append((field.replace('"', ""), operator, value.strip("\"'")))
        at = term.end()
        if at < len(text):
            link = _AND.match(text, at)
            if not link or link.end() >= len(text):
                raise invalid(f"Invalid filter: {text!r} goes wrong at {text[at:]!r}")
            at = link.end()
    return found


def matches(
    wanted: Iterable[tuple[str, str, str]],
    fields: Mapping[str, Any],
    labels: Mapping[str, str],
    groups: Mapping[str, Iterable[str]] | None = None,
) -> bool:
    """Whether all terms hold. `groups` are words for several states, such as ACTIVE."""
    for field, operator, value in wanted:
        if field.startswith("labels."):
            held: Any = labels.get(field.removeprefix("labels."))
        elif field in fields:
            held = fields[field]
        else:
            raise invalid(f"Invalid filter: a filter cannot be by {field!r}")
        if not _holds(held, operator, value, (groups or {}).get(value)):
            return False
    return True


def _holds(held: Any, operator: str, value: str, group: Iterable[str] | None) -> bool:
    if isinstance(held, float):  # a time
        try:
            asked = datetime.fromisoformat(value).timestamp()
        except ValueError as error:
            raise invalid(f"Invalid filter: {value!r} is not a time") from error
        order = {
            "<": held < asked, "<=": held <= asked, ">": held > asked, ">=": held >= asked,
            "=": held == asked, "!=": held != asked,
        }  # fmt: skip
        return order.get(operator, False)
    if operator not in ("=", ":", "!="):
        raise invalid(f"Invalid filter: {operator} is for times")
    same = held is not None and (value in ("*", held) or held in (group or ()))
    return same != (operator == "!=")
