"""Each fault of the local clouds, on each call of each driver: the run goes on to its end, or
fails with the right cause. Either way nothing is left, in the drivers' eyes and in the clouds'.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest

from .field import TARGETS, Field

_STORE = ("aws:s3.", "gcp:storage.")
_MAKES = {
    "emr": ("aws:emr.RunJobFlow", "aws:emr.AddJobFlowSteps"),
    "serverless": ("aws:emr-serverless.StartJobRun",),
    "dataproc": ("gcp:dataproc.CreateCluster", "gcp:dataproc.SubmitJob"),
    "batches": ("gcp:dataproc.CreateBatch",),
}
"""What makes a thing that is listed late; a Job of Kubernetes is, too."""

_PASSING: dict[str, tuple[dict[str, Any], ...]] = {
    "busy": (
        {"effect": "throttle"},
        {"effect": "error", "status": 503},
        {"effect": "latency", "seconds": 0.2},
    ),
    "reset-before": ({"effect": "reset-before"},),
    "reset-after": ({"effect": "reset-after"},),
    "hide": ({"effect": "hide", "seconds": 1.5},),
}
"""Faults after which a run must be as if nothing had been."""


@pytest.fixture(scope="module")
def operations(everywhere: Field) -> dict[str, list[str]]:
    return {target: list(everywhere.calls(target)) for target in TARGETS}


def test_no_driver_watches_so_none_loses_a_watch(operations: dict[str, list[str]]) -> None:
    called = [operation for found in operations.values() for operation in found]
    assert len(called) > 40
    assert [operation for operation in called if "watch" in operation] == []


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("what", _PASSING)
def test_what_passes_is_borne(
    field: Field, operations: dict[str, list[str]], target: str, what: str
) -> None:
    before = Counter(field.audit(target)["made"])
    struck = operations[target]
    if what == "hide":
        struck = list(_MAKES.get(target, ("kubernetes:jobs.create",)))
    faults = []
    for operation in struck:
        for fault in _PASSING[what]:
            faults.append(field.fault(operation=operation, **fault))
        if operation.startswith(_STORE):  # a later write is another case than the first one
            field.fault(operation=operation, skip=2, **_PASSING[what][0])
    done = field.run(target)
    made = Counter(field.audit_again(target)["made"]) - before
    assert done.code == 0, done.text
    assert done.task["state"] == "done"
    assert set(made.values()) <= {1}, made
    missed = [f"{f.effect} {f.operation}" for f in faults if not f.hit]
    assert [m for m in missed if m.partition(" ")[2] not in _RARE] == []
    field.nothing_left(target)


_RARE = ("aws:emr-serverless.CreateApplication", "kubernetes:pods.list")
"""Called by the first run of all, and when a pod is caught while it waits."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A fault, and what becomes of the run: `cause` is "" when it ends well, `words` a pattern."""

    target: str
    effect: str
    operation: str
    times: int = 1
    task: dict[str, Any] = field(default_factory=dict)
    cluster: dict[str, Any] = field(default_factory=dict)
    cause: str = ""
    words: str = ""

    def __str__(self) -> str:
        ever = "-for-ever" if self.times < 0 else ""
        return f"{self.target}-{self.effect}{ever}-{self.operation.rpartition('.')[2]}"


_SOON = {"timeout": 2}
_JOB, _POD = {"args": ["1"]}, {"command": ["sleep", "1"]}
_RETRIED = {"retries": 1, "retry_delay": 0.1}


