"""Why a Spark job failed, told from the end of its log."""

from __future__ import annotations

import re
from collections.abc import Iterable

_TRACEBACK = "Traceback (most recent call last):"
_LOGGED = re.compile(r"[\d/-]{8,10}[ T][\d:.,]{8,}\S* (TRACE|DEBUG|INFO|WARN) ")
_ANY_LOGGED = re.compile(r"[\d/-]{8,10}[ T][\d:.,]{8,}\S* [A-Z]+ ")
_FRAME = re.compile(r"\s+at |\s+\.\.\. \d+ more")
_CLEANING_UP = "Exception ignored"  # told after why it ended, and not why
_MOST = 5  # lines


def why(log: str) -> str:
    """The end of a Python traceback, else the Java exception, else the last lines that
    are not Spark's chatter.
    """
    lines = log.strip().splitlines()
    told = _python(lines) or _java(lines)
    return "\n".join(told or _last(lines))


def _python(lines: list[str]) -> list[str]:
    starts = [
        n
        for n, line in enumerate(lines)
        if line.endswith(_TRACEBACK) and not (n and lines[n - 1].startswith(_CLEANING_UP))
    ]
    if not starts:
        return []
    rest = iter(lines[starts[-1] + 1 :])
    first = next((line for line in rest if line and not line[0].isspace()), None)
    return [] if first is None else [first, *_until_frames(rest)][:_MOST]


def _until_frames(lines: Iterable[str]) -> Iterable[str]:
    for line in lines:
        if not line.strip() or _FRAME.match(line) or _ANY_LOGGED.match(line):
            return
        if line.startswith(_CLEANING_UP):
            return
        yield line


def _java(lines: list[str]) -> list[str]:
    starts = [n for n, line in enumerate(lines) if line.startswith("Exception in thread")]
    if not starts:
        return []
    rest = lines[starts[-1] + 1 :]
    causes = [line for line in rest if line.startswith("Caused by: ")]
    return [lines[starts[-1]], *_until_frames(rest), *causes[-1:]][:_MOST]


def _last(lines: list[str]) -> list[str]:
    told = [line for line in lines if not _LOGGED.match(line) and not _FRAME.match(line)]
    return (told or lines)[-_MOST:]
