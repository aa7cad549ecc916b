"""Many runs at once, and whether any has got what belongs to another.

    python -m tests.clouds_together.side_by_side [--boxes 50] [--marks 4] [--processes 5]

starts local clouds and, in so many processes, an engine for each run: `boxes` runs of two
containers on Kubernetes, and `marks` runs of a Spark job and a container on each of EMR and
Dataproc. All engines of a process are threads of it, and all processes run at once. Ends with
1 when something was mixed up, made twice or left.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from portaflow_conformance.emulators.clouds import Clouds, emulate

from .field import Engines, made, nothing_lives

PIPELINES = {"aws": "marks", "gcp": "marks", "kubernetes": "boxes"}


@dataclass(frozen=True)
class Outcome:
    """How many runs there were, what was wrong, and how long all of them took."""

    runs: int
    wrong: list[str]
    seconds: float


def side_by_side(
    clouds: Clouds, looker: Engines, folder: Path, runs: Mapping[str, int], processes: int
) -> Outcome:
    """Do so many runs of each target at once, dealt out to so many processes."""
    before, began = made(clouds), time.monotonic()
    tokens = {
        (target, f"{target}-{number}"): f"token-{uuid4().hex}"
        for target, count in runs.items()
        for number in range(count)
    }
    all_ = [Engines(clouds, folder) for _ in range(processes)]
    try:
        for number, ((target, run), token) in enumerate(tokens.items()):
            engines = all_[number % processes]
            engines.begin("run", target, PIPELINES[target], run, token=token)
        told = [all_[number % processes].told() for number in range(len(tokens))]
    finally:
        for engines in all_:
            engines.kill()
    seconds = time.monotonic() - began
    wrong = [each for one in told for each in _wrong(one, tokens)]
    names = [name for one in told for name in one.get("answer", {}).get("names", ())]
    wrong += _asked(made(clouds), before, names)
    nothing_lives(looker)
    return Outcome(len(told), wrong, seconds)


def _wrong(told: dict[str, Any], tokens: Mapping[tuple[str, str], str]) -> list[str]:
    """What of a run is not its own."""
    run = told["run"]
    if "error" in told:
        return [f"{run}: {told['error']}"]
    answer, token = told["answer"], tokens[told["target"], run]
    strangers = set(tokens.values()) - {token}
    wrong = []
    if not answer["succeeded"] or answer["attempts"] != [1, 1]:
        wrong.append(f"{run}: attempts {answer['attempts']}: {answer['reasons']}")
    if answer["outputs"] != [token] * 2 or answer["results"] != [{"token": token}] * 2:
        wrong.append(f"{run}: another's output or result: {answer['outputs']} {answer['results']}")
    for log in answer["logs"]:
        if f"token {token}\n" not in log or any(other in log for other in strangers):
            wrong.append(f"{run}: its log is not its own: {log[-300:]!r}")
    return wrong


def _asked(after: Counter[str], before: Counter[str], names: list[str]) -> list[str]:
    """What was made more or less often than planned."""
    after.subtract(before)
    planned = Counter(names)
    keys = {key for key, n in after.items() if n} | planned.keys()
    return [f"{k}: made {after[k]} times" for k in sorted(keys) if not after[k] == planned[k] == 1]


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--boxes", type=int, default=50)
    parser.add_argument("--marks", type=int, default=4)
    parser.add_argument("--processes", type=int, default=5)
    given = parser.parse_args(words)
    runs = {"kubernetes": given.boxes, "aws": given.marks, "gcp": given.marks}
    with (
        tempfile.TemporaryDirectory() as folder,
        emulate("aws", "gcp", "kubernetes", pace=0.02, buckets=["portaflow"]) as clouds,
    ):
        looker = Engines(clouds, Path(folder))
        try:
            outcome = side_by_side(clouds, looker, Path(folder), runs, given.processes)
        finally:
            looker.kill()
        calls = Counter(call.operation.partition(":")[0] for call in clouds.control.seen())
    for each in outcome.wrong:
        print(each)
    print(
        f"{outcome.runs} runs, {given.processes} processes: {outcome.seconds:.0f} s, "
        f"{len(outcome.wrong)} mixed up, nothing left; calls {dict(calls)}"
    )
    return 1 if outcome.wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
