"""What a service checks first of all: that a call fits its own model, which is botocore's.

A client in Python checks types and what is required before it sends anything, but neither the
values of enumerations nor patterns and lengths: those an unmodified client learns from AWS.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .rest import RefusedError, invalid

# Java reads two surrogates as one character; Python needs to be told.
_ASTRAL = (r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
_NUMBERS = ("integer", "long", "float", "double")
_TYPES: Mapping[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float, str),
}


def check(service: str, operation: str, body: Mapping[str, Any]) -> None:
    """Raise RefusedError when the body of a call is not what the operation takes."""
    shape = _model(service).operation_model(operation).input_shape
    if shape is None:
        return
    here = {n: s for n, s in shape.members.items() if not s.serialization.get("location")}
    found = list(_members(here, set(shape.required_members) & here.keys(), body, ""))
    if found:
        errors = "error" if len(found) == 1 else "errors"
        raise invalid(f"{len(found)} validation {errors} detected: {'; '.join(found)}")


def enumeration(service: str, shape: str) -> Sequence[str]:
    """The values of an enumeration of the service's model."""
    values: Sequence[str] = _model(service).shape_for(shape).enum
    return values


@functools.cache
def _model(service: str) -> Any:
    import botocore.session  # type: ignore[import-untyped]

    return botocore.session.get_session().get_service_model(service)


def _members(
    members: Mapping[str, Any], required: set[str], value: Mapping[str, Any], path: str
) -> Iterator[str]:
    for name, shape in members.items():
        at = f"{path}.{_lower(name)}" if path else _lower(name)
        if value.get(name) is not None:
            yield from _problems(shape, value[name], at)
        elif name in required:
            yield f"Value null at '{at}' failed to satisfy constraint: Member must not be null"


def _problems(shape: Any, value: Any, at: str) -> Iterator[str]:
    kind = shape.type_name
    wanted: Any = _TYPES.get(kind, (object,))
    if not isinstance(value, wanted) or (kind in _NUMBERS and type(value) is bool):
        why = f"{type(value).__name__} at '{at}' can not be converted to {kind}"
        raise RefusedError(400, "SerializationException", why)
    if kind == "structure":
        yield from _members(shape.members, set(shape.required_members), value, at)
        return
    for rule in _broken(shape, value):
        told = "" if shape.metadata.get("sensitive") else f" '{value}'"
        yield f"Value{told} at '{at}' failed to satisfy constraint: Member must {rule}"
    if kind == "list":
        for number, each in enumerate(value, 1):
            yield from _problems(shape.member, each, f"{at}.{number}.member")
    elif kind == "map":
        for key, each in value.items():
            yield from _problems(shape.value, each, f"{at}.{key}.member")


def _broken(shape: Any, value: Any) -> Iterator[str]:
    limits, kind = shape.metadata, shape.type_name
    numbers = kind in _NUMBERS
    if numbers or kind in ("string", "list", "map"):
        what, size = ("value", value) if numbers else ("length", len(value))
        if size < limits.get("min", size):
            yield f"have {what} greater than or equal to {limits['min']}"
        if size > limits.get("max", size):
            yield f"have {what} less than or equal to {limits['max']}"
    if kind != "string":
        return
    allowed = getattr(shape, "enum", None)
    if allowed and value not in allowed:
        yield f"satisfy enum value set: [{', '.join(allowed)}]"
    pattern = limits.get("pattern")
    if pattern and not re.fullmatch(pattern.replace(*_ASTRAL), value):
        yield f"satisfy regular expression pattern: {pattern}"


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]
