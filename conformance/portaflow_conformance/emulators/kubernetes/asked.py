"""What a request asks for, read from its method, path and query."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from aiohttp import web

from . import problems, protobuf
from .patches import APPLY_PATCH
from .problems import Json
from .resources import BY_PATH, NAMESPACES, Resource

PROTOBUF = "application/vnd.kubernetes.protobuf"
YAML = "application/yaml"

_LARGEST = 3 * 2**20  # bytes of a body
_TRUE = ("1", "t", "true")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a resource. `verb` is the API's word: create, list, watch, ..."""

    verb: str
    resource: Resource
    namespace: str
    name: str
    sub: str
    query: Mapping[str, str]
    agent: str = ""  # the client, as it calls itself
    content_type: str = ""

    @property
    def operation(self) -> str:
        what = f"{self.resource.plural}/{self.sub}" if self.sub else self.resource.plural
        return f"kubernetes:{what}.{self.verb}"

    @property
    def where(self) -> str:
        return self.namespace or ("" if self.resource.namespaced else self.name)

    @property
    def manager(self) -> str:
        """Who owns the fields that the request sets."""
        return self.query.get("fieldManager") or self.agent.partition("/")[0] or "unknown"

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in _TRUE

    def number(self, name: str) -> int | None:
        """A whole number of the query that is not negative; None when it is not given."""
        value = self.query.get(name, "")
        if not value:
            return None
        if not value.isdigit():
            raise problems.bad_request(f'strconv.ParseInt: parsing "{value}": invalid syntax')
        return int(value)


def read(request: web.BaseRequest) -> Asked | None:
    """Return what is asked for; None when the path is not that of a resource."""
    parts = request.path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in NAMESPACES.subresources:
        namespace, rest = rest[1], rest[2:]
    resource = BY_PATH.get((group, version, rest[0]))
    if resource is None or len(rest) > 3:
        raise problems.no_such_resource(f"{'/'.join(filter(None, (group, version)))} {rest[0]}")
    name = rest[1] if len(rest) > 1 else ""
    sub = rest[2] if len(rest) > 2 else ""
    if sub and sub not in resource.subresources:
        raise problems.no_such_resource(f"{resource.plural}/{sub}")
    if namespace and not resource.namespaced:
        raise problems.no_such_resource()
    if resource.namespaced and name and not namespace:
        raise problems.no_such_resource()
    verb = _verb(request, name)
    agent = request.headers.get("User-Agent", "")
    query = dict(request.query)
    return Asked(verb, resource, namespace, name, sub, query, agent, request.content_type)


def _verb(request: web.BaseRequest, name: str) -> str:
    method = request.method
    if method in ("GET", "HEAD"):
        if name:
            return "get"
        return "watch" if request.query.get("watch", "").lower() in _TRUE else "list"
    if method == "DELETE":
        return "delete" if name else "deletecollection"
    words = {"POST": "create", "PUT": "update", "PATCH": "patch"}
    if method not in words or (method != "POST" and not name):
        raise problems.method_not_allowed(method)
    return words[method]


async def body(request: web.BaseRequest) -> Any:
    """The object that came with a request, in JSON, YAML or protobuf; None when nothing came."""
    if (request.content_length or 0) > _LARGEST:
        raise problems.too_large()
    data = bytearray()
    async for chunk in request.content.iter_any():
        data += chunk
        if len(data) > _LARGEST:
            raise problems.too_large()
    if not data:
        return None
    if request.content_type == PROTOBUF:
        return protobuf.decode(bytes(data))
    if "cbor" in request.content_type:
        raise problems.unsupported_media(f"application/json, application/yaml, {PROTOBUF}")
    try:
        if request.content_type in (YAML, APPLY_PATCH):
            return yaml.safe_load(data.decode())
        return json.loads(data)
    except (ValueError, yaml.YAMLError) as error:
        raise problems.bad_request(
            f"couldn't get version/kind; json parse error: {error}"
        ) from None


def an_object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise problems.bad_request("the body of the request must be a JSON object")
    return value
