"""The calls of a run at which a client can be killed: those of a run that nothing happens to."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from portaflow_conformance.emulators.control import Call, Effect, Fault

from .place import Case

CREATIONS = (
    "aws:emr.RunJobFlow",
    "aws:emr.AddJobFlowSteps",
    "gcp:dataproc.CreateCluster",
    "gcp:dataproc.SubmitJob",
    "kubernetes:jobs.create",
)
ENDS = ("aws:emr.TerminateJobFlows", "gcp:dataproc.DeleteCluster")
LATE = 5.0  # seconds after which a listing has what was made
_HELD = 60.0  # seconds at most
_READS = ("get", "list", "describe", "head", "watch")
_NAME = re.compile(
    r"pf-(?:kill|recommenda)-(\w+)-[0-9a-f]+-\d+"
)  # of both pipelines; names are cut


@dataclass(frozen=True, slots=True)
class Point:
    """One call: the first of its operation that is about its subject, or a later one."""

    operation: str
    subject: str = ""
    about: str = "*"  # the pattern of its parameters; {case} is the run's name
    skip: int = 0

    def __str__(self) -> str:
        again = f" #{self.skip + 1}" if self.skip else ""
        return f"{self.operation} {self.subject}".strip() + again

    @property
    def creates(self) -> bool:
        return self.operation in CREATIONS

    @property
    def marks(self) -> bool:
        """Whether what it changes is no record of the engine's own, but for others to see."""
        result = self.subject.endswith(("_manifest.json", "_report.html"))
        return self.creates or self.operation in ENDS or (result and not self.reads)

    @property
    def reads(self) -> bool:
        return _method(self.operation).startswith(_READS)

    def fault(self, effect: Effect, case: Case) -> Fault:
        """The order to strike this call of a run."""
        seconds = LATE if effect == "hide" else _HELD
        return Fault(
            effect=effect, operation=self.operation, principal=case.principal(self.operation),
            about=self.about.replace("{case}", case.name), skip=self.skip, seconds=seconds,
        )  # fmt: skip


def points(case: Case, calls: Iterable[Call]) -> list[Point]:
    """Every call that changes something, and the first of each kind that does not."""
    seen: Counter[str] = Counter()
    kinds: set[str] = set()
    found = []
    for call in calls:
        subject, about = _subject(case, call)
        point = Point(call.operation, subject, about)
        seen[str(point)] += 1
        if point.reads:
            kind = f"{call.operation} {_kind(subject)}"
            if kind not in kinds:
                kinds.add(kind)
                found.append(point)
        elif seen[str(point)] == 1 or not subject.endswith("_lease.json"):  # its times are luck
            found.append(Point(call.operation, subject, about, seen[str(point)] - 1))
    return found


def _method(operation: str) -> str:
    return operation.rpartition(".")[2].lower()


def _subject(case: Case, call: Call) -> tuple[str, str]:
    """What a call is about: a key of the store, or the name of a task or cluster."""
    for word in ("Key", "object", "prefix"):
        key = str(call.params.get(word, ""))
        if key.startswith(f"{case.name}/"):
            return key.removeprefix(f"{case.name}/store/"), f'*"{{case}}{key[len(case.name) :]}"*'
    if name := _NAME.search(call.about):
        return name[1], f"*pf-*-{name[1]}-*"
    return "", "*"


def _kind(subject: str) -> str:
    """What a read is about, but for which of many alike."""
    return re.sub(r"[0-9a-f]{8,}|/(features|train|recommend)\b", "*", subject)


def made(calls: Iterable[Call]) -> Iterator[str]:
    """The names that creations ask for which the provider has heard of."""
    for call in calls:
        if call.operation in CREATIONS and call.fault != "reset-before":
            wanted = call.params.get("Steps") or call.params.get("cluster") or call.params
            found = _NAME.search(json.dumps(wanted, default=str))
            yield found[0] if found else f"{call.operation}: {call.about[:200]}"
