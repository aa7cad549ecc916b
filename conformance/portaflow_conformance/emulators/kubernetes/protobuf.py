"""Bodies in protobuf, which kubectl sends for some objects, turned into what JSON says."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from .fields import Field, Message, message
from .problems import Json, bad_request

_MAGIC = b"k8s\0"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def decode(data: bytes) -> Json:
    """The object in an envelope of the API server."""
    try:
        if not data.startswith(_MAGIC):
            raise ValueError("no Kubernetes object")
        envelope = dict(_parts(data[len(_MAGIC) :]))
        about = dict(_parts(envelope[1]))
        kind, version = about.get(2, b"").decode(), about.get(1, b"").decode()
        found = message(kind)
        if found is None:
            raise ValueError(f"no kind {kind!r} is known")
        return {"kind": kind, "apiVersion": version, **_message(found, envelope[2])}
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise bad_request(f"couldn't get version/kind; protobuf error: {error}") from None


def _message(declared: Message, data: bytes) -> Json:
    result: Json = {}
    fields = {f.number: f for f in declared.declared}
    for number, raw in _parts(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.name == "-":
            result |= _value(field, raw)
        elif field.form == "[]":
            result.setdefault(field.name, []).append(_value(field, raw))
        elif field.form == "{}":
            entry = dict(_parts(raw))
            key = entry.get(1, b"").decode()
            result.setdefault(field.name, {})[key] = _value(field, entry.get(2, b""))
        elif not _is_empty(field, value := _value(field, raw)):
            result[field.name] = value
    return result


def _is_empty(field: Field, value: Any) -> bool:
    """Go writes fields that are no pointers though they say nothing; JSON leaves them out.

    A pointer to a zero is written alike: where a zero is a value of its own it is kept.
    """
    if value is None or (value == {} and field.name in ("metadata", "status", "resources")):
        return True
    return value == "" and field.type == "string"


def _value(field: Field, raw: Any) -> Any:
    match field.type:
        case "string":
            return raw.decode()
        case "bytes":
            return base64.b64encode(raw).decode()
        case "bool":
            return bool(raw)
        case "int32" | "int64":
            return raw - 2**64 if raw >= 2**63 else raw
        case "Quantity":
            return dict(_parts(raw)).get(1, b"").decode()
        case "IntOrString":
            parts = dict(_parts(raw))
            return parts.get(3, b"").decode() if parts.get(1) else parts.get(2, 0)
        case "Time" | "MicroTime":
            seconds = dict(_parts(raw)).get(1)
            if seconds is None:
                return None
            return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        case "FieldsV1" | "RawExtension":
            return json.loads(dict(_parts(raw)).get(1) or b"null")
    inner = message(field.type)
    if inner is None:
        raise ValueError(f"{field.name} is of the unknown type {field.type}")
    return _message(inner, raw)


def _parts(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and raw value of each field on the wire."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(data):
            raise ValueError("unexpected EOF")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")
