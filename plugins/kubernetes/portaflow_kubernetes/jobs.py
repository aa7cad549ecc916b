"""Drives Kubernetes Jobs of one pod each, whatever the pod does.

A Job has the name that the plan gave it. An ended Job stays, with its pod and its log, until
its own ttlSecondsAfterFinished, so that any process finds it.

A stop must leave the log. A Job that is deleted, suspended or past its deadline takes its pod
away, so a stop shortens the pod's own deadline instead: its node ends it politely, and keeps
it. Only while there is no such pod, and so no log, the Job's deadline is shortened.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from urllib.parse import quote

from portaflow.backend import Driver, Handle, Kind, LogChunk, Request, SpecT, Status
from portaflow.errors import BackendError, ConflictError, NotFoundError, RejectedError

from . import verdict
from .api import Api, Json
from .logs import SILENCE, Lines, Tail, Tails
from .manifest import END, KIND, MAIN, NAME, OWNER, REQUEST, digest
from .verdict import STOP, End

_NAMES = 125  # in one selector, of 40 letters each: 8 kB of URL is what all servers take
PATIENCE = 5.0  # seconds a thing may wait without a word before the cluster is asked why


class JobDriver(Driver[SpecT]):
    """Starts, watches and stops Jobs of one kind. `api` is shared by all drivers of a backend."""

    kind: Kind

    def __init__(self, api: Api) -> None:
        self._api = api
        self._ended: dict[str, Status] = {}  # by uid, of those asked for last: an end stays
        self._seen: dict[str, float] = {}  # uid -> when it was first seen to wait
        self._tails = Tails()

    @abstractmethod
    def request(self, name: str, spec: SpecT, parent: str = "") -> Request: ...

    # -- places

    def _jobs(self, name: str = "", namespace: str = "") -> str:
        where = f"/apis/batch/v1/namespaces/{quote(namespace or self._api.namespace)}/jobs"
        return f"{where}/{quote(name)}" if name else where

    def _core(self, what: str) -> str:
        return f"/api/v1/namespaces/{quote(self._api.namespace)}/{what}"

    def _job(self, name: str) -> Json | None:
        try:
            return self._api.call("GET", self._jobs(name))
        except NotFoundError:
            return None

    def _pods(self, names: Sequence[str]) -> dict[str, Json]:
        """The newest pod of each Job, by the Job's name."""
        found: dict[str, Json] = {}
        for some in batches(names):
            rows = self._api.list(self._core("pods"), labelSelector=self._these(some))
            for pod in sorted(rows, key=lambda p: str(p["metadata"].get("creationTimestamp"))):
                found[pod["metadata"]["labels"][NAME]] = pod
        return found

    def _these(self, names: Sequence[str]) -> str:
        return f"{KIND}={self.kind},{NAME} in ({','.join(names)})"

    # -- life

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        job = self._job(name)
        return _handle(job) if job and _ours(job) else None

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        meta = request["metadata"]
        mark = digest(request)
        annotations = {**(meta.get("annotations") or {}), REQUEST: mark}
        body = {**request, "metadata": {**meta, "annotations": annotations}}
        where = self._jobs(namespace=meta.get("namespace", ""))
        try:
            return _handle(self._api.call("POST", where, body))
        except ConflictError as error:
            return self._adopted(meta["name"], meta["labels"][OWNER], mark, error)
        except NotFoundError as error:
            raise NotFoundError(
                f"{error}; kubectl create namespace {meta.get('namespace') or self._api.namespace}"
            ) from error

    def _adopted(self, name: str, owner: str, mark: str, error: ConflictError) -> Handle:
        """What is there under the name, if it is what was to be started."""
        job = self._job(name)
        if job is None:
            raise ConflictError(f"Job {name!r} is just being removed; try again") from error
        meta = job["metadata"]
        if (meta.get("labels") or {}).get(OWNER) != owner:
            raise ConflictError(f"Job {name!r} is there and belongs to somebody else") from error
        if (meta.get("annotations") or {}).get(REQUEST) != mark:
            raise ConflictError(
                f"Job {name!r} is there, and was started by another request"
            ) from error
        return _handle(job)

    def stop(self, handle: Handle) -> None:
        job = self._job(handle.name)
        if job and _ours(job) and not _over(job):
            self._finish(job, End(STOP))

    def _finish(self, job: Json, end: End) -> None:
        name = job["metadata"]["name"]
        pod = self._pods([name]).get(name)
        if pod is None or not pod["status"].get("startTime"):
            self._end(job, end)
            return
        with suppress(NotFoundError):
            annotations = {END: end.to_json()}
            self._patch(self._jobs(name), {"metadata": {"annotations": annotations}})
            if pod["status"].get("phase") in ("Pending", "Running"):
                where = self._core(f"pods/{quote(pod['metadata']['name'])}")
                self._patch(where, {"spec": {"activeDeadlineSeconds": 1}})

    def _end(self, job: Json, end: End) -> None:
        """Let the cluster end a Job whose pod has not begun."""
        body = {
            "metadata": {"annotations": {END: end.to_json()}},
            "spec": {"activeDeadlineSeconds": 1},
        }
        with suppress(NotFoundError):
            self._patch(self._jobs(job["metadata"]["name"]), body)

    def _patch(self, where: str, body: Json) -> None:
        self._api.call("PATCH", where, body)

    def owned(self, owner: str = "") -> Iterable[Handle]:
        selector = f"{KIND}={self.kind},{OWNER}" + (f"={owner}" if owner else "")
        jobs = self._api.list(self._jobs(), labelSelector=selector)
        return [_handle(job) for job in jobs if not verdict.ended(job)]

    # -- status

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        jobs: dict[str, Json] = {}
        known = {h.id: self._ended[h.id] for h in handles if h.id in self._ended}
        for some in batches([h.name for h in handles if h.id not in known]):
            rows = self._api.list(self._jobs(), labelSelector=self._these(some))
            jobs |= {job["metadata"]["name"]: job for job in rows}
        told = self._told(jobs)
        self._ended = known | {
            job["metadata"]["uid"]: told[name] for name, job in jobs.items()
            if told[name].state.final
        }  # fmt: skip
        answer: dict[str, Status | NotFoundError] = {}
        for handle in handles:
            job = jobs.get(handle.name)
            if handle.id in known:
                answer[handle.name] = known[handle.id]
            elif job is None or job["metadata"]["uid"] != handle.id:
                self._seen.pop(handle.id, None)
                answer[handle.name] = self._unknown(handle.name)
            else:
                answer[handle.name] = told[handle.name]
        return answer

    def _told(self, jobs: Mapping[str, Json]) -> dict[str, Status]:
        """The status of each Job. Pods are asked for where the Job has no words."""
        over = {name: job for name, job in jobs.items() if verdict.ended(job)}
        mute = [n for n, j in over.items() if "Complete" not in verdict.conditions(j)]
        waiting = [n for n, j in jobs.items() if n not in over and not verdict.running(j)]
        pods = self._pods([*mute, *waiting])
        warnings = self._warnings([jobs[name] for name in waiting], pods)
        working = {n: j for n, j in jobs.items() if n not in over and verdict.running(j)}
        at_work = self._at_work(working) if working else {}
        told: dict[str, Status] = {}
        for name, job in jobs.items():
            uid, pod = job["metadata"]["uid"], pods.get(name)
            if name in over:
                told[name] = self._worded(name, verdict.of_ended(job, pod))
                self._seen.pop(uid, None)
                continue
            if name in at_work:
                told[name], end = at_work[name]
            else:
                warning = warnings.get(name, "")
                told[name], end = verdict.of_pending(job, pod, warning, self._waited(uid))
            if end:
                with suppress(BackendError):  # a later round tries again
                    (self._finish if name in at_work else self._end)(job, end)
        return told

    def _at_work(self, jobs: Mapping[str, Json]) -> Mapping[str, tuple[Status, End | None]]:
        """What is told of those whose pod runs; and when one never will work, why it is ended."""
        for job in jobs.values():
            self._seen.pop(job["metadata"]["uid"], None)
        return dict.fromkeys(jobs, (verdict.RUNNING, None))

    def _worded(self, name: str, status: Status) -> Status:
        """An end, with what only this kind of thing knows about it."""
        return status

    def _waited(self, uid: str) -> float:
        return time.monotonic() - self._seen.setdefault(uid, time.monotonic())

    def _warnings(self, jobs: Sequence[Json], pods: Mapping[str, Json]) -> dict[str, str]:
        """What the cluster complains of about those that wait for long: one call."""
        late = {
            j["metadata"]["name"] for j in jobs if self._waited(j["metadata"]["uid"]) > PATIENCE
        }
        if not late:
            return {}
        whose = {pods[name]["metadata"]["name"]: name for name in late & pods.keys()}
        whose |= {name: name for name in late}
        events = self._api.list(self._core("events"), fieldSelector="type=Warning")
        told = {}
        for event in sorted(events, key=lambda e: str(e.get("lastTimestamp") or "")):
            if name := whose.get(event["involvedObject"].get("name", "")):
                told[name] = f"{event.get('reason', '')}: {event.get('message', '')}"
        return told

    # -- logs

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        try:
            tail = self._tails.take(handle.name, cursor, lambda: self._opened(handle, cursor))
        except _NothingYet as nothing:
            return LogChunk(data=b"", cursor=cursor, end=nothing.ever)
        data = tail.read()
        if not tail.over:
            self._tails.keep(handle.name, tail)
        return LogChunk(
            data=data, cursor=tail.cursor or cursor, end=tail.over and tail.whole and tail.last
        )

    def _opened(self, handle: Handle, cursor: str) -> Tail:
        pod = self._pods([handle.name]).get(handle.name)
        if pod is None:
            job = self._job(handle.name)
            if job is None or job["metadata"]["uid"] != handle.id:
                raise self._unknown(handle.name)
            raise _NothingYet(ever=verdict.ended(job))
        last = pod["status"].get("phase") in ("Succeeded", "Failed")
        lines = Lines(cursor)
        since = {"sinceTime": lines.since} if lines.since else {}
        follow = {} if last else {"follow": "true"}
        where = self._core(f"pods/{quote(pod['metadata']['name'])}/log")
        try:
            response = self._api.stream(
                where, SILENCE, container=MAIN, timestamps="true", **follow, **since
            )
        except RejectedError as error:  # it has not begun, or never did
            raise _NothingYet(ever=last) from error
        except NotFoundError as error:  # it went just now
            raise _NothingYet(ever=False) from error
        return Tail(lines, response, last=last)

    def _unknown(self, name: str) -> NotFoundError:
        return NotFoundError(f"{self.kind} {name!r} is not known to the cluster")


class _NothingYet(Exception):
    """There is no log; `ever`: and there will be none."""

    def __init__(self, *, ever: bool) -> None:
        self.ever = ever


def _handle(job: Json) -> Handle:
    return Handle(name=job["metadata"]["name"], id=job["metadata"]["uid"])


def _ours(job: Json) -> bool:
    return OWNER in (job["metadata"].get("labels") or {})


def _over(job: Json) -> bool:
    """Whether a Job has ended or is about to: nothing can be asked of it any more."""
    return bool({"Complete", "Failed", "SuccessCriteriaMet", "FailureTarget"} & verdict.conditions(
        job
    ).keys())  # fmt: skip


def batches(names: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while some := list(islice(rest, _NAMES)):
        yield some
