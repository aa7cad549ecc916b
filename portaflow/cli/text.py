"""What fits a terminal: its width, its colours, values of any shape in a few lines."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

_ENTRIES = 5  # of a list or mapping inside a value that does not fit a line


def colours() -> bool | None:
    """Whether to colour: None leaves it to the stream; click colours a terminal's only."""
    return False if os.environ.get("NO_COLOR") else None


def printable(text: str) -> str:
    """`text` without what would move the cursor or ring a bell: logs come from strangers."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def width() -> int:
    """Columns of the terminal; 100 where there is none."""
    return max(shutil.get_terminal_size((100, 24)).columns, 40)


def cut(text: str, room: int) -> str:
    """`text` in one line of at most `room` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= room else line[: max(room - 1, 0)] + "…"


def gist(reason: str, room: int) -> str:
    """A reason in a line: what it says first, and the last line of the log it brings."""
    first, _, tail = reason.strip().partition("\n")
    last = tail.strip().rpartition("\n")[2]
    return cut(f"{first}: {last}" if last else first, room)


def value_lines(value: Any, room: int, depth: int = 1) -> list[str]:
    """A value in lines of at most `room`: a line for each key, and one level below likewise."""
    if isinstance(value, dict) and value:
        pad = min(max(len(str(k)) for k in value), 24)
        pairs = [(f"{cut(str(k), pad):{pad}}  ", v) for k, v in value.items()]
    elif isinstance(value, list) and value:
        pairs = [("", v) for v in value]
    else:
        return [cut(_compact(value), room)]
    if depth < 1 and len(pairs) > _ENTRIES:
        rest = f"… {len(pairs) - _ENTRIES} more"
        pairs = pairs[:_ENTRIES]
    else:
        rest = ""
    lines = []
    for label, inner in pairs:
        text = _compact(inner)
        if depth > 0 and isinstance(inner, dict | list) and len(label) + len(text) > room:
            lines.append(label.rstrip())
            lines += ["  " + line for line in value_lines(inner, room - 2, depth - 1)]
        else:
            lines.append(label + cut(text, room - len(label)))
    return [*lines, rest] if rest else lines


def _compact(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else repr(value)
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_inner(v)}" for k, v in value.items()) or "{}"
    if isinstance(value, list):
        return ", ".join(map(_inner, value)) or "[]"
    return json.dumps(value, ensure_ascii=False)


def _inner(value: Any) -> str:
    text = _compact(value)
    if isinstance(value, dict) and value:
        return f"{{{text}}}"
    return f"[{text}]" if isinstance(value, list) and value else text
