"""The fields of all objects: names, numbers and types, as the API of Kubernetes declares them.

`fields.txt` is read from the generated.proto files of k8s.io/api and k8s.io/apimachinery 0.33.0. A
message is a line without indentation, "atomic" when it has one owner as a whole; each field a line
with its name ("-" when its fields stand in the message itself), its number, its type ("[]" for a
list, "{}" for a map of strings to it), and what the list's items are told apart by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Types that JSON writes in a way of their own, and that are not looked into.
OPAQUE = ("Time", "MicroTime", "Quantity", "IntOrString", "FieldsV1", "RawExtension", "Duration")


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    number: int
    type: str
    form: str = ""  # "[]" or "{}"
    keys: tuple[str, ...] = ()  # of a list whose items are objects with an identity
    is_set: bool = False  # a list of plain values in which each is there once
    atomic: bool = False  # one value as a whole, whoever changes a part


@dataclass(frozen=True, slots=True)
class Message:
    name: str
    fields: dict[str, Field]  # by name; those of inlined messages too
    declared: tuple[Field, ...]  # as on the wire
    atomic: bool = False


@cache
def message(name: str) -> Message | None:
    """What an object of a kind, or a part of one, may have; None for a type without fields."""
    if (lines := _declarations().get(name)) is None:
        return None
    declared = tuple(_field(line) for line in lines[1:])
    return Message(name, dict(_named(declared)), declared, lines[0].endswith(" atomic"))


def _named(declared: tuple[Field, ...]) -> Iterator[tuple[str, Field]]:
    for field in declared:
        if field.name != "-":
            yield field.name, field
        elif (inner := message(field.type)) is not None:
            yield from inner.fields.items()


def _field(line: str) -> Field:
    name, number, type_, *rest = line.split()
    form = type_[:2] if type_[:2] in ("[]", "{}") else ""
    how = rest[0] if rest else ""
    keys = tuple(how.split(",")) if how not in ("", "set", "atomic") else ()
    return Field(name, int(number), type_[len(form) :], form, keys, how == "set", how == "atomic")


@cache
def _declarations() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in Path(__file__).with_suffix(".txt").read_text("utf-8").splitlines():
        if not line.startswith(" "):
            lines = found[line.split()[0]] = []
        lines.append(line)
    return found
