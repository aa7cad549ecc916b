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

from .cases import SIDES, Outcome, Side, late, pipeline, tried
from .place import CLOUDS, Place, place
from .points import points


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.clouds_kill", description=__doc__)
    parser.add_argument("target", choices=list(CLOUDS))
    parser.add_argument("--jobs", type=int, default=2, help="runs at once [2]")
    parser.add_argument("--spark", action="store_true", help="run Spark [a program of Python]")
    parser.add_argument("--only", default="", help="calls that match, such as 'emr|jobs.create'")
    parser.add_argument("--side", action="append", choices=SIDES, help="[all]")
    parser.add_argument("--json", action="store_true", help="print each outcome as JSON")
    words = parser.parse_args()
    began = time.monotonic()
    with place(words.target, with_spark=words.spark) as here:
        cases = list(_cases(here, words.only, words.side or SIDES))
        outcomes = _done(cases, words.jobs)
    bad = [one for one in outcomes if not one.good]
    if words.json:
        print(json.dumps([dataclasses.asdict(one) for one in outcomes], indent=1))
    else:
        _table(words.target, outcomes, time.monotonic() - began)
    return 1 if any(one.problems for one in bad) or not outcomes else 0


def _cases(here: Place, only: str, sides: tuple[Side, ...]) -> Iterator[Callable[[], Outcome]]:
    case = here.case("first")
    engine = here.run(case, pipeline(here))
    if engine.code() != 0:
        sys.exit(f"a run that nothing happens to does not end well: {case.told()}")
    found = [p for p in points(case, here.calls(case)) if re.search(only, str(p))]
    print(f"{here.target}: {len(found)} calls", *found, sep="\n  ", file=sys.stderr)
    number = 0
    for reads, side in product((False, True), sides):  # what changes something comes first
        for point in found:
            if point.reads is reads and (point.creates or side != "hidden"):
                number += 1
                yield partial(tried, here, [point], side, f"case-{number:04}-")
    if not only:
        yield partial(late, here, "case-late-")


def _done(cases: list[Callable[[], Outcome]], jobs: int) -> list[Outcome]:
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
