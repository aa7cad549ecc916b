"""Each fault on each single call of each driver, one run for each.

    python tests/clouds_faults/wide.py [TARGET ...]

Prints a line for each run and one for each target, and ends with 1 when a run did not end well,
made a thing twice or left something. A call of a store is struck in the first target that has the
store; what can make no difference is left out: a second call where there is one, and a thing that
is listed late where none is made.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
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
_STORE = ("aws:s3.", "gcp:storage.")
_MAKES = re.compile(r".*\.(Run|Add|Start|Submit|Create|create|Put|Copy|Complete|insert|compose)")


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


def faults(field: Field, target: str, struck: set[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is to strike a target: operations of stores that are in `struck` have had it."""
    for operation, calls in field.calls(target).items():
        if operation.startswith(_STORE) and operation in struck:
            continue
        struck.add(operation)
        for fault in EFFECTS:
            late = fault["effect"] == "hide" and not _MAKES.match(operation)
            if calls > fault.get("skip", 0) and not late:
                yield operation, fault


def main() -> int:
    bad = 0
    struck: set[str] = set()
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as field:
        for target in sys.argv[1:] or TARGETS:
            began, runs, before = time.monotonic(), 0, bad
            for operation, fault in faults(field, target, struck):
                start = time.monotonic()
                found = list(wrongs(field, target, operation, fault))
                runs, bad = runs + 1, bad + bool(found)
                words = " ".join(f"{k}={v}" for k, v in fault.items())
                told = "; ".join(found) or "as if nothing had been"
                took = time.monotonic() - start
                print(f"{target} {operation} {words}: {told} ({took:.1f} s)", flush=True)
            took = time.monotonic() - began
            print(f"{target}: {runs} runs in {took:.0f} s, {bad - before} bad", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
