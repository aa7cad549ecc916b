"""Server-side apply: who owns which field of an object, and what an apply makes of both.

A field is a path as `fieldsV1` writes it: ("f:spec", "f:containers", 'k:{"name":"c"}', "f:image").
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import fields
from .fields import Field, Message
from .problems import Json, Problem

Path = tuple[str, ...]

_APPLY, _UPDATE = "Apply", "Update"
_NOBODYS = ("f:kind", "f:apiVersion")
_NOBODYS_META = [
    ("f:metadata", f"f:{name}") for name in (
        "name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation",
        "managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds",
    )
]  # fmt: skip
_MISSING = object()
_KUBECTL = "kubectl"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True, slots=True)
class Owner:
    """Who changes an object, and when. `sub` is the subresource by which."""

    manager: str
    version: str  # apiVersion in which the fields are told
    now: str
    sub: str = ""


def applied(kind: str, live: Json, wanted: Json, owner: Owner, *, force: bool) -> Json:
    """Return the object that an apply makes, with its managedFields. Raises 409 for a conflict."""
    entries = live["metadata"].get("managedFields") or []
    mine = next((e for e in entries if _is(e, owner, _APPLY)), None)
    others = [e for e in entries if e is not mine]
    before, after = _leaves(kind, live), _leaves(kind, wanted)
    contested: dict[int, list[Path]] = {}
    for number, entry in enumerate(others):
        found = [p for p in _paths(entry) if p in after and before.get(p, after[p]) != after[p]]
        if found:
            contested[number] = sorted(found)
    if owner.manager == _KUBECTL:
        # What kubectl has applied by itself before is its own, whatever name it did it by.
        known = _leaves(kind, _last_applied(live)).keys()
        force = force or all(known >= set(paths) for paths in contested.values())
    if contested and not force:
        raise _conflict([(others[n], paths) for n, paths in contested.items()])
    taken = {path for paths in contested.values() for path in paths}
    others = [_entry(e, _paths(e) - taken) for e in others]
    kept = set().union(*map(_paths, others)) if others else set()
    declared = fields.message(kind)
    assert declared is not None
    merged: Json = _merged(declared, live, wanted)
    lost = (_paths(mine) if mine is not None else set()) - set(after) - kept
    for path in sorted(lost, key=lambda p: (p[-1] != ".", p)):
        _remove(merged, path)
    own = _entry(mine or _new(owner, _APPLY), set(after), owner.now)
    merged["metadata"] = {**merged["metadata"], "managedFields": [*filter(_owns, others), own]}
    return merged


def updated(
    kind: str, old: Json | None, new: Json, entries: list[Json], owner: Owner
) -> list[Json]:
    """The managedFields after anything but an apply: who changes a field owns it."""
    before = _leaves(kind, old) if old is not None else {}
    after = _leaves(kind, new)
    changed = {p for p, v in after.items() if before.get(p, _MISSING) != v}
    moved = changed | (before.keys() - after.keys())
    mine = next((e for e in entries if _is(e, owner, _UPDATE)), None)
    result = [_entry(e, _paths(e) - moved) for e in entries if e is not mine]
    own = (_paths(mine) if mine is not None else set()) - moved | changed
    result.append(_entry(mine or _new(owner, _UPDATE), own, owner.now))
    return list(filter(_owns, result))


def _last_applied(live: Json) -> Json:
    text = (live["metadata"].get("annotations") or {}).get(_LAST_APPLIED, "{}")
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is(entry: Json, owner: Owner, operation: str) -> bool:
    told = (entry.get("manager"), entry.get("operation"), entry.get("subresource") or "")
    return told == (owner.manager, operation, owner.sub)


def _new(owner: Owner, operation: str) -> Json:
    return {
        "manager": owner.manager, "operation": operation, "apiVersion": owner.version,
        "fieldsType": "FieldsV1", "fieldsV1": {},
        **({"subresource": owner.sub} if owner.sub else {}),
    }  # fmt: skip


def _owns(entry: Json) -> bool:
    return bool(entry["fieldsV1"])


def _entry(entry: Json, paths: set[Path], now: str = "") -> Json:
    """An entry with other fields; its time moves when they do."""
    if paths == _paths(entry):
        return entry
    tree: Json = {}
    for path in sorted(paths):
        node = tree
        for part in path:
            node = node.setdefault(part, {})
    return {**entry, "fieldsV1": tree, **({"time": now} if now else {})}


def _paths(entry: Json) -> set[Path]:
    found: set[Path] = set()

    def walk(tree: Mapping[str, Any], at: Path) -> None:
        for part, inner in tree.items():
            if inner:
                walk(inner, (*at, part))
            else:
                found.add((*at, part))

    walk(entry.get("fieldsV1") or {}, ())
    return found


# -- the fields of an object


def _leaves(kind: str, obj: Json) -> dict[Path, Any]:
    declared = fields.message(kind)
    found: dict[Path, Any] = {}
    if declared is not None:
        _collect(declared, obj, (), found)
    return {
        path: value for path, value in found.items()
        if path[0] not in _NOBODYS and path[:2] not in _NOBODYS_META and path != ("f:metadata",)
    }  # fmt: skip


def _collect(declared: Message, obj: Json, at: Path, found: dict[Path, Any]) -> None:
    for name, value in obj.items():
        field, path = declared.fields.get(name), (*at, f"f:{name}")
        if field is None or value is None or field.name == "managedFields":
            continue
        inner = fields.message(field.type)
        if field.form == "{}" and not field.atomic and value:
            found |= {(*path, f"f:{k}"): v for k, v in value.items()}
        elif field.form == "[]" and field.keys and value:
            for item in value:
                where = (*path, _identity(field, item))
                found[(*where, ".")] = True
                if inner is not None:
                    _collect(inner, item, where, found)
        elif field.form == "[]" and field.is_set and value:
            found |= {(*path, f"v:{json.dumps(v)}"): v for v in value}
        elif field.form or field.atomic or inner is None or inner.atomic or not value:
            found[path] = value
        else:
            _collect(inner, value, path, found)


def _identity(field: Field, item: Json) -> str:
    defaults = {"protocol": "TCP"}
    keys = {k: item.get(k, defaults.get(k)) for k in field.keys}
    return f"k:{json.dumps(keys, separators=(',', ':'))}"


def _merged(declared: Message, live: Json, wanted: Json) -> Json:
    result = dict(live)
    for name, value in wanted.items():
        field, old = declared.fields.get(name), live.get(name)
        inner = fields.message(field.type) if field is not None else None
        if field is None or old is None or value is None or field.atomic:
            result[name] = copy.deepcopy(value)
        elif field.form == "{}":
            result[name] = {**old, **value}
        elif field.form == "[]" and field.keys and inner is not None:
            result[name] = _merged_list(field, inner, old, value)
        elif field.form == "[]" and field.is_set:
            result[name] = [*old, *(v for v in value if v not in old)]
        elif field.form or inner is None or inner.atomic:
            result[name] = copy.deepcopy(value)
        else:
            result[name] = _merged(inner, old, value)
    return result


def _merged_list(field: Field, inner: Message, old: list[Json], new: list[Json]) -> list[Json]:
    result = {_identity(field, item): item for item in old}
    for item in new:
        identity = _identity(field, item)
        result[identity] = _merged(inner, result.get(identity, {}), item)
    return list(result.values())


def _remove(obj: Any, path: Path) -> None:
    """Take a field away, as far as it is there; the object is changed along a copied path."""
    for part in path[:-2] if path[-1] == "." else path[:-1]:
        child = _child(obj, part)
        if child is None:
            return
        obj = child
    last = path[-2] if path[-1] == "." else path[-1]
    if last.startswith("f:") and isinstance(obj, dict):
        obj.pop(last[2:], None)
    elif isinstance(obj, list) and (found := _child(obj, last)) is not None:
        obj.remove(found)


def _child(obj: Any, part: str) -> Any:
    """What stands below; made a copy of, so that it can be changed."""
    kind, text = part[:2], part[2:]
    if kind == "f:" and isinstance(obj, dict):
        if isinstance(obj.get(text), dict | list):
            obj[text] = copy.copy(obj[text])
        return obj.get(text)
    if not isinstance(obj, list):
        return None
    keys = json.loads(text)
    for number, item in enumerate(obj):
        if kind == "v:" and item == keys:
            return item
        if kind == "k:" and all(item.get(k, "TCP") == v for k, v in keys.items()):
            obj[number] = copy.copy(item)
            return obj[number]
    return None


def _conflict(found: Iterable[tuple[Json, list[Path]]]) -> Problem:
    causes: list[Json] = []
    texts = []
    for entry, paths in found:
        who = f'"{entry["manager"]}" using {entry["apiVersion"]}'
        shown = [_shown(path) for path in paths]
        causes += [
            {"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": field}
            for field in shown
        ]
        several = f"conflicts with {who}:" + "".join(f"\n- {field}" for field in shown)
        texts.append(f"conflict with {who}: {shown[0]}" if len(shown) == 1 else several)
    number = len(causes)
    words = f"Apply failed with {number} conflict{'s' if number > 1 else ''}: "
    return Problem(409, "Conflict", words + "\n".join(texts), {"causes": causes})


def _shown(path: Path) -> str:
    text = ""
    for part in path:
        if part.startswith("f:"):
            text += f".{part[2:]}"
        elif part.startswith("k:"):
            keys = ",".join(f"{k}={json.dumps(v)}" for k, v in json.loads(part[2:]).items())
            text += f"[{keys}]"
        elif part.startswith("v:"):
            text += f"[={part[2:]}]"
    return text
