"""References to images, as a node reads them. Pure."""

from __future__ import annotations

import re

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::\d+)?"
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_TAG, _DIGEST = r":(?P<tag>\w[\w.-]{0,127})", r"@[A-Za-z][\w+.-]*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?P<host>{_HOST}/)?{_PART}(?:/{_PART})*(?:{_TAG})?(?P<digest>{_DIGEST})?", re.ASCII
)


def legal(reference: str) -> bool:
    """Whether a node would look for it at all."""
    return bool(_REFERENCE.fullmatch(reference))


def whole(reference: str) -> str:
    """A legal reference with all that may be left out, as nodes list it."""
    first, slash, rest = reference.partition("/")
    if not slash or (first != "localhost" and first == first.lower() and not {".", ":"} & {*first}):
        first, rest = "docker.io", reference if slash else f"library/{reference}"
    found = _REFERENCE.fullmatch(reference)
    tagged = found and (found["tag"] or found["digest"])
    return f"{first}/{rest}" if tagged else f"{first}/{rest}:latest"
