"""Spark jobs on clusters of Dataproc.

The driver runs on YARN (cluster mode): only there does it have the job's environment. So its
output is YARN's: Dataproc keeps what spark-submit tells, with the reason of a failure, and
Cloud Logging has the driver's own words.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from portaflow.backend import (
    Cause,
    Driver,
    Fit,
    Handle,
    JobSpec,
    LogChunk,
    Machines,
    Request,
    Size,
    State,
    Status,
    Verdict,
)
from portaflow.errors import ConflictError, NotFoundError, RejectedError
from portaflow.spark import conf_fit, executor

from . import catalogue, marks, output, secret
from .clients import Client

if TYPE_CHECKING:
    from .dataproc import Config

DECIDED = dict.fromkeys(("spark.master", "spark.submit.deployMode"), "Dataproc decides it")
_PACKAGES = "spark.jars.packages"
_OF_S3, _TO_S3 = "spark.hadoop.fs.s3.impl", "org.apache.hadoop:hadoop-aws:"
_PAGE = 500  # things in one answer to a list
_STATES = {
    "PENDING": State.PENDING,
    "SETUP_DONE": State.PENDING,
    "RUNNING": State.RUNNING,
    "CANCEL_PENDING": State.RUNNING,
    "CANCEL_STARTED": State.RUNNING,
    "ATTEMPT_FAILURE": State.RUNNING,
    "DONE": State.SUCCEEDED,
    "CANCELLED": State.STOPPED,
    "ERROR": State.FAILED,
}
_NOT_ITS_FAULT = (  # "agent" alone is in each reason: it is who reports
    "task was not acquired", "task not found", "was deleted", "was stopped", "driver was killed",
    "master is unreachable",
)  # fmt: skip


class JobDriver(Driver[JobSpec]):
    """Starts, watches and stops jobs on the clusters of one project and region."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client = Client(config, "JobControllerClient", config.region)

    # -- requests

    def request(self, name: str, spec: JobSpec, parent: str = "") -> Request:
        if not spec.main:
            raise RejectedError("a Spark job needs a main: a Python file or a jar")
        spec = secret.launched(name, spec)
        conf = {"spark.submit.deployMode": "cluster", **_env(spec.env)}
        job = {
            "reference": {"job_id": name},
            "placement": {"cluster_name": parent},
            **work(spec, "job", self._version(), conf),
        }
        labels = marks.marked(job, spec, {})
        return {
            "region": self._config.region,
            "job": {**job, "labels": labels},
            "request_id": labels[marks.DIGEST],
        }

    def _version(self) -> str:
        return self._config.image_version or catalogue.version("images", "")

    def fit(self, spec: JobSpec) -> Mapping[str, Fit]:
        fits = {"ttl": Fit(Verdict.APPROXIMATED, "Dataproc ends it when it ends its cluster")}
        fits |= conf_fit(spec.conf, DECIDED)
        if spec.size != Size():
            about = "of each executor; how many there are follows from the load"
            fits["size"] = Fit(Verdict.APPROXIMATED, about)
        return {**fits, **secret.fit(spec)}

    def files(self, spec: JobSpec) -> Mapping[str, bytes]:
        return secret.files(spec)

    def machines(self, request: Request) -> Sequence[Machines]:
        return ()  # its cluster's

    # -- life

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        try:
            job = self._got(name)
        except NotFoundError:
            return None
        there = parent is None or job.placement.cluster_name == parent.id
        return self._handle(job) if there and marks.OWNER in job.labels else None

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        job = request["job"]
        name, labels = job["reference"]["job_id"], job.get("labels", {})
        what = f"job {name!r}"
        if parent is None:
            raise NotFoundError(f"{what} needs a cluster that is there")
        marks.check(what, labels)
        job = {**job, "placement": {"cluster_name": parent.id}}
        asked = {**request, "project_id": self._client.project, "job": job}
        try:
            made = self._client.call(what, "submit_job", asked)
        except ConflictError:
            made = self._got(name)
            marks.compare(what, made.labels, labels)
        except RejectedError as error:
            if "is not running" in str(error):
                raise NotFoundError(str(error)) from error
            raise
        return self._handle(made)

    def stop(self, handle: Handle) -> None:
        try:
            request = {**self._where(), "job_id": handle.id}
            self._client.call(f"job {handle.name!r}", "cancel_job", request)
        except NotFoundError:
            return
        except RejectedError:
            if not _verdict(self._got(handle.id)).state.final:
                raise

    def owned(self, owner: str = "") -> Iterable[Handle]:
        request = {
            **self._where(), "filter": marks.filtered(owner), "job_state_matcher": "ACTIVE",
            "page_size": _PAGE,
        }  # fmt: skip
        return [self._handle(j) for j in self._client.call("list of jobs", "list_jobs", request)]

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        seen: dict[str, Status | NotFoundError] = {}
        for cluster in {h.parent for h in handles}:
            wanted = {h.id for h in handles if h.parent == cluster}
            request = {
                **self._where(), "cluster_name": cluster, "filter": marks.filtered(""),
                "page_size": _PAGE,
            }  # fmt: skip
            for job in self._client.call("list of jobs", "list_jobs", request):
                seen[job.reference.job_id] = _verdict(job)
                if wanted <= seen.keys():
                    break
        for name in {h.id for h in handles} - seen.keys():  # too new for the list, or not there
            try:
                seen[name] = _verdict(self._got(name))
            except NotFoundError as error:
                seen[name] = error
        return {h.name: seen[h.id] for h in handles}

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        job = self._got(handle.id)
        ended = _verdict(job).state.final
        return output.read(self._config, job.driver_output_resource_uri, cursor, ended)

    # -- what Dataproc knows

    def _where(self) -> dict[str, str]:
        return {"project_id": self._client.project, "region": self._config.region}

    def _got(self, name: str) -> Any:
        return self._client.call(f"job {name!r}", "get_job", {**self._where(), "job_id": name})

    def _handle(self, job: Any) -> Handle:
        name, region, project = job.reference.job_id, self._config.region, self._client.project
        url = f"https://console.cloud.google.com/dataproc/jobs/{name}?region={region}&project={project}"
        return Handle(name=name, id=name, parent=job.placement.cluster_name, url=url)


