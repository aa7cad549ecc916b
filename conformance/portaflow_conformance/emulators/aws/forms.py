"""Answers of the services of AWS that are asked by forms and speak XML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

SPACES = {
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}


def answer(service: str, operation: str, told: Mapping[str, Any]) -> bytes:
    body = f"<{operation}Result>{_xml(told)}</{operation}Result>"
    return f'<{operation}Response xmlns="{SPACES[service]}">{body}</{operation}Response>'.encode()


def error(code: str, message: str) -> bytes:
    body = f"<Type>Sender</Type><Code>{code}</Code><Message>{escape(message)}</Message>"
    return f"<ErrorResponse><Error>{body}</Error></ErrorResponse>".encode()


def _xml(told: Any) -> str:
    if isinstance(told, Mapping):
        return "".join(f"<{name}>{_xml(value)}</{name}>" for name, value in told.items())
    if isinstance(told, list):
        return "".join(f"<member>{_xml(one)}</member>" for one in told)
    return escape(told)
