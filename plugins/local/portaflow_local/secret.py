"""Secrets of this machine: a secret's value is in the environment of whoever starts a thing."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence

from portaflow.errors import DeniedError


def variable(name: str) -> str:
    """The environment variable that holds the secret `name`."""
    return f"PORTAFLOW_SECRET_{re.sub(r'[^A-Z0-9]', '_', name.upper())}"


def resolve(names: Mapping[str, str]) -> dict[str, str]:
    """Return variable -> value for variable -> secret's name. Raises DeniedError."""
    missing = [name for name in names.values() if variable(name) not in os.environ]
    if missing:
        raise DeniedError(
            f"secret {missing[0]!r} is not there; set the environment variable "
            f"{variable(missing[0])} where portaflow runs"
        )
    return {key: os.environ[variable(name)] for key, name in names.items()}


def known(names: Mapping[str, str]) -> list[bytes]:
    """The values of those secrets that are known here."""
    values = (os.environ.get(variable(name)) for name in names.values())
    return [os.fsencode(value) for value in values if value]


def without(data: bytes, values: Iterable[bytes]) -> bytes:
    """Return `data` with each value replaced by three stars."""
    return pattern.sub(b"***", data) if (pattern := _pattern(values)) else data


def uncut(data: bytes, values: Sequence[bytes]) -> bytes:
    """Return `data` without an end that may be the beginning of a value.

    Pieces of a log that are cut like this hold every value whole, so none is given away.
    """
    whole = [m.span() for m in pattern.finditer(data)] if (pattern := _pattern(values)) else []
    longest = max(map(len, values), default=0)
    for cut in range(max(len(data) - longest + 1, 0), len(data)):
        if any(value.startswith(data[cut:]) for value in values) and not any(
            start < cut < end for start, end in whole
        ):
            return data[:cut]
    return data


def _pattern(values: Iterable[bytes]) -> re.Pattern[bytes] | None:
    """Any of the values, the longest first, as one may begin another."""
    words = sorted(filter(None, values), key=len, reverse=True)
    return re.compile(b"|".join(map(re.escape, words))) if words else None
