"""Secrets of Secrets Manager among the variables of a job on a cluster of EMR.

A step is a command on the cluster's first machine. A program goes before it that asks for each
secret with the rights of the instance profile, and then becomes the command: so a value is in
the memory of that machine alone, and in no word that EMR keeps or tells.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

from portaflow.errors import RejectedError

FAILED = "SecretError: "  # how the program says that a secret cannot be read
_NAME = re.compile(r"arn:[\w-]+:secretsmanager:[\w:/+=.@-]+|[\w/+=.@-]{1,512}", re.ASCII)


def before(secrets: Mapping[str, str]) -> list[str]:
    """The words before a command that has secrets. Raises RejectedError."""
    for name in secrets.values():
        if not _NAME.fullmatch(name):
            raise RejectedError(f"secret {name!r}: say the name or the ARN of a secret of AWS")
    if not secrets:
        return []
    given = (f"{variable}={name}" for variable, name in secrets.items())
    return ["python3", "-I", "-c", _program(), *given, "--"]


@functools.cache
def _program() -> str:
    return Path(__file__).with_name("launcher.py").read_text("utf-8")
