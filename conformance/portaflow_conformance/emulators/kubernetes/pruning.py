"""Fields that the API does not know, and values of a wrong type: dropped, told or refused."""

from __future__ import annotations

from typing import Any

from . import fields
from .fields import Field, Message
from .problems import Json, bad_request

_TYPES: dict[str, tuple[type, str]] = {
    "string": (str, "string"), "bytes": (str, "[]uint8"), "bool": (bool, "bool"),
    "int32": (int, "int32"), "int64": (int, "int64"),
}  # fmt: skip
_WORDS: dict[type, str] = {str: "string", bool: "bool", int: "number", float: "number",
                           list: "array", dict: "object"}  # fmt: skip


def pruned(kind: str, body: Json, validation: str) -> tuple[Json, list[str]]:
    """Return the object with known fields alone, and what is to be told of the others.

    `validation` is the request's fieldValidation: Strict refuses them, Warn tells, Ignore drops.
    """
    if validation not in ("", "Strict", "Warn", "Ignore"):
        raise bad_request(
            f'fieldValidation: Unsupported value: "{validation}": supported values: "", "Ignore", '
            '"Strict", "Warn"'
        )
    declared = fields.message(kind)
    if declared is None:
        return body, []
    unknown: list[str] = []
    known: Json = _message(declared, body, "", unknown, skip=("kind", "apiVersion"))
    told = [f'unknown field "{path}"' for path in unknown]
    if told and validation == "Strict":
        raise bad_request(
            f'{kind} in version "{str(body.get("apiVersion", "v1")).rpartition("/")[2]}" cannot be '
            f"handled as a {kind}: strict decoding error: {', '.join(told)}"
        )
    return known, told if validation != "Ignore" else []


def _message(
    declared: Message, value: Any, at: str, unknown: list[str], skip: tuple[str, ...] = ()
) -> Any:
    if not isinstance(value, dict):
        raise _mistyped(value, at, declared.name)
    result: Json = {}
    for name, inner in value.items():
        path = f"{at}.{name}" if at else name
        field = declared.fields.get(name)
        if name in skip:
            result[name] = inner
        elif field is None:
            unknown.append(path)
        else:
            result[name] = _field(field, inner, path, unknown)
    return result


def _field(field: Field, value: Any, at: str, unknown: list[str]) -> Any:
    if value is None:
        return None
    if field.form == "[]":
        if not isinstance(value, list):
            raise _mistyped(value, at, f"[]{field.type}")
        return [_one(field, v, f"{at}[{i}]", unknown) for i, v in enumerate(value)]
    if field.form == "{}":
        if not isinstance(value, dict):
            raise _mistyped(value, at, f"map[string]{field.type}")
        return {k: _one(field, v, f"{at}.{k}", unknown) for k, v in value.items()}
    return _one(field, value, at, unknown)


def _one(field: Field, value: Any, at: str, unknown: list[str]) -> Any:
    if value is None or field.type in fields.OPAQUE:
        return value
    if field.type in _TYPES:
        wanted, word = _TYPES[field.type]
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            raise _mistyped(value, at, word)
        return value
    declared = fields.message(field.type)
    return value if declared is None else _message(declared, value, at, unknown)


def _mistyped(value: Any, at: str, wanted: str) -> Exception:
    return bad_request(
        f"json: cannot unmarshal {_WORDS.get(type(value), 'null')} into Go struct field {at} of "
        f"type {wanted}"
    )
