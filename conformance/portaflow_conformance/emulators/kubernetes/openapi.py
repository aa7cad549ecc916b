"""As much of the OpenAPI documents as kubectl reads: that the server checks fields itself."""

from __future__ import annotations

from .problems import Json
from .resources import RESOURCES, VERSION, Resource

_FIELD_VALIDATION = {
    "name": "fieldValidation",
    "in": "query",
    "description": "what becomes of unknown fields",
    "schema": {"type": "string", "uniqueItems": True},
}


def index() -> Json:
    """The document at /openapi/v3: where that of each group is."""
    paths = {r.api_version: _root(r).strip("/") for r in RESOURCES}
    return {"paths": {p: {"serverRelativeURL": f"/openapi/v3/{p}"} for p in paths.values()}}


def group(path: str) -> Json | None:
    """The document of one group ("api/v1", "apis/batch/v1")."""
    found = [r for r in RESOURCES if _root(r).strip("/") == path]
    if not found:
        return None
    info = {"title": "Kubernetes", "version": VERSION}
    return {"openapi": "3.0.0", "info": info, "paths": dict(map(_path, found))}


def _root(resource: Resource) -> str:
    return f"/apis/{resource.api_version}/" if resource.group else f"/api/{resource.version}/"


def _path(resource: Resource) -> tuple[str, Json]:
    within = "namespaces/{namespace}/" if resource.namespaced else ""
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    operation = {
        "parameters": [_FIELD_VALIDATION],
        "x-kubernetes-group-version-kind": kind,
        "responses": {"200": {"description": "OK"}},
    }
    where = f"{_root(resource)}{within}{resource.plural}/{{name}}"
    return where, {"patch": operation}
