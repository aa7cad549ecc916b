"""Keeps the values of secrets that stand in this environment out of what portaflow writes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

_VARIABLE = "PORTAFLOW_SECRET_"  # and the secret's name


def mask(data: bytes, ended: bool = False) -> tuple[bytes, bytes]:
    """Return what may be shown of `data`, each known value as ***, and the rest of it.

    The rest may be the beginning of a value, and belongs before what follows. There is none
    when the data has `ended`.
    """
    values = {os.fsencode(v) for k, v in os.environ.items() if k.startswith(_VARIABLE) and v}
    if not values:
        return data, b""
    words = sorted(values, key=len, reverse=True)  # one may begin another
    pattern = re.compile(b"|".join(map(re.escape, words)))
    cut = len(data)
    if not ended:
        cut = max(cut - len(words[0]) + 1, 0)  # a value that begins before it is here whole
        for found in pattern.finditer(data):
            if found.start() < cut < found.end():
                cut = found.end()
    return pattern.sub(b"***", data[:cut]), data[cut:]


def masked(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what `pieces` hold with each known value as ***, wherever they were cut."""
    rest = b""
    for piece in pieces:
        shown, rest = mask(rest + piece)
        yield shown
    yield mask(rest, ended=True)[0]
