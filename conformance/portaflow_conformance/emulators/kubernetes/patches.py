"""The three ways to patch an object: JSON patch, merge patch, strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

from .problems import Json, Problem, bad_request, unsupported_media

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"  # see applying.py

_MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "ephemeralContainers": "name",
    "volumes": "name", "env": "name", "imagePullSecrets": "name", "secrets": "name",
    "volumeMounts": "mountPath", "ports": "containerPort", "conditions": "type",
    "ownerReferences": "uid", "addresses": "type", "hostAliases": "ip",
    "volumeDevices": "devicePath", "topologySpreadConstraints": "topologyKey",
}  # fmt: skip
_SETS = ("finalizers",)  # lists of plain values that a strategic patch adds to


def apply(kind: str, target: Json, patch: Any) -> Json:
    """Return `target` patched; the target is left as it was."""
    if kind == JSON_PATCH:
        if not isinstance(patch, list):
            raise bad_request("json: cannot unmarshal object into Go value of type []jsonpatch.Op")
        patched: Json = _json_patch(copy.deepcopy(target), patch)
        return patched
    if not isinstance(patch, dict):
        raise bad_request("json: cannot unmarshal array into Go value of type map[string]interface")
    if kind == MERGE_PATCH:
        merged: Json = _merge(target, patch)
        return merged
    if kind == STRATEGIC_PATCH:
        return _strategic(target, patch)
    raise unsupported_media(f"{JSON_PATCH}, {MERGE_PATCH}, {STRATEGIC_PATCH}, {APPLY_PATCH}")


def _merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge(result.get(key), value)
    return result


def _strategic(target: Json, patch: Json) -> Json:
    if patch.get("$patch") == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    result = dict(target)
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.partition("/")[2]
            result[name] = [v for v in result.get(name) or [] if v not in value]
        elif key.startswith("$setElementOrder/") or key == "$retainKeys":
            continue  # the order of the patch is kept as it comes
        elif value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            old = result.get(key)
            if value.get("$patch") == "delete":
                result.pop(key, None)
            else:
                result[key] = _strategic(old if isinstance(old, dict) else {}, value)
        elif isinstance(value, list) and key in _MERGE_KEYS and _objects(value):
            result[key] = _strategic_list(result.get(key) or [], value, _MERGE_KEYS[key])
        elif isinstance(value, list) and key in _SETS:
            old = list(result.get(key) or [])
            result[key] = old + [v for v in value if v not in old]
        else:
            result[key] = copy.deepcopy(value)
    return result


def _objects(values: list[Any]) -> bool:
    return all(isinstance(v, dict) for v in values)


def _strategic_list(old: list[Json], patch: list[Json], key: str) -> list[Json]:
    if any(entry.get("$patch") == "replace" for entry in patch):
        return [copy.deepcopy(e) for e in patch if "$patch" not in e]
    result = list(old)
    for entry in patch:
        if key not in entry:
            raise Problem(
                500, "InternalError",
                f"map: {entry} does not contain declared merge key: {key}", {},
            )  # fmt: skip
        at = next((i for i, e in enumerate(result) if e.get(key) == entry[key]), None)
        if entry.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(_strategic({}, entry))
        else:
            result[at] = _strategic(result[at], entry)
    return result


def _json_patch(document: Any, operations: list[Json]) -> Any:
    for operation in operations:
        verb, path = operation.get("op"), _pointer(operation.get("path", ""))
        try:
            if verb == "add":
                document = _put(document, path, operation["value"], insert=True)
            elif verb == "replace":
                _get(document, path)
                document = _put(document, path, operation["value"], insert=False)
            elif verb == "remove":
                _remove(document, path)
            elif verb in ("move", "copy"):
                source = _pointer(operation["from"])
                value = copy.deepcopy(_get(document, source))
                if verb == "move":
                    _remove(document, source)
                document = _put(document, path, value, insert=True)
            elif verb == "test":
                if _get(document, path) != operation.get("value"):
                    raise LookupError(f"testing value {operation['path']} failed: test failed")
            else:
                raise bad_request(f"Unexpected kind: {verb}")
        except (KeyError, IndexError, TypeError, ValueError, LookupError) as error:
            text = f"the server rejected our request due to an error in our request: {error}"
            raise Problem(422, "Invalid", text, {}) from error
    return document


def _pointer(path: str) -> list[str]:
    return [p.replace("~1", "/").replace("~0", "~") for p in path.split("/")[1:]]


def _get(value: Any, path: list[str]) -> Any:
    for part in path:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def _put(document: Any, path: list[str], value: Any, *, insert: bool) -> Any:
    if not path:
        return value
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        if last == "-":
            parent.append(value)
        elif insert:
            parent.insert(int(last), value)
        else:
            parent[int(last)] = value
    else:
        parent[last] = value
    return document


def _remove(document: Any, path: list[str]) -> None:
    parent, last = _get(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        del parent[int(last)]
    else:
        del parent[last]
