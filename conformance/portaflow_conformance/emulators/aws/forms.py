"""Answers of the services of AWS that are asked by forms and speak XML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape

SPACES = {
    "ec2": "http://ec2.amazonaws.com/doc/2016-11-15/",
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}


def answer(service: str, operation: str, told: Mapping[str, Any]) -> bytes:
    if service == "ec2":  # which has a form of its own
        body = _xml(told, "item")
    else:
        body = f"<{operation}Result>{_xml(told, 'member')}</{operation}Result>"
    return f'<{operation}Response xmlns="{SPACES[service]}">{body}</{operation}Response>'.encode()


def error(service: str, code: str, message: str) -> bytes:
    body = f"<Code>{code}</Code><Message>{escape(message)}</Message>"
    if service == "ec2":
        return f"<Response><Errors><Error>{body}</Error></Errors></Response>".encode()
    return f"<ErrorResponse><Error><Type>Sender</Type>{body}</Error></ErrorResponse>".encode()


def _xml(told: Any, each: str) -> str:
    if isinstance(told, Mapping):
        return "".join(f"<{name}>{_xml(value, each)}</{name}>" for name, value in told.items())
    if isinstance(told, list):
        return "".join(f"<{each}>{_xml(one, each)}</{each}>" for one in told)
    return escape(told)
