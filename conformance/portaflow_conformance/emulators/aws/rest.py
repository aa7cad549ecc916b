"""Services of AWS that speak JSON by REST, and are ours rather than moto's."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import parse_qs, unquote

from ..control import Fault

if TYPE_CHECKING:
    from .keys import Holder

ACCOUNT = "123456789012"  # moto's
_Thing = TypeVar("_Thing")


class RefusedError(Exception):
    """An error of the service: its HTTP status, its code, and what it says."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def invalid(message: str) -> RefusedError:
    return RefusedError(400, "ValidationException", message)


@dataclass(frozen=True, slots=True)
class Asked:
    """A call as its service needs it. `path` holds what the URL names, `holder` has signed it."""

    region: str
    principal: str
    path: Mapping[str, str]
    query: Mapping[str, Sequence[str]]
    body: Mapping[str, Any]
    fault: Fault | None = None
    holder: Holder | None = None

    def __getitem__(self, name: str) -> str:
        return self.path[name]

    def one(self, name: str) -> str:
        return self.query.get(name, [""])[-1]


@dataclass(slots=True)
class Tokens:
    """Client tokens: a call that comes again has the answer of the first, and no effect."""

    _known: dict[tuple[str, ...], tuple[str, Any]] = field(default_factory=dict)

    def once(self, asked: Asked, *scope: str, make: Callable[[], Any]) -> Any:
        """`make`'s answer. Raises RefusedError when a token comes with other parameters."""
        token = asked.body.get("clientToken")
        if not token:
            raise invalid("clientToken must not be null or empty.")
        key = (asked.region, *scope, str(token))
        said = json.dumps(asked.body, sort_keys=True)
        before = self._known.get(key)
        if before is None:
            before = self._known[key] = (said, make())
        elif before[0] != said:
            why = f"clientToken {token} was used before with other parameters."
            raise RefusedError(409, "ConflictException", why)
        return before[1]


class Service:
    """`calls` are the operations that are there, by their names."""

    calls: ClassVar[Mapping[str, Callable[[Any, Asked], dict[str, Any]]]]

    def do(self, operation: str, asked: Asked) -> dict[str, Any]:
        call = self.calls.get(operation)
        if call is None:
            raise RefusedError(501, "NotImplemented", f"{operation} is not in the local AWS")
        return call(self, asked)

    def stop(self) -> None:
        """End what still runs."""


def page(things: Sequence[_Thing], asked: Asked, most: int = 50) -> tuple[list[_Thing], str | None]:
    """A page of a listing and the token of the next."""
    try:
        size = int(asked.one("maxResults") or most)
        found = cut(things, size, asked.one("nextToken"))
    except ValueError:
        raise invalid("nextToken or maxResults is not valid.") from None
    if not 1 <= size <= most:
        raise invalid(f"maxResults must be from 1 to {most}.")
    return found


def cut(things: Sequence[_Thing], size: int, token: str) -> tuple[list[_Thing], str | None]:
    """`size` of the things from where a token says, and the next token. Raises ValueError."""
    start = int(base64.b64decode(token or "MA==", validate=True))
    end = start + size
    following = base64.b64encode(str(end).encode()).decode() if end < len(things) else None
    return list(things[start:end]), following


def timestamp(text: str) -> float:
    """A time of a query, in seconds since the epoch."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise invalid(f"'{text}' is no time.") from None


def named(service: str, method: str, path: str, query: str) -> tuple[str, dict[str, str]]:
    """The operation that a request is, by the service's own model, and what its path names."""
    for verb, pattern, marks, name in _operations(service):
        found = pattern.fullmatch(path) if verb == method else None
        if found and marks <= parse_qs(query, keep_blank_values=True).keys():
            return name, {key: unquote(value) for key, value in found.groupdict().items()}
    return f"{method} {path}", {}


@functools.cache
def _operations(service: str) -> list[tuple[str, re.Pattern[str], frozenset[str], str]]:
    import botocore.session  # type: ignore[import-untyped]

    found = []
    model = botocore.session.get_session().get_service_model(service)
    for name in model.operation_names:
        http = model.operation_model(name).http
        path, _, marks = http["requestUri"].partition("?")
        pattern = "".join(_part(part) for part in re.split(r"(\{[^}]+\})", path))
        keys = frozenset(parse_qs(marks, keep_blank_values=True))
        found.append((http["method"], re.compile(pattern), keys, name))
    return found


def _part(part: str) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    name = part.strip("{}")
    return f"(?P<{name.rstrip('+')}>{'.+' if name.endswith('+') else '[^/]+'})"