def _rows() -> list[Row]:
    def rows(target: str, operation: str, *rest: tuple[Any, ...]) -> list[Row]:
        """(effect, times, task, cluster, cause, words) each."""
        names = ("effect", "times", "task", "cluster", "cause", "words")
        return [
            Row(target=target, operation=operation, **dict(zip(names, r, strict=True)))
            for r in rest
        ]

    emr, step = "aws:emr.RunJobFlow", "aws:emr.AddJobFlowSteps"
    run, pod = "aws:emr-serverless.StartJobRun", "kubernetes:kubelet.RunPod"
    cluster, job = "gcp:dataproc.CreateCluster", "gcp:dataproc.SubmitJob"
    batch, lost = "gcp:dataproc.CreateBatch", "The master node was terminated"
    unreachable, killed = "The master is unreachable", "The driver was killed"
    found = [
        *rows(
            "emr", emr,
            ("hang", 1, {}, _SOON, "user", "timed out after 2 s"),
            ("fail", 1, {}, {}, "", ""),
            ("fail", -1, {}, {}, "infra", "An internal error occurred"),
            ("capacity", 1, {}, {}, "", ""),
            ("capacity", -1, {}, {}, "capacity", "insufficient capacity for m6i.xlarge"),
            ("die", 1, _JOB, {}, "", ""),
            ("die", -1, _JOB, {}, "infra", f"its cluster ended while it ran: {lost}"),
        ),
        *rows(
            "emr", step,
            ("hang", 1, _SOON, {}, "user", "timed out after 2 s"),
            ("fail", 1, {}, {}, "user", "a fault on order"),
            ("die", 1, _JOB, {}, "user", "Unknown Error"),
            ("die", 1, {**_JOB, **_RETRIED}, {}, "", ""),
        ),
        *rows(
            "serverless", run,
            ("hang", 1, _SOON, {}, "user", "timed out after 2 s"),
            ("fail", 1, {}, {}, "user", "a fault on order"),
            ("die", 1, _JOB, {}, "user", "a fault on order"),
            ("die", 1, {**_JOB, **_RETRIED}, {}, "", ""),
        ),
        *rows(
            "dataproc", cluster,
            ("hang", 1, {}, _SOON, "user", "timed out after 2 s"),
            ("fail", 1, {}, {}, "", ""),
            ("fail", -1, {}, {}, "capacity", "Insufficient resources"),
            ("die", 1, _JOB, {}, "", ""),
            ("die", -1, _JOB, {}, "infra", f"{unreachable}|is not running: ERROR|was deleted"),
        ),
        *rows(
            "dataproc", job,
            ("hang", 1, _SOON, {}, "user", "timed out after 2 s"),
            ("fail", 1, {}, {}, "", ""),
            ("fail", -1, {}, {}, "infra", "Task was not acquired"),
            ("die", 1, _JOB, {}, "", ""),
            ("die", -1, _JOB, {}, "infra", killed),
        ),
        *rows(
            "batches", batch,
            ("hang", 1, _SOON, {}, "user", "timed out after 2 s"),
            ("fail", 1, {}, {}, "", ""),
            ("fail", -1, {}, {}, "capacity", "Insufficient resources"),
            ("die", 1, _JOB, {}, "", ""),
            ("die", -1, _JOB, {}, "infra", killed),
        ),
    ]  # fmt: skip
    for target, some in (("kubernetes", True), ("eks", False), ("gke", False)):
        all_rows = rows(
            target, pod,
            ("evict", 1, _POD, {}, "", ""),
            ("evict", -1, _POD, {}, "infra", "Evicted"),
            ("hang", 1, _SOON, {}, "user", "timed out after 2 s"),
            ("fail", 1, {}, {}, "", ""),
            ("die", 1, _POD, {}, "user", "SIGKILL"),
            ("die", 1, {**_POD, **_RETRIED}, {}, "", ""),
        )  # fmt: skip
        found += all_rows if some else all_rows[:2]  # behind the way to it they are one driver
    return found


@pytest.mark.parametrize("row", _rows(), ids=str)
def test_what_is_broken_is_made_anew_or_told(field: Field, row: Row) -> None:
    fault = field.fault(row.effect, row.operation, times=row.times)
    done = field.run(row.target, task=row.task, cluster=row.cluster)
    assert fault.hit
    assert done.code == int(bool(row.cause)), done.text
    ends = [*done.run["tasks"], *done.run["clusters"]]
    if not row.cause:
        assert {end["state"] for end in ends} <= {"done", "gone"}
        assert max(end["attempt"] for end in ends) > 1
    else:
        (failed,) = (end for end in ends if end["state"] == "failed")
        assert failed["cause"] == row.cause
        assert re.search(row.words, failed["reason"])
    field.nothing_left(row.target)


_AGES = {
    "kubernetes": ("kubernetes:kubelet.RunPod", {"command": ["sleep", "2"]}),
    "dataproc": ("gcp:dataproc.SubmitJob", {"args": ["2"]}),
    "batches": ("gcp:dataproc.CreateBatch", {"args": ["2"]}),
}
"""What the clouds themselves end by their clock, counted from when they were asked for it."""


@pytest.mark.parametrize("target", _AGES)
def test_what_its_time_to_live_ends_too_early_is_done_again(field: Field, target: str) -> None:
    operation, task = _AGES[target]
    jumped = field.once(operation, lambda: field.control.jump(2 * 86400))
    done = field.run(target, task=task)
    jumped.join()
    assert done.code == 0, done.text
    assert done.task["attempt"] > 1
    field.nothing_left(target)
