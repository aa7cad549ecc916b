"""REST of the services that are spoken to by gRPC, as Google's own front end does it.

Which request is which method's is told by the annotations google.api.http, which Google's
libraries for Python carry in the tables of their REST transports: a service that is served by
gRPC is served here with no word about it. Messages are JSON as protobuf maps it.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import parse_qsl, unquote

from google.protobuf.json_format import (  # type: ignore[import-untyped]
    MessageToDict,
    ParseDict,
    ParseError,
)

from ..faults import Reset
from .rpc import Code, RefusedError, Rpc, invalid
from .wire import Request, Response

_STATUS = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.UNAUTHENTICATED: 401,
}
_LONG_RUNNING = "google.longrunning.Operations"  # a part of each API that has it, by its own host
_VARIABLE = re.compile(r"\{([\w.]+)(?:=([^}]*))?\}|([^{]+)")
_OURS = ("alt", "key", "fields", "prettyPrint", "quotaUser", "callback", "access_token")


@dataclass(frozen=True, slots=True)
class _Route:
    verb: str
    path: re.Pattern[str]
    fields: tuple[str, ...]  # what the groups of the path are
    body: str  # the field that the body is; "*" for the message itself, "" for no body
    service: str
    method: str


class Rest:
    """An application for `HttpServer`. What is asked goes the way that calls of gRPC go."""

    def __init__(self, rpc: Rpc) -> None:
        self._rpc = rpc
        self._routes: dict[str, list[_Route]] = {}
        self._loading = threading.Lock()

    def __call__(self, request: Request) -> Response:
        try:
            return self._answer(request)
        except RefusedError as error:
            return shown(error)

    def _answer(self, request: Request) -> Response:
        route, found = self._route(request)
        service = self._rpc.named(route.service)
        query = parse_qsl(request.search, keep_blank_values=True)
        ints = any(value.endswith("enum-encoding=int") for key, value in query if key == "$alt")
        message: Any = None
        if route.method in service.methods:
            asked, _ = service.methods[route.method]
            message = (asked.pb() if hasattr(asked, "pb") else asked)()
            _fill(message, route, found.groups(), request, query)
        who = self._rpc.principal(request.headers.get("authorization", ""))
        answer = self._rpc.perform(service, route.method, who, message, self._hang)
        return Response.json(MessageToDict(answer, use_integers_for_enums=ints))

    def _hang(self) -> NoReturn:
        self._rpc.closing.wait()
        raise Reset(applied=False)

    def _route(self, request: Request) -> tuple[_Route, re.Match[str]]:
        api = request.host.removesuffix(".googleapis.com").rpartition("-")[2]
        for route in self._of(api):
            if route.verb == request.method and (found := route.path.fullmatch(request.path)):
                return route, found
        text = f"{request.method} {request.path} is no method of {request.host}"
        raise RefusedError(Code.NOT_FOUND, text)

    def _of(self, api: str) -> list[_Route]:
        with self._loading:
            if api not in self._routes:
                names = [n for n in self._rpc.names if n.split(".")[-3] == api]
                found = [route for name in names for route in self._read(name)]
                # "x:stop" is no name of a cluster: what ends in a verb is looked at first.
                self._routes[api] = sorted(found, key=lambda r: ":" not in r.path.pattern)
            return self._routes[api]

    def _read(self, name: str) -> list[_Route]:
        """The routes of a service, "google.cloud.dataproc.v1.JobController"."""
        *_, api, version, short = name.split(".")
        folder = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", short).lower()
        place = f"google.cloud.{api}_{version}.services.{folder}.transports.rest_base"
        tables = vars(getattr(importlib.import_module(place), f"_Base{short}RestTransport"))
        own = self._rpc.named(name).methods
        shared = self._rpc.named(_LONG_RUNNING).methods if api == "dataproc" else {}
        routes = []
        for title, table in tables.items():
            if not hasattr(table, "_get_http_options"):
                continue
            method = title.removeprefix("_Base")
            service = _LONG_RUNNING if method in shared and method not in own else name
            for option in table._get_http_options():
                path, fields = _pattern(option["uri"])
                verb, body = option["method"].upper(), option.get("body", "")
                routes.append(_Route(verb, path, fields, body, service, method))
        return routes


def shown(error: RefusedError) -> Response:
    """An error as Google's APIs write it in JSON."""
    status = _STATUS.get(error.code, 500)
    told = {"code": status, "message": error.message, "status": error.code.name}
    return Response.json({"error": told}, status)


def _pattern(template: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """ "/v1/{name=projects/*/secrets/*}:access" as an expression, and what its groups are."""
    fields, text = [], ""
    for found in _VARIABLE.finditer(template):
        field, inner, plain = found.groups()
        if not field:
            text += re.escape(plain)
            continue
        fields.append(field)
        parts = re.split(r"(\*\*|\*)", inner or "*")
        wild = {"*": "[^/]+", "**": ".+"}
        text += f"({''.join(wild.get(part, re.escape(part)) for part in parts)})"
    return re.compile(text), tuple(fields)


def _fill(
    message: Any, route: _Route, values: tuple[str, ...], request: Request,
    query: list[tuple[str, str]],
) -> None:  # fmt: skip
    """Make a message of the body, the path and the query. Raises RefusedError."""
    try:
        body = request.json()
        if body and not route.body:
            raise invalid("This method takes no body.")
        ParseDict(body if route.body in ("*", "") else {route.body: body}, message)
        for key, value in query:
            if not key.startswith("$") and key not in _OURS:
                ParseDict(_nested(key, value, message), message)
        for field, value in zip(route.fields, values, strict=True):
            ParseDict(_nested(field, unquote(value), message), message)
    except (ParseError, ValueError) as error:
        raise invalid(f"Invalid value in the request: {error}") from error


def _nested(path: str, value: str, message: Any) -> Mapping[str, Any]:
    """ "a.b" and its value as JSON; a message's fields have their name or that of JSON."""
    descriptor = message.DESCRIPTOR
    told: dict[str, Any] = {}
    at = told
    names = path.split(".")
    for name in names:
        field = next((f for f in descriptor.fields if name in (f.name, f.json_name)), None)
        if field is None:
            raise invalid(f'Unknown name "{path}": it cannot be bound to a field.')
        if name is not names[-1]:
            at[name] = at = {}
            descriptor = field.message_type or message.DESCRIPTOR
            continue
        one: Any = value == "true" if field.type == field.TYPE_BOOL else value
        at[name] = [one] if field.is_repeated else one
    return told
