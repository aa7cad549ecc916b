"""Each fault on each single call of each driver, one run for each: half an hour of them.

    python tests/clouds_faults/wide.py [TARGET ...]

Prints a line for each run, and ends with 1 when one of them did not end well, made a thing twice
or left something.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.clouds_faults.field import TARGETS, Field, opened

EFFECTS: tuple[dict[str, Any], ...] = (
    {"effect": "throttle", "times": 2},
    {"effect": "error", "status": 503, "times": 2},
    {"effect": "latency", "seconds": 1.0},
    {"effect": "reset-before"},
    {"effect": "reset-after"},
    {"effect": "reset-before", "skip": 1},
    {"effect": "reset-after", "skip": 1},
    {"effect": "hide", "seconds": 2.0},
)


def wrongs(field: Field, target: str, operation: str, fault: dict[str, Any]) -> Iterator[str]:
    """What was not as if there had been no fault."""
    before = Counter(field.audit(target)["made"])
    field.fault(operation=operation, **fault)
    done = field.run(target)
    made = Counter(field.audit_again(target)["made"]) - before
    if done.code:
        yield done.text.partition("error: ")[2].strip()[:300] or f"code {done.code}"
    if twice := [name for name, count in made.items() if count > 1]:
        yield f"made twice: {twice}"
    try:
        field.nothing_left(target)
    except AssertionError as error:
        yield f"left: {error}"


def main() -> int:
    bad = 0
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as field:
        for target in sys.argv[1:] or TARGETS:
            for operation in field.operations(target):
                for fault in EFFECTS:
                    found = list(wrongs(field, target, operation, fault))
                    bad += bool(found)
                    words = " ".join(f"{k}={v}" for k, v in fault.items())
                    told = "; ".join(found) or "as if nothing had been"
                    print(f"{target} {operation} {words}: {told}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
