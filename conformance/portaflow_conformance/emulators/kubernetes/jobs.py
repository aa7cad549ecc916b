"""The job controller: it makes the pods of a Job, counts how they end, and says when it is over."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from . import podfailures
from .deletion import Deletion
from .events import Events
from .problems import Json, Problem
from .resources import JOBS, PODS, Resource
from .store import Change, Key, Store

_TICK = 0.1  # seconds between two looks at deadlines and times-to-live
_BACK_OFF, _LONGEST = 10.0, 600.0  # seconds at pace 1 until a failed pod has a successor
_INDEX = "batch.kubernetes.io/job-completion-index"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"

Add = Callable[[Resource, str, Json], Json]


@dataclass(slots=True)
class _Tally:
    """What is known of a Job beyond its object: each pod is counted once, however it goes."""

    pods: dict[str, Key] = field(default_factory=dict)  # uid -> those that exist
    succeeded: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    ignored: set[str] = field(default_factory=set)
    indexes: set[int] = field(default_factory=set)  # that have succeeded
    retry_at: float = 0.0  # of the loop's clock
    verdict: tuple[str, str] | None = None  # reason and message of a failure
    asked: bool = False  # whether a look is due


class JobController:
    """Works in the event loop; a Job is looked at when it or a pod of it changes."""

    def __init__(
        self, store: Store, add: Add, deletion: Deletion, events: Events, pace: float
    ) -> None:
        self._store = store
        self._add = add
        self._deletion = deletion
        self._events = events
        self._pace = pace
        self._tallies: dict[str, _Tally] = {}
        store.listeners.append(self._changed)

    def _changed(self, change: Change) -> None:
        if change.resource is JOBS:
            uid = change.object["metadata"]["uid"]
            if change.type == "DELETED":
                self._tallies.pop(uid, None)
                return
            self._tallies.setdefault(uid, _Tally())
            self._look(uid, change.key)
        elif change.resource is PODS:
            for ref in change.object["metadata"].get("ownerReferences") or []:
                tally = self._tallies.get(ref["uid"])
                if tally is not None and ref.get("controller"):
                    self._count(tally, change, (change.key[0], ref["name"]))
                    self._look(ref["uid"], (change.key[0], ref["name"]))

    def _count(self, tally: _Tally, change: Change, job_key: Key) -> None:
        pod = change.object
        uid = pod["metadata"]["uid"]
        tally.pods[uid] = change.key
        phase = pod["status"].get("phase")
        job = self._store.find(JOBS, *job_key)
        if job is None or uid in tally.succeeded | tally.failed | tally.ignored:
            pass
        elif phase == "Succeeded":
            tally.succeeded.add(uid)
            if (index := _index(pod)) is not None:
                tally.indexes.add(index)
        elif phase == "Failed" or change.type == "DELETED":
            self._failed(tally, job, pod)
        if change.type == "DELETED":
            tally.pods.pop(uid, None)

    def _failed(self, tally: _Tally, job: Json, pod: Json) -> None:
        """A pod has failed, or was taken away before its end."""
        uid = pod["metadata"]["uid"]
        verdict = podfailures.judge(job, pod)
        if verdict.action == "Ignore" or job["spec"].get("suspend"):
            tally.ignored.add(uid)
            return
        tally.failed.add(uid)
        if verdict.action == "FailJob" and tally.verdict is None:
            tally.verdict = ("PodFailurePolicy", verdict.message)
        delay = min(_BACK_OFF * 2 ** (len(tally.failed) - 1), _LONGEST) * self._pace
        tally.retry_at = asyncio.get_running_loop().time() + delay

    def _look(self, uid: str, key: Key) -> None:
        tally = self._tallies[uid]
        if not tally.asked:
            tally.asked = True
            asyncio.get_running_loop().call_soon(self._reconcile, uid, key)

    async def run(self) -> None:
        """Let deadlines and times-to-live pass, for ever."""
        while True:
            await asyncio.sleep(_TICK)
            for job in self._store.each(JOBS):
                meta, spec, status = job["metadata"], job["spec"], job.get("status") or {}
                tally = self._tallies[meta["uid"]]
                due = tally.retry_at and tally.retry_at <= asyncio.get_running_loop().time()
                key = (meta["namespace"], meta["name"])
                if _over(job) is not None:
                    self._expire(job)
                elif due or (spec.get("activeDeadlineSeconds") and status.get("startTime")):
                    self._look(meta["uid"], key)

    def _expire(self, job: Json) -> None:
        ttl, ended = job["spec"].get("ttlSecondsAfterFinished"), _over(job)
        if ttl is None or ended is None or job["metadata"].get("deletionTimestamp"):
            return
        if self._store.clock() >= _time(ended["lastTransitionTime"]) + ttl:
            self._deletion.delete(JOBS, job, {"propagationPolicy": "Foreground"})

    def _reconcile(self, uid: str, key: Key) -> None:
        tally = self._tallies.get(uid)
        job = self._store.find(JOBS, *key)
        if tally is None or job is None or job["metadata"]["uid"] != uid:
            return
        tally.asked = False
        if _over(job) is not None or job["metadata"].get("deletionTimestamp"):
            return
        pods = [p for k in tally.pods.values() if (p := self._store.find(PODS, *k)) is not None]
        active = [p for p in pods if p["status"].get("phase") in ("Pending", "Running")]
        living = [p for p in active if not p["metadata"].get("deletionTimestamp")]
        if job["spec"].get("suspend"):
            self._suspend(job, tally, living)
            return
        job = self._resume(job)
        verdict = tally.verdict or self._verdict(job, tally, living)
        if verdict is not None:
            tally.verdict = verdict
            self._fail(job, tally, verdict, active)
        elif self._complete(job, tally, active):
            self._finish(job, tally, living, active)
        else:
            self._fill(job, tally, living, active)
            self._publish(job, tally, [])

    # -- the end of a Job

    def _verdict(self, job: Json, tally: _Tally, living: list[Json]) -> tuple[str, str] | None:
        spec, limit = job["spec"], job["spec"]["backoffLimit"]
        restarts = sum(s.get("restartCount", 0) for p in living
                       for s in [*(p["status"].get("initContainerStatuses") or []),
                                 *(p["status"].get("containerStatuses") or [])])  # fmt: skip
        if len(tally.failed) > limit or (
            restarts and len(tally.failed) + restarts >= max(1, limit)
        ):
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        deadline, start = (
            spec.get("activeDeadlineSeconds"),
            (job.get("status") or {}).get("startTime"),
        )
        if deadline is not None and start and self._store.clock() >= _time(start) + deadline:
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        return None

    def _fail(self, job: Json, tally: _Tally, verdict: tuple[str, str], active: list[Json]) -> None:
        """Stop all pods; the Job has failed when they have ended."""
        self._stop(job, [p for p in active if not p["metadata"].get("deletionTimestamp")])
        conditions = [("FailureTarget", *verdict)]
        if not any(self._store.find(PODS, *_key(p)) is not None for p in active):
            conditions.append(("Failed", *verdict))
            self._events.record(job, "Warning", *verdict, "job-controller")
        self._publish(job, tally, conditions)

    def _complete(self, job: Json, tally: _Tally, active: list[Json]) -> bool:
        wanted = job["spec"].get("completions")
        if wanted is None:
            return bool(tally.succeeded) and not active
        return self._done(job, tally) >= int(wanted)

    def _done(self, job: Json, tally: _Tally) -> int:
        """How many of the completions there are."""
        if job["spec"]["completionMode"] == "Indexed":
            return sum(i < job["spec"]["completions"] for i in tally.indexes)
        return len(tally.succeeded)

    def _finish(self, job: Json, tally: _Tally, living: list[Json], active: list[Json]) -> None:
        self._stop(job, living)
        why = ("CompletionsReached", "Reached expected number of succeeded pods")
        conditions = [("SuccessCriteriaMet", *why)]
        if not any(self._store.find(PODS, *_key(p)) is not None for p in active):
            conditions.append(("Complete", *why))
            self._events.record(job, "Normal", "Completed", "Job completed", "job-controller")
        self._publish(job, tally, conditions)

    # -- pods

    def _fill(self, job: Json, tally: _Tally, living: list[Json], active: list[Json]) -> None:
        """Make the pods that are missing, or stop those that are too many."""
        spec = job["spec"]
        wanted, most = spec.get("completions"), spec["parallelism"]
        if wanted is None:
            target = len(living) if tally.succeeded else most
        else:
            target = min(most, wanted - self._done(job, tally))
        if len(living) > target:
            self._stop(job, living[target:])
            return
        replaces = living if spec["podReplacementPolicy"] == "TerminatingOrFailed" else active
        missing = target - len(replaces)
        if missing <= 0 or asyncio.get_running_loop().time() < tally.retry_at:
            return
        tally.retry_at = 0.0
        free: list[int | None] = [None] * missing
        if spec["completionMode"] == "Indexed":
            taken = tally.indexes | {_index(p) for p in replaces}
            left = (i for i in range(spec["completions"]) if i not in taken)
            free = list(islice(left, missing))
        for index in free:
            self._make(job, index)

    def _make(self, job: Json, index: int | None) -> None:
        meta = job["metadata"]
        pod = copy.deepcopy(job["spec"]["template"])
        template = pod.get("metadata") or {}
        stem = meta["name"] if index is None else f"{meta['name']}-{index}"
        pod["metadata"] = {
            "labels": dict(template.get("labels") or {}),
            "annotations": dict(template.get("annotations") or {}),
            "name": f"{stem[:57]}-{''.join(random.choices(_LETTERS, k=5))}",
            "generateName": f"{stem[:57]}-",
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1", "kind": "Job", "name": meta["name"],
                    "uid": meta["uid"], "controller": True, "blockOwnerDeletion": True,
                }
            ],
        }  # fmt: skip
        if index is not None:
            pod["metadata"]["labels"] |= {_INDEX: str(index)}
            pod["metadata"]["annotations"] |= {_INDEX: str(index)}
            origin = {"fieldRef": {"fieldPath": f"metadata.annotations['{_INDEX}']"}}
            variable = {"name": "JOB_COMPLETION_INDEX", "valueFrom": origin}
            spec = pod["spec"]
            for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
                container["env"] = [*(container.get("env") or []), variable]
        try:
            made = self._add(PODS, meta["namespace"], pod)
        except Problem as problem:
            told = f"Error creating: {problem.message}"
            self._events.record(job, "Warning", "FailedCreate", told, "job-controller")
            tally = self._tallies[meta["uid"]]
            tally.retry_at = asyncio.get_running_loop().time() + max(_BACK_OFF * self._pace, 0.1)
            return
        told = f"Created pod: {made['metadata']['name']}"
        self._events.record(job, "Normal", "SuccessfulCreate", told, "job-controller")

    def _stop(self, job: Json, pods: list[Json]) -> None:
        for pod in pods:
            current = self._store.find(PODS, *_key(pod))
            if current is not None and current["metadata"]["uid"] == pod["metadata"]["uid"]:
                self._deletion.delete(PODS, current, {})
                told = f"Deleted pod: {pod['metadata']['name']}"
                self._events.record(job, "Normal", "SuccessfulDelete", told, "job-controller")

    # -- suspension and status

    def _suspend(self, job: Json, tally: _Tally, living: list[Json]) -> None:
        self._stop(job, living)
        status = dict(job.get("status") or {})
        if status.pop("startTime", None) is not None or not status.get("conditions"):
            self._events.record(job, "Normal", "Suspended", "Job suspended", "job-controller")
        job = {**job, "status": status}
        self._publish(job, tally, [("Suspended", "JobSuspended", "Job suspended")])

    def _resume(self, job: Json) -> Json:
        status = dict(job.get("status") or {})
        conditions = []
        for condition in status.get("conditions") or []:
            if condition["type"] == "Suspended" and condition["status"] == "True":
                self._events.record(job, "Normal", "Resumed", "Job resumed", "job-controller")
                condition = _condition("Suspended", "JobResumed", "Job resumed", self._store.now())
                condition["status"] = "False"
            conditions.append(condition)
        if conditions:
            status["conditions"] = conditions
        status.setdefault("startTime", self._store.now())
        return {**job, "status": status}

    def _publish(self, job: Json, tally: _Tally, conditions: list[tuple[str, str, str]]) -> None:
        pods = [p for k in tally.pods.values() if (p := self._store.find(PODS, *k)) is not None]
        active = [p for p in pods if p["status"].get("phase") in ("Pending", "Running")]
        leaving = sum(bool(p["metadata"].get("deletionTimestamp")) for p in active)
        old = job.get("status") or {}
        counts: Json = {
            "active": len(active) - leaving,
            "succeeded": self._done(job, tally),
            "failed": len(tally.failed),
        }
        if job["spec"]["completionMode"] == "Indexed":
            counts["completedIndexes"] = _ranges(tally.indexes)
        now = self._store.now()
        status = {k: v for k, v in old.items() if k not in counts}
        status |= {k: v for k, v in counts.items() if v}
        status |= {"ready": sum(map(_ready, active)), "terminating": leaving}
        status["uncountedTerminatedPods"] = {}
        known = {c["type"]: c for c in old.get("conditions") or []}
        for type_, reason, message in conditions:
            if known.get(type_, {}).get("status") != "True":
                known[type_] = _condition(type_, reason, message, now)
            if type_ == "Complete":
                status.setdefault("completionTime", now)
        if known:
            status["conditions"] = list(known.values())
        current = self._store.find(JOBS, *_key(job))
        if current is not None and current["metadata"]["uid"] == job["metadata"]["uid"]:
            self._store.replace(JOBS, {**current, "status": status})


def _condition(type_: str, reason: str, message: str, now: str) -> Json:
    return {
        "type": type_, "status": "True", "reason": reason, "message": message,
        "lastProbeTime": now, "lastTransitionTime": now,
    }  # fmt: skip


def _over(job: Json) -> Json | None:
    """The condition that says how a Job ended."""
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            found: Json = condition
            return found
    return None


def _key(obj: Json) -> Key:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _index(pod: Json) -> int | None:
    text: Any = (pod["metadata"].get("annotations") or {}).get(_INDEX)
    return int(text) if text is not None else None


def _ready(pod: Json) -> bool:
    conditions = pod["status"].get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _time(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _ranges(numbers: set[int]) -> str:
    """1,2,3,5 as "1-3,5"."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts)
