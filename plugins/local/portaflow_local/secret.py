"""Secrets of this machine: a secret's value is in the environment of whoever starts a thing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

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


def masked(data: bytes, names: Mapping[str, str]) -> bytes:
    """Return `data` with the values of the secrets that are known here replaced."""
    for name in names.values():
        if value := os.environ.get(variable(name)):
            data = data.replace(value.encode(), b"***")
    return data