def _verdict(job: Any) -> Status:
    """What a job's status means."""
    state, details = _STATES.get(job.status.state.name, State.PENDING), job.status.details
    if state is State.SUCCEEDED:
        return Status(state=state, exit_code=0)
    if state is not State.FAILED:
        return Status(state=state, reason=details)
    lost = any(words in details.lower() for words in _NOT_ITS_FAULT)
    cause = Cause.INFRA if lost else Cause.USER
    reason = details or "it has ended badly"
    if not lost and (helps := secret.advice(job.pyspark_job)):
        reason += f"\n{helps}"
    return Status(state=state, reason=reason, cause=cause)


def work(spec: JobSpec, kind: str, version: str, conf: Mapping[str, str]) -> dict[str, Any]:
    """What is to run, as a job and a batch say it alike. `kind`: "job" or "batch". `version`: of
    the image or runtime that runs it."""
    jar = secret.of_jar(spec)
    body: dict[str, Any] = {"args": list(spec.args), "jar_file_uris": list(spec.jars)}
    if not jar:
        body |= {"main_python_file_uri": spec.main, "python_file_uris": list(spec.py_files)}
    elif spec.main_class:
        body |= {"main_class": spec.main_class, "jar_file_uris": [spec.main, *spec.jars]}
    else:
        body["main_jar_file_uri"] = spec.main
    properties = {**conf, **executor(spec.size), **spec.conf}
    if packages := _packages(spec, version):
        properties[_PACKAGES] = ",".join(packages)
    if kind == "job":
        body["properties"] = properties
        return {"spark_job" if jar else "pyspark_job": body}
    return {"spark_batch" if jar else "pyspark_batch": body, "properties": properties}


def _packages(spec: JobSpec, version: str) -> tuple[str, ...]:
    """Those of the job, and Hadoop's connector to S3 for a store there: Dataproc has none."""
    asked = (*spec.packages, *filter(None, spec.conf.get(_PACKAGES, "").split(",")))
    there = any(package.startswith(_TO_S3) for package in asked)
    if _OF_S3 not in spec.conf or there:
        return asked
    return (*asked, f"{_TO_S3}{catalogue.hadoop(version)}")


def _env(env: Mapping[str, str]) -> dict[str, str]:
    driver = {f"spark.yarn.appMasterEnv.{key}": value for key, value in env.items()}
    return driver | {f"spark.executorEnv.{key}": value for key, value in env.items()}
