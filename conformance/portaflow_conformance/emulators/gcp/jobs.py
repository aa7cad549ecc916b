"""Dataproc's jobs: google.cloud.dataproc.v1.JobController. They really run."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from google.cloud.dataproc_v1 import types
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from ..control import Fault
from . import checks
from .cluster import Cluster
from .clusters import Clusters
from .driver import Run, Shop, cluster_conf, job_env
from .paging import matches, page, terms
from .rpc import Call, Code, RefusedError, Service, invalid, not_found
from .world import Operations, World, copied, stamp

State: Any = types.JobStatus.State
Key = tuple[str, str, str]

_ACTIVE = (
    "PENDING",
    "SETUP_DONE",
    "RUNNING",
    "CANCEL_PENDING",
    "CANCEL_STARTED",
    "ATTEMPT_FAILURE",
)
_ENDED = ("CANCELLED", "DONE", "ERROR")
_GROUPS = {"ACTIVE": _ACTIVE, "NON_ACTIVE": _ENDED}
_KEPT = 5000  # jobs that have ended


@dataclass(slots=True)
class Job:
    message: Any
    number: int
    cluster: Cluster
    fault: Fault | None
    hidden: float
    run: Run | None = None
    failures: int = 0
    broken: str = ""  # why it is being ended by what is not a client
    operation: Any = None

    @property
    def state(self) -> str:
        return str(State(self.message.status.state).name)

    def enter(self, state: int, details: str = "") -> None:
        message = self.message
        if message.status.state:
            message.status_history.add().CopyFrom(message.status)
        new = types.JobStatus.pb()(state=state, details=details, state_start_time=stamp())
        message.status.CopyFrom(new)
        message.done = self.state in _ENDED


class Jobs:
    def __init__(
        self, world: World, operations: Operations, clusters: Clusters, shop: Shop
    ) -> None:
        self._world, self._operations = world, operations
        self._clusters, self._shop = clusters, shop
        self._all: dict[Key, Job] = {}
        self._asked: dict[tuple[str, str], Key] = {}  # (method, request id) -> its job
        clusters.busy = lambda cluster: any(j.cluster is cluster for j in self._active())
        clusters.end_jobs = self._end_of

    def service(self) -> Service:
        methods: dict[str, tuple[Any, Any]] = {
            "SubmitJob": (types.SubmitJobRequest, self._submit),
            "SubmitJobAsOperation": (types.SubmitJobRequest, self._submit_as_operation),
            "GetJob": (types.GetJobRequest, self._get),
            "ListJobs": (types.ListJobsRequest, self._list),
            "UpdateJob": (types.UpdateJobRequest, self._update),
            "CancelJob": (types.CancelJobRequest, self._cancel),
            "DeleteJob": (types.DeleteJobRequest, self._delete),
        }
        return Service("dataproc", methods, frozenset(("SubmitJob", "SubmitJobAsOperation")))

    def stop(self) -> None:
        with self._world.lock:
            runs = [job.run for job in self._active() if job.run]
        for run in runs:
            run.end()
        for run in runs:
            run.stop()

    def _active(self) -> list[Job]:
        return [job for job in self._all.values() if not job.message.done]

    def _found(self, request: Any) -> tuple[Key, Job]:
        project, region, name = request.project_id, request.region, request.job_id
        checks.check_place(project, region)
        if (found := self._all.get((project, region, name))) is None:
            raise not_found(f"Job projects/{project}/regions/{region}/jobs/{name}")
        return (project, region, name), found

    def _submit(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            return copied(self._submitted("submit", request, call).message)

    def _submit_as_operation(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            job = self._submitted("operation", request, call)
            if job.operation is None:
                parent = f"projects/{request.project_id}/regions/{request.region}"
                job.operation = self._operations.begin(parent, self._metadata(job))
            return copied(job.operation)

    @staticmethod
    def _metadata(job: Job) -> Any:
        return types.JobMetadata.pb()(
            job_id=job.message.reference.job_id,
            status=job.message.status,
            operation_type="SUBMIT",
            start_time=stamp(),
        )

    def _submitted(self, method: str, request: Any, call: Call) -> Job:
        project, region, asked = request.project_id, request.region, request.job
        checks.check_place(project, region, request.request_id)
        known = self._asked.get((method, request.request_id))
        if request.request_id and known in self._all:
            return self._all[known]
        checks.check_job(asked, project)
        message = copied(asked)
        message.reference.project_id = project
        message.reference.job_id = message.reference.job_id or str(uuid.uuid4())
        key = (project, region, message.reference.job_id)
        if key in self._all:
            where = f"projects/{project}/regions/{region}/jobs/{key[2]}"
            raise RefusedError(Code.ALREADY_EXISTS, f"Already exists: Job {where}")
        cluster = self._clusters.find(project, region, asked.placement.cluster_name)
        if cluster.state not in ("RUNNING", "UPDATING"):
            text = f"Cluster '{asked.placement.cluster_name}' is not running: {cluster.state}"
            raise RefusedError(Code.FAILED_PRECONDITION, text)
        message.placement.cluster_uuid = cluster.message.cluster_uuid
        message.job_uuid = str(uuid.uuid4())
        folder = "google-cloud-dataproc-metainfo"
        base = f"gs://{cluster.message.config.config_bucket}/{folder}"
        base += f"/{cluster.message.cluster_uuid}/jobs/{key[2]}/"
        message.driver_control_files_uri = base
        message.driver_output_resource_uri = f"{base}driveroutput"
        hidden = self._world.hidden_until(call.fault)
        job = Job(message, self._world.number(), cluster, call.fault, hidden)
        job.enter(State.PENDING)
        self._all[key] = job
        if request.request_id:
            self._asked[method, request.request_id] = key
        if not (call.fault and call.fault.effect == "hang"):
            self._world.after(0.1, lambda: self._begin(key, job))
        self._forget()
        return job

    def _forget(self) -> None:
        ended = [key for key, job in self._all.items() if job.message.done]
        for key in ended[: max(len(ended) - _KEPT, 0)]:
            del self._all[key]
        self._asked = {a: key for a, key in self._asked.items() if key in self._all}

    def _begin(self, key: Key, job: Job) -> None:
        if job.state not in ("PENDING", "ATTEMPT_FAILURE"):
            return
        if job.fault and job.fault.effect == "fail":
            self._ended(key, job, State.ERROR, "Task was not acquired: a fault on order")
            return
        job.enter(State.SETUP_DONE)
        message = job.message
        work = getattr(message, message.WhichOneof("type_job"))
        properties = job.cluster.message.config.software_config.properties
        after = job.run.chunk if job.run else 0
        job.run = Run(
            self._shop, f"job-{message.job_uuid}-{job.failures}", work,
            conf=cluster_conf(properties), env=job_env(properties, work.properties),
            uri=message.driver_output_resource_uri, after=after,
        )  # fmt: skip
        self._world.watched[key] = lambda: self._look(key, job)

    def _look(self, key: Key, job: Job) -> None:
        run = job.run
        assert run is not None
        if job.state == "SETUP_DONE" and run.started:
            job.enter(State.RUNNING)
            if job.fault and job.fault.effect == "die":
                job.broken = "The driver was killed: a fault on order"
                run.end()
        code = run.look()
        if code is None:
            return
        del self._world.watched[key]
        if job.state.startswith("CANCEL"):
            self._ended(key, job, State.CANCELLED)
        elif job.broken:
            self._ended(key, job, State.ERROR, job.broken)
        elif not code:
            if job.state == "SETUP_DONE":
                job.enter(State.RUNNING)
            self._ended(key, job, State.DONE)
        elif job.failures < self._allowed(job):
            job.failures += 1
            job.enter(State.ATTEMPT_FAILURE, self._why(key, job, code))
            self._world.after(0.1, lambda: self._begin(key, job))
        else:
            self._ended(key, job, State.ERROR, self._why(key, job, code))

    @staticmethod
    def _allowed(job: Job) -> int:
        """How many failures a driver may have before the job has failed."""
        asked = job.message.scheduling
        limits = [n for n in (asked.max_failures_per_hour, asked.max_failures_total) if n]
        return min(limits, default=1) - 1 if limits else 0

    @staticmethod
    def _why(key: Key, job: Job, code: int) -> str:
        project, region, name = key
        message = job.message
        bucket_path = message.driver_output_resource_uri.removeprefix("gs://")
        folder = bucket_path.rpartition("/")[0]
        console = "https://console.cloud.google.com"
        problem = f" {job.run.problem}" if job.run and job.run.problem else ""
        return (
            f"Google Cloud Dataproc Agent reports job failure (exit code {code}).{problem} "
            "If logs are available, they can be found at:\n"
            f"{console}/dataproc/jobs/{name}?project={project}&region={region}\n"
            f"gcloud dataproc jobs wait '{name}' --region '{region}' --project '{project}'\n"
            f"{console}/storage/browser/{folder}/\n"
            f"{message.driver_output_resource_uri}.*"
        )

    def _ended(self, key: Key, job: Job, state: int, details: str = "") -> None:
        job.enter(state, details)
        job.cluster.idle = self._world.now()
        if job.operation is not None:
            if job.state == "DONE":
                self._operations.finish(job.operation, job.message, self._metadata(job))
            else:
                text = details or "The job was cancelled."
                code = Code.CANCELLED if job.state == "CANCELLED" else Code.ABORTED
                self._operations.fail(job.operation, code, text, self._metadata(job))

    def _end_of(self, cluster: Cluster, why: str) -> None:
        for key, job in list(self._all.items()):
            if job.cluster is not cluster or job.message.done:
                continue
            if key in self._world.watched and job.run is not None:
                job.broken = why
                job.run.end()
            else:
                self._ended(key, job, State.ERROR, why)

    def _get(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            return copied(self._found(request)[1].message)

    def _list(self, request: Any, call: Call) -> Any:
        checks.check_place(request.project_id, request.region)
        wanted = terms(request.filter)
        states = {1: _ACTIVE, 2: _ENDED}.get(request.job_state_matcher, (*_ACTIVE, *_ENDED))
        with self._world.lock:
            now = self._world.now()
            found = [
                job
                for (project, region, _), job in self._all.items()
                if (project, region) == (request.project_id, request.region)
                and request.cluster_name in ("", job.message.placement.cluster_name)
                and job.hidden <= now
                and job.state in states
                and matches(wanted, {"status.state": job.state}, job.message.labels, _GROUPS)
            ]
            shown, token = page(found, request.page_size, request.page_token, lambda j: -j.number)
            answer = types.ListJobsResponse.pb()(next_page_token=token)
            answer.jobs.extend(job.message for job in shown)
            return answer

    def _update(self, request: Any, call: Call) -> Any:
        if list(request.update_mask.paths) != ["labels"]:
            raise invalid("Update mask must be labels: nothing else of a job can be updated")
        checks.check_labels(request.job.labels)
        with self._world.lock:
            _, job = self._found(request)
            job.message.labels.clear()
            job.message.labels.update(request.job.labels)
            return copied(job.message)

    def _cancel(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            key, job = self._found(request)
            if job.message.done:
                text = f"Job '{key[2]}' cannot be cancelled: its state is {job.state}"
                raise RefusedError(Code.FAILED_PRECONDITION, text)
            if job.state.startswith("CANCEL"):
                return copied(job.message)
            job.enter(State.CANCEL_PENDING)
            answer = copied(job.message)
            self._world.after(0.1, lambda: self._cancelled(key, job))
            return answer

    def _cancelled(self, key: Key, job: Job) -> None:
        if job.message.done:
            return
        job.enter(State.CANCEL_STARTED)
        if key in self._world.watched and job.run is not None:
            job.run.end()
        else:
            self._ended(key, job, State.CANCELLED)

    def _delete(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            key, job = self._found(request)
            if not job.message.done:
                text = f"Job '{key[2]}' is active ({job.state}); cancel it first"
                raise RefusedError(Code.FAILED_PRECONDITION, text)
            del self._all[key]
        return empty_pb2.Empty()
