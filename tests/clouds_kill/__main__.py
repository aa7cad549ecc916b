"""Kills a client at every call it makes to a cloud: python -m tests.clouds_kill aws

First runs once and takes down the calls. Then, for each of them, a run whose engine is killed
before the call is applied, one after it was applied and before it was answered, and one that
lost the answer; for what makes something, also one killed then whose thing is listed 5 s late.
`portaflow resume` goes on with each. What the cloud's own log and lists say must be: one
cluster, one of each job, each ran once, nothing alive, no lease. The exit code is 1 otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from itertools import product
from typing import get_args

from .cases import SIDES, Outcome, Side, late, tried
from .place import CLOUDS, Place, What, place
from .points import Point, points

Try = Callable[[], Outcome]


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.clouds_kill", description=__doc__)
    parser.add_argument("target", choices=list(CLOUDS))
    parser.add_argument(
        "--chain", action="store_true", help="kill the engines of one run one after the other"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at once [2]")
    parser.add_argument(
        "--what", choices=get_args(What), default="programs",
        help="run programs of Python for Spark's jobs, real jobs of Spark, or the demo [programs]",
    )  # fmt: skip
    parser.add_argument("--only", default="", help="calls that match, such as 'emr|jobs.create'")
    parser.add_argument("--side", action="append", choices=SIDES, help="[all]")
    parser.add_argument("--json", action="store_true", help="print each outcome as JSON")
    words = parser.parse_args()
    began = time.monotonic()
    sides = tuple(words.side or SIDES)
    with place(words.target, words.what) as here:
        found = _recorded(here, words.only)
        cases = list((_chained if words.chain else _each)(here, found, sides))
        outcomes = _done(cases, words.jobs)
    bad = [one for one in outcomes if not one.good]
    if words.json:
        print(json.dumps([dataclasses.asdict(one) for one in outcomes], indent=1))
    else:
        _table(words.target, outcomes, time.monotonic() - began)
    return 1 if any(one.problems for one in bad) or not outcomes else 0


def _recorded(here: Place, only: str) -> list[Point]:
    """The calls of a run that nothing happens to."""
    case = here.case("first")
    if here.run(case).code() != 0:
        sys.exit(f"a run that nothing happens to does not end well: {case.told()}")
    found = [p for p in points(case, here.calls(case)) if re.search(only, str(p))]
    print(f"{here.target}: {len(found)} calls", *found, sep="\n  ", file=sys.stderr)
    return found


def _each(here: Place, found: list[Point], sides: tuple[Side, ...]) -> Iterator[Try]:
    """A run for each call; first for those that make or end something, last for those that read."""
    ordered = sorted(found, key=lambda point: not point.marks)
    for number, (reads, side, point) in enumerate(product((False, True), sides, ordered)):
        if point.reads is reads and (point.creates or side != "hidden"):
            yield partial(tried, here, [point], side, f"case-{number:04}-")
    if sides == SIDES:
        yield partial(late, here, "case-late-")


def _chained(here: Place, found: list[Point], sides: tuple[Side, ...]) -> Iterator[Try]:
    """A run for each side, whose engines are killed one after the other."""
    for side in sides:
        chain = [p for p in found if p.marks and (p.creates or side != "hidden")]
        yield partial(tried, here, chain, side, f"case-{side}-")
    if sides == SIDES:
        yield partial(late, here, "case-late-")


def _done(cases: list[Try], jobs: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(jobs) as threads:
        for future in as_completed([threads.submit(case) for case in cases]):
            one = future.result()
            outcomes.append(one)
            word = "good" if one.good else "not reached" if not one.problems else "BAD"
            where = f"{len(outcomes)}/{len(cases)} {one.seconds:5.1f} s"
            print(f"{where} {word}: {one.side} {one.point}", file=sys.stderr)
            for line in (*one.problems, *([one.told] if one.told else [])):
                print(f"    {line}", file=sys.stderr)
    return outcomes


def _table(target: str, outcomes: list[Outcome], seconds: float) -> None:
    print(f"| {target} | calls | good | bad | not reached |\n|---|---|---|---|---|")
    for side in dict.fromkeys(one.side for one in outcomes):
        mine = Counter(
            "bad" if one.problems else "good" if one.reached else "not reached"
            for one in outcomes
            if one.side == side
        )
        numbers = (mine.total(), mine["good"], mine["bad"], mine["not reached"])
        print(f"| {side} | {' | '.join(map(str, numbers))} |")
    for one in (one for one in outcomes if one.problems):
        print(f"BAD: {one.side} {one.point}: {'; '.join(one.problems)}")
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
