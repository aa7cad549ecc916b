"""Writes the known deviations of the stand-ins into the page that tells them.

    python -m portaflow_conformance.emulators.deviations docs/local-clouds.md

Each stand-in's package lists its own as `DEVIATIONS`. Each has a `key`, and somewhere in the tests
of the stand-ins a function `test_deviation_<key>` that fails when the deviation has disappeared:

    Deviation("S3", "lists keys in the order of their bytes", "a directory tree", key="s3_order")

    def test_deviation_s3_order(...) -> None:
        ...  # asserts what is told as `here`

`conformance/tests/emulators/test_deviations.py` fails for an entry without a test, and for a test
without an entry.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from .clouds import EMULATORS
from .place import Deviation

HEADING = "## Known deviations\n"


def rewritten(page: str) -> str:
    """The page with its last section made anew."""
    above, heading, _ = page.partition(HEADING)
    if not heading:
        raise ValueError(f"the page has no {HEADING.strip()!r}")
    tables = (_table(name, found) for name in EMULATORS if (found := deviations(name)))
    return above + heading + "".join(tables)


def deviations(name: str) -> tuple[Deviation, ...]:
    module = importlib.import_module(EMULATORS[name].partition(":")[0])
    found: tuple[Deviation, ...] = module.DEVIATIONS
    return found


def _table(name: str, found: Iterable[Deviation]) -> str:
    return "".join(_lines(name, found))


def _lines(name: str, found: Iterable[Deviation]) -> Iterator[str]:
    yield f"\n### {name}\n\n| | the cloud | here |\n|---|---|---|\n"
    for one in found:
        cells = (text.replace("|", r"\|") for text in (one.area, one.cloud, one.here))
        yield f"| {' | '.join(cells)} |\n"


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        file.write_text(rewritten(file.read_text("utf-8")), "utf-8")
