"""The HTTP side of the API server: who asks, faults on order, forms of answers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from ..control import Control, Fault
from ..faults import Reset, abort_transport, awaited
from . import api, asked, openapi, problems, resources, tables, watching
from .access import User
from .api import Answer, Api
from .asked import Asked
from .problems import Json, Problem
from .selectors import matcher
from .store import encode
from .streams import Stream

Ordered = Callable[[Fault, str], None]  # a fault that is about the object with this uid

_MAKES = 4  # objects that are made in one turn of the loop, however many are asked for at once
_BOOKMARKS = 5.0  # seconds; clusters send them about once a minute

logger = logging.getLogger(__name__)


class Server:
    """Answers every request. `streams` serve the subresources log and exec of pods."""

    def __init__(
        self, core: Api, control: Control, streams: dict[str, Stream], ordered: Ordered
    ) -> None:
        self._api = core
        self._control = control
        self._streams = streams
        self._ordered = ordered
        self._gate = asyncio.Semaphore(_MAKES)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except Problem as problem:
            return _refusal(problem)
        except Reset:
            if request.transport is not None:
                abort_transport(request.transport)
            return web.Response()  # nobody gets it
        except Exception as error:
            logger.exception("%s %s", request.method, request.path)
            text = f"Internal error occurred: the stand-in failed: {error!r}"
            return _refusal(Problem(500, "InternalError", text, {}))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in ("/healthz", "/livez", "/readyz"):
            return web.Response(text="ok")
        if request.path == "/version":
            return _json(resources.version())
        try:
            user = self._api.access.authenticate(request.headers.get("Authorization", ""))
        except Problem:
            self._control.note("kubernetes:unauthorized", path=request.path)
            raise
        what = asked.read(request)
        if what is None:
            return self._discovered(request, user)
        self._api.access.authorize(
            user, what.verb, what.resource, what.where, what.name, what.sub
        )  # fmt: skip
        content = None if what.sub in self._streams else await asked.body(request)
        params = api.recorded(what, content)
        if what.sub == "exec":
            params["command"] = request.query.getall("command", [])
        fault = self._control.called(what.operation, user.name, **params)

        async def apply() -> web.StreamResponse:
            return await self._apply(request, what, user, content, fault)

        return await awaited(fault, apply, lambda f: _refusal(_of(f)))

    def _discovered(self, request: web.BaseRequest, user: User) -> web.Response:
        self._control.note("kubernetes:discovery", user.name, path=request.path)
        if request.method not in ("GET", "HEAD"):
            raise problems.method_not_allowed(request.method)
        parts = request.path.strip("/").split("/")
        found: Json | None = None
        match parts:
            case ["api"]:
                found = resources.api_versions()
            case ["apis"]:
                found = resources.api_groups()
            case ["apis", group]:
                if (one := resources.api_group(group)) is not None:
                    found = {"kind": "APIGroup", "apiVersion": "v1", **one}
            case ["api", version]:
                found = resources.api_resources("", version)
            case ["apis", group, version]:
                found = resources.api_resources(group, version)
            case ["openapi", "v3"]:
                found = openapi.index()
            case ["openapi", "v3", *rest]:
                found = openapi.group("/".join(rest))
        if found is None:
            raise problems.no_such_resource()
        return _json(found)

    async def _apply(
        self, request: web.BaseRequest, what: Asked, user: User, content: Any, fault: Fault | None
    ) -> web.StreamResponse:
        if what.sub in self._streams:
            pod = self._api.store.get(what.resource, what.namespace, what.name)
            return await self._streams[what.sub](request, what, pod)
        if what.verb == "watch":
            return await self._watch(request, what, fault)
        if what.verb == "create":
            async with self._gate:
                await asyncio.sleep(0)  # others have their turn
        answer = self._api.answer(what, user, content)
        uid = answer.body.get("metadata", {}).get("uid")
        if fault is not None and uid:
            if fault.effect == "hide":
                self._api.hidden[uid] = self._api.store.clock() + fault.seconds
            elif what.verb == "create":
                self._ordered(fault, uid)
        return self._formed(request, what, answer)

    def _formed(self, request: web.BaseRequest, what: Asked, answer: Answer) -> web.Response:
        headers = CIMultiDict(("Warning", _warning(text)) for text in answer.warnings)
        rows = answer.items if answer.items is not None else [answer.body]
        if _wants_table(request) and what.verb in ("get", "list"):
            meta = answer.body if answer.items is not None else {}
            return _json(self._table(what, rows, meta, columns=True), answer.code, headers)
        if answer.items is None:
            return _json(answer.body, answer.code, headers)
        body = {
            "kind": f"{what.resource.kind}List",
            "apiVersion": what.resource.api_version,
            "metadata": answer.body,
            "items": [{k: v for k, v in o.items() if k not in _TYPE} for o in rows],
        }
        return _json(body, answer.code, headers)

    def _table(self, what: Asked, rows: list[Json], meta: Json, *, columns: bool) -> Json:
        include = what.query.get("includeObject", "Metadata")
        now = self._api.store.clock()
        return tables.table(what.resource, rows, meta, now, include=include, columns=columns)

    async def _watch(
        self, request: web.BaseRequest, what: Asked, fault: Fault | None
    ) -> web.StreamResponse:
        query = what.query
        matches = matcher(
            what.resource, query.get("labelSelector", ""), query.get("fieldSelector", "")
        )
        columns = True

        def shape(obj: Json) -> Json:
            nonlocal columns
            if not _wants_table(request):
                return obj
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            table = self._table(what, [obj], meta, columns=columns)
            columns = False
            return table

        store = self._api.store
        if fault is not None and fault.effect == "expire-watch" and not fault.seconds:
            store.expire()
            text = f"too old resource version: {query.get('resourceVersion')} ({store.version})"
            return await watching.refuse(request, problems.expired(text))
        watch = watching.Watch(store, what.resource, what.namespace, matches, shape)
        watch.bookmarks = _BOOKMARKS if what.flag("allowWatchBookmarks") else 0.0
        if fault is not None and fault.effect == "expire-watch":
            watch.expires = fault.seconds
        version = query.get("resourceVersion", "")
        if version and not version.isdigit():
            text = f'strconv.ParseUint: parsing "{version}": invalid syntax'
            raise problems.bad_request(f'resourceVersion: Invalid value: "{version}": {text}')
        initial = what.flag("sendInitialEvents")
        since = None if initial or version in ("", "0") else int(version)
        try:
            watcher, first = watch.begin(since, initial)
        except Problem as problem:
            if problem.code != 410:
                raise
            return await watching.refuse(request, problem)
        seconds = float(what.number("timeoutSeconds") or 0)
        return await watch.stream(request, watcher, first, seconds)


_TYPE = ("kind", "apiVersion")


def _wants_table(request: web.BaseRequest) -> bool:
    return "as=Table" in request.headers.get("Accept", "").partition(",application/json")[0]


def _warning(text: str) -> str:
    quoted = text.replace("\\", r"\\").replace('"', r"\"")
    return f'299 - "{quoted}"'


def _of(fault: Fault) -> Problem:
    return problems.ordered(429 if fault.effect == "throttle" else fault.status)


def _refusal(problem: Problem) -> web.Response:
    headers = {}
    if problem.details and "retryAfterSeconds" in problem.details:
        headers["Retry-After"] = str(problem.details["retryAfterSeconds"])
    return _json(problem.status(), problem.code, headers)


def _json(body: Json, code: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(
        body=encode(body), status=code, content_type="application/json", headers=headers
    )
