"""One engine that is killed at one call, one that goes on, and what both together have made."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from portaflow_conformance.emulators.control import Call, Effect

from .place import DEMO, PATIENCE, Case, Place, until
from .points import CREATIONS, ENDS, Point, made

Side = Literal["before", "after", "hidden", "lost"]
SIDES: tuple[Side, ...] = get_args(Side)
TASKS = ("features", "train", "recommend")
EFFECTS: dict[Side, Effect] = {
    "before": "reset-before",  # killed, then refused: the call is never applied
    "after": "hold",  # killed when it is applied, and nobody was told
    "hidden": "hide",  # killed; what was made is listed some seconds later
    "lost": "reset-after",  # not killed
}


@dataclass(slots=True)
class Outcome:
    point: str
    side: str
    reached: bool = False
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    told: str = ""

    @property
    def good(self) -> bool:
        return self.reached and not self.problems


def tried(place: Place, points: Sequence[Point], side: Side, name: str) -> Outcome:
    """Kill one engine of a run after another, each at its point, and let a last one go on.

    Where answers get lost, there is one engine, which loses them all.
    """
    outcome, began = Outcome(" + ".join(map(str, points)), side), time.monotonic()
    case = place.case(name)
    if side == "lost":
        faults = [place.control.order(point.fault(EFFECTS[side], case)) for point in points]
        code = place.run(case).code()
        outcome.reached = all(fault.hit for fault in faults)
    else:
        outcome.reached, code = True, None
        for point in points:
            outcome.reached &= killed(place, case, point, side, outcome.problems)
        code = gone_on(place, case)
    outcome.problems += ended(place, case, code)
    outcome.seconds = time.monotonic() - began
    outcome.told = case.told() if outcome.problems else ""
    return outcome


def killed(place: Place, case: Case, point: Point, side: Side, problems: list[str]) -> bool:
    """Whether the next engine of a run was killed at a call: it may end without making it."""
    fault = place.control.order(point.fault(EFFECTS[side], case))
    with dying(place, case, fault.effect):
        engine = place.resume(case) if case.started else place.run(case)
        if side == "after":
            until(lambda: fault.held or engine.over(), PATIENCE)
            if fault.held:
                engine.kill()
            fault.held = False
        code = engine.code()
    fault.times = 0  # what it has not struck is another engine's
    if fault.hit and code != -9:
        problems.append(f"the engine that was killed at {point} ended with {code}")
    return bool(fault.hit)


def late(place: Place, name: str) -> Outcome:
    """All that is made is listed late, and nobody is killed."""
    outcome, began = Outcome("each creation", "listed late"), time.monotonic()
    case = place.case(name)
    hide = [Point(operation).fault("hide", case) for operation in CREATIONS]
    for fault in hide:
        fault.times = -1
        place.control.order(fault)
    code = place.run(case).code()
    for fault in hide:
        fault.times = 0
    outcome.reached = sum(fault.hit for fault in hide) >= len(expected(place))
    outcome.problems += list(ended(place, case, code))
    outcome.seconds = time.monotonic() - began
    outcome.told = case.told() if outcome.problems else ""
    return outcome


def expected(place: Place) -> tuple[str, ...]:
    """The names of what is made: the cluster, and the jobs and containers."""
    return TASKS if place.target == "kubernetes" else ("spark", *TASKS)


@contextmanager
def dying(place: Place, case: Case, effect: Effect) -> Iterator[None]:
    """While it is entered, a call that a fault strikes is the engine's last."""

    def heard(call: Call) -> None:
        if call.fault == effect and case.made(call):
            case.started[-1].kill()

    if effect == "hold":  # it is killed when the call was applied
        yield
        return
    place.listeners.append(heard)
    try:
        yield
    finally:
        place.listeners.remove(heard)


def gone_on(place: Place, case: Case) -> int | None:
    """`portaflow resume`, or `run` again where it says that nothing had begun."""
    code = place.resume(case).code()
    if code == 1 and re.search(r"there is no run 'r'", case.told()):
        if any(made(place.calls(case))):
            return code
        code = place.run(case).code()
    return code


def ended(place: Place, case: Case, code: int | None) -> Iterator[str]:
    """What is wrong, by the calls that were made and by what the cloud knows."""
    if code != 0:
        yield f"the last engine ended with {code}"
    calls = place.calls(case)
    names = Counter(made(calls))
    if (asked := sorted(n.split("-")[2] for n in names)) != sorted(expected(place)):
        yield f"what was asked for: {asked}"
    if again := [n for n in names if not n.endswith("-1")]:
        yield f"second attempts: {again}"
    yield from _made_after_the_end(calls)
    wanted = len(names) + 1 - (place.target == "gcp") + 2 * (place.target == "kubernetes")
    things = _at_rest(place, list(names), wanted)
    if alive := [thing for thing in things if thing[2]]:
        yield f"alive: {alive}"
    known = Counter((kind, name) for kind, name, _ in things if kind != "executor")
    if many := [f"{n} of {kind} {name}" for (kind, name), n in known.items() if n > 1]:
        yield f"made more than once: {many}"
    if len(known) != wanted:  # each Job has a pod; Dataproc forgets a cluster that was deleted
        yield f"{len(known)} things are known, not {wanted}: {sorted(known)}"
    yield from _left(place.ask("objects", uri=case.uri), place.pipeline == DEMO)


def _at_rest(place: Place, names: list[str], wanted: int) -> list[Any]:
    """What the cloud knows of things; what ends now, or is listed late, may do so first."""
    deadline = time.monotonic() + 30
    while True:
        things: list[Any] = place.ask("things", names=names)
        quiet = not any(lives for _, _, lives in things) and len(things) >= wanted
        if quiet or time.monotonic() > deadline:
            return things
        time.sleep(0.2)


def _made_after_the_end(calls: list[Call]) -> Iterator[str]:
    ends = [call.time for call in calls if call.operation in ENDS and call.fault != "reset-before"]
    for call in calls:
        if ends and call.operation in CREATIONS and call.time > ends[0]:
            yield f"{call.operation} after the cluster was asked to end"
    if not ends and any(call.operation in CREATIONS[:3:2] for call in calls):
        yield "no cluster was asked to end"


def _left(objects: dict[str, str], demo: bool) -> Iterator[str]:
    """What is wrong in the store. Each of our own tasks leaves a line in the ledger when it runs,
    and hands on what it was handed; those of the demo are told by their values."""
    home = f"store/{'recommendations' if demo else 'kill'}/r"
    if demo:
        yield from _values({task: objects.get(f"{home}/{task}/_result.json") for task in TASKS})
    else:
        ran = Counter(n.removeprefix("ledger/").split("-")[0] for n in objects if "ledger/" in n)
        if ran != Counter(TASKS):
            yield f"what ran how often: {dict(ran)}"
        text = objects.get(f"{home}/recommend/top/part", "nothing")
        if text != " ".join(TASKS):
            yield f"the last task has left {text!r}"
    if lacking := [task for task in TASKS if f"{home}/{task}/_manifest.json" not in objects]:
        yield f"not committed: {lacking}"
    if not json.loads(objects.get(f"{home}/_lease.json", "{}")).get("closed"):
        yield "the lease is not closed"


_known: dict[str, str | None] = {}


def _values(values: dict[str, str | None]) -> Iterator[str]:
    """What differs from the run before: the demo's values follow from its input."""
    if None in values.values() or values != (_known or values):
        yield f"the values are {values}, and were {_known}"
    _known.update(values)
