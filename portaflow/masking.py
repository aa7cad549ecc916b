"""Keeps the values of secrets that stand in this environment out of what portaflow writes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator

_VARIABLE = "PORTAFLOW_SECRET_"  # and the secret's name


def masked(pieces: Iterable[bytes], ended: bool = True) -> Iterator[bytes]:
    """Yield what `pieces` hold with each known value as ***, wherever they were cut.

    While it has not `ended`, an end that may be the beginning of a value is held back.
    """
    values = {os.fsencode(v) for k, v in os.environ.items() if k.startswith(_VARIABLE) and v}
    if not values:
        yield from pieces
        return
    words = sorted(values, key=len, reverse=True)  # one may begin another
    pattern, longest = re.compile(b"|".join(map(re.escape, words))), len(words[0])
    rest = b""
    for piece in pieces:
        rest += piece
        cut = max(len(rest) - longest + 1, 0)  # a value that begins before it is here whole
        for found in pattern.finditer(rest):
            if found.start() < cut < found.end():
                cut = found.end()
        yield pattern.sub(b"***", rest[:cut])
        rest = rest[cut:]
    if ended:
        yield pattern.sub(b"***", rest)
