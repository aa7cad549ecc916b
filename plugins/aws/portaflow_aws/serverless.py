"""EMR Serverless: Spark jobs without a cluster.

`start` is one call when the application of the target's settings is there; the first job of
all makes it before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from portaflow.backend import (
    SUPPORTED,
    Capability,
    Cause,
    ComputeCluster,
    Driver,
    Finding,
    Fit,
    Handle,
    JobSpec,
    LogChunk,
    Request,
    State,
    Status,
    Support,
    Verdict,
)
from portaflow.errors import NotFoundError, RejectedError, UnavailableError, advised
from portaflow.spark import conf_fit

from . import asked, check, workers
from .application import Applications
from .connect import LARGER, Access, answered, told
from .logs import Logs
from .step import TO_GCS

OWNER, TTL, GRACE = "portaflow.owner", "portaflow.ttl", "portaflow.grace"
_STREAMS = ("stdout", "stderr")
_PENDING = ("SUBMITTED", "PENDING", "SCHEDULED", "QUEUED")
_RUNNING = ("RUNNING", "CANCELLING")
_SHORTEST = 5  # minutes that EMR Serverless takes for a time limit
_GRACES = 15, 1800  # seconds that it takes for a polite end, but for none
_OURS = {
    "spark.master": "EMR Serverless decides it",
    "spark.submit.deployMode": "EMR Serverless decides it",
}
_WORDS = {
    Cause.CAPACITY: ("capacity", "quota", "limit exceeded", "service limit"),
    Cause.DENIED: ("access denied", "accessdenied", "not authorized", "secrets manager"),
    Cause.INFRA: ("internal", "application was terminated"),
}
_HELPS = {
    "secrets manager": "make it with `aws secretsmanager create-secret`, correct its name, or give "
    "the job's `execution_role` the right secretsmanager:GetSecretValue",
    **dict.fromkeys(_WORDS[Cause.CAPACITY], LARGER),
}


class RunDriver(Driver[JobSpec]):
    """Starts, watches and stops job runs of one account and region."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.applications = Applications(config)
        self._created: dict[str, datetime] = {}  # by id; how far back a list must reach
        self._ended: dict[str, Status] = {}  # by id: an end does not change
        self._tags: dict[str, Mapping[str, str]] = {}  # by id
        self._logs = Logs()

    # -- requests

    def request(self, name: str, spec: JobSpec, parent: str = "") -> Request:
        """What StartJobRun is sent, and under "application" what makes the application."""
        config = self._config
        if not spec.main:
            raise RejectedError("a Spark job needs a main: a Python file or a jar")
        submit: dict[str, Any] = {"entryPoint": spec.main, "entryPointArguments": list(spec.args)}
        if words := _options(spec):
            submit["sparkSubmitParameters"] = " ".join(words)
        conf = {**workers.conf(spec.size), **_environment(spec), **spec.conf}
        overrides: dict[str, Any] = {
            "applicationConfiguration": [{"classification": "spark-defaults", "properties": conf}]
        }
        if config.log_uri:
            logs = {"s3MonitoringConfiguration": {"logUri": config.log_uri}}
            overrides["monitoringConfiguration"] = logs
        return {
            "application": {} if config.application else self.applications.body(),
            "applicationId": config.application,
            "clientToken": name,
            "name": name,
            "executionRoleArn": config.execution_role,
            "jobDriver": {"sparkSubmit": submit},
            "configurationOverrides": overrides,
            "executionTimeoutMinutes": max(math.ceil(spec.ttl / 60), _SHORTEST),
            "tags": {
                **config.tags,
                OWNER: spec.owner,
                TTL: str(spec.ttl),
                GRACE: str(spec.grace),
            },
        }

    def fit(self, spec: JobSpec) -> Mapping[str, Fit]:
        fits = conf_fit(spec.conf, _OURS)
        if any(key.startswith(TO_GCS) for key in spec.conf):
            why = "EMR Serverless has no connector to gs://, and no place for a key; use emr"
            fits["conf"] = Fit(Verdict.REFUSED, why)
        try:
            cores, memory = workers.worker(spec.size)
            fits["size"] = _near(f"the driver and each executor: {cores} cores, {memory} GiB")
        except RejectedError as error:
            fits["size"] = Fit(Verdict.REFUSED, str(error))
        if spec.size.gpu:
            fits["size"] = Fit(Verdict.REFUSED, "EMR Serverless has no GPUs")
        minutes = max(math.ceil(spec.ttl / 60), _SHORTEST)
        if spec.ttl != minutes * 60:
            fits["ttl"] = _near(f"{minutes} minutes: EMR Serverless counts these, from {_SHORTEST}")
        if spec.grace != _grace(spec.grace):
            fits["grace"] = _near(f"{_grace(spec.grace)} s: EMR Serverless takes 15 to 1800, or 0")
        if spec.packages and not self._config.subnets:
            fits["packages"] = _near("only `subnets` that lead to Maven Central let them be had")
        return fits

    # -- life

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        application = self.applications.find()
        try:
            for run in self._listed(application) if application else ():
                if run.get("name") == name and OWNER in self._tags_of(application, run["id"]):
                    return self._handle(name, application, run["id"])
        except NotFoundError:
            self.applications.forget()
            return None
        return asked.made(self._key(name))

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        name, body = request["name"], dict(request)
        if OWNER not in body["tags"]:
            raise RejectedError(f"job {name!r} would lack its owner: do not override its tags")
        made = body.pop("application")

        def make() -> Handle:
            id = body["applicationId"] or self.applications.find() or self.applications.make(made)
            run = self._started(name, {**body, "applicationId": id}, bool(made))
            self._tags[run] = body["tags"]
            return self._handle(name, id, run)

        # The token makes it once; who looks for it must know of it before it is listed.
        return asked.once(self._key(name), lambda: None, make)

    def _started(self, name: str, body: Mapping[str, Any], ours: bool) -> str:
        try:
            with told(f"job {name!r}", self._config):
                return str(self._client.start_job_run(**body)["jobRunId"])
        except NotFoundError:
            self.applications.forget()
            raise
        except RejectedError as error:
            id = body["applicationId"]
            state = self.applications.state(id) if answered(error) else ""
            if state == "CREATING" or (state == "TERMINATED" and ours):
                self.applications.forget()  # another one can be made
                raise UnavailableError(f"{error}; its application is {state}") from error
            raise

    def stop(self, handle: Handle) -> None:
        try:
            run = self._described(handle.parent, handle.id)
            if run["state"] not in (*_PENDING, "RUNNING"):
                return
            grace = _grace(int(run.get("tags", {}).get(GRACE, 0)))
            with told(f"job {handle.name!r}", self._config):
                self._client.cancel_job_run(
                    applicationId=handle.parent,
                    jobRunId=handle.id,
                    shutdownGracePeriodInSeconds=grace,
                )
        except NotFoundError:
            return
        except RejectedError:
            if self._described(handle.parent, handle.id)["state"] in (*_PENDING, "RUNNING"):
                raise

    def owned(self, owner: str = "") -> Iterable[Handle]:
        for application in self.applications.ours():
            for run in self._listed(application, states=(*_PENDING, "RUNNING")):
                mine = self._tags_of(application, run["id"]).get(OWNER, "")
                if mine and owner in ("", mine):
                    yield self._handle(run["name"], application, run["id"])

    # -- status

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        seen: dict[str, Status | NotFoundError] = dict(self._ended)
        for application in {h.parent for h in handles}:
            wanted = {h.id for h in handles if h.parent == application} - seen.keys()
            known = sorted(self._created[id] for id in wanted if id in self._created)
            after = known[0] - timedelta(minutes=1) if 0 < len(known) == len(wanted) else None
            try:
                for run in self._listed(application, after) if wanted else ():
                    if run["id"] in wanted:
                        seen[run["id"]] = self._status(run, run["id"])
                    if not (wanted := wanted - {run["id"]}):
                        break
            except NotFoundError as error:
                seen |= dict.fromkeys(wanted, error)
                continue
            for id in wanted:  # too new for the list, or not there
                try:
                    seen[id] = self._status(self._described(application, id), id)
                except NotFoundError as error:
                    seen[id] = error
        return {h.name: seen[h.id] for h in handles}

    def _status(self, run: Mapping[str, Any], id: str) -> Status:
        self._created[id] = run["createdAt"]
        status = _verdict(run["state"], run.get("stateDetails", ""))
        if status.state.final:
            self._ended[id] = status
        return status

    # -- logs

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        """The driver's standard output, then its standard error, from the log bucket."""
        run = self._described(handle.parent, handle.id)
        monitoring = run.get("configurationOverrides", {}).get("monitoringConfiguration", {})
        uri = monitoring.get("s3MonitoringConfiguration", {}).get("logUri", "")
        if not uri:
            raise NotFoundError(
                f"job {handle.name!r} keeps no log that can be read: set `log_uri` in the target "
                "to a folder of a bucket, as s3://BUCKET/FOLDER"
            )
        alive = run["state"] in (*_PENDING, *_RUNNING)
        if not alive and "startedAt" not in run:
            return LogChunk(data=b"", cursor=cursor, end=True)
        ended = None if alive else run.get("endedAt") or run["updatedAt"]
        where = f"applications/{handle.parent}/jobs/{handle.id}/SPARK_DRIVER/"
        folder = f"{uri.rstrip('/')}/{where}"
        with told(f"log of job {handle.name!r} in {folder}", self._config):
            s3 = self.applications.aws.client("s3")
            return self._logs.read(s3, folder, _STREAMS, cursor, ended)

    # -- what EMR Serverless knows

    @property
    def _client(self) -> Any:
        return self.applications.client

    def _listed(
        self, application: str, after: datetime | None = None, states: Sequence[str] = ()
    ) -> Iterator[Mapping[str, Any]]:
        """The job runs of an application; the newest first."""
        words: dict[str, Any] = {"applicationId": application, "maxResults": 50}
        if after:
            words["createdAtAfter"] = after
        if states:
            words["states"] = list(states)
        while True:
            with told(f"list of jobs of application {application}", self._config):
                answer = self._client.list_job_runs(**words)
            yield from answer["jobRuns"]
            if not (token := answer.get("nextToken")):
                return
            words["nextToken"] = token

    def _described(self, application: str, id: str) -> Mapping[str, Any]:
        with told(f"job {id}", self._config):
            answer = self._client.get_job_run(applicationId=application, jobRunId=id)
        return answer["jobRun"]  # type: ignore[no-any-return]

    def _tags_of(self, application: str, id: str) -> Mapping[str, str]:
        if id not in self._tags:
            self._tags[id] = self._described(application, id).get("tags", {})
        return self._tags[id]

    def _key(self, name: str) -> str:
        return f"{self.applications.aws.access} serverless {name}"

    def _handle(self, name: str, application: str, id: str) -> Handle:
        region = self.applications.aws.region
        page = f"https://{region}.console.aws.amazon.com/emr/home?region={region}#/serverless"
        url = f"{page}/applications/{application}/jobs/{id}"
        return Handle(name=name, id=id, parent=application, url=url)


def _options(spec: JobSpec) -> list[str]:
    """What follows "spark-submit": words of one string, so none may have a space."""
    words = ["--class", spec.main_class] if spec.main_class else []
    for option, values in (
        ("--py-files", spec.py_files),
        ("--jars", spec.jars),
        ("--packages", spec.packages),
    ):
        if values:
            words += [option, ",".join(values)]
    for word in words:
        if re.search(r"[\s'\"\\]", word):
            raise RejectedError(f"EMR Serverless takes no spaces and quotes in {word!r}")
    return words


def _environment(spec: JobSpec) -> dict[str, str]:
    """Variables of the driver and the executors; EMR puts in the value of what it marks."""
    secrets = {key: f"EMR.secret@{name}" for key, name in spec.secrets.items()}
    return {
        f"{place}.{key}": value
        for place in ("spark.emr-serverless.driverEnv", "spark.executorEnv")
        for key, value in {**spec.env, **secrets}.items()
    }


def _grace(seconds: int) -> int:
    least, most = _GRACES
    return min(max(seconds, least), most) if seconds else 0


def _verdict(state: str, details: str) -> Status:
    """What a state of EMR Serverless means."""
    if state in _PENDING:
        return Status(state=State.PENDING, reason=details)
    if state in _RUNNING:
        return Status(state=State.RUNNING)
    if state == "SUCCESS":
        return Status(state=State.SUCCEEDED, exit_code=0)
    if state == "CANCELLED":
        return Status(state=State.STOPPED, reason="it was asked to stop")
    said = details.lower()
    if "timeout" in said:
        return Status(state=State.STOPPED, reason=f"its time-to-live was over: {details}")
    cause = next((c for c, words in _WORDS.items() if any(w in said for w in words)), Cause.USER)
    code = re.search(r"ExitCode: (\d+)", details)
    return Status(
        state=State.FAILED,
        reason=advised(details, details, _HELPS) or "it has ended badly",
        exit_code=int(code[1]) if code else None,
        cause=cause,
    )


def _near(reason: str) -> Fit:
    return Fit(Verdict.APPROXIMATED, reason)


@dataclass(frozen=True, kw_only=True)
class Config(Access):
    """`execution_role`: the ARN of the role that jobs have.

    `application`: the id of one; "" finds or makes one that the other settings describe.
    `log_uri`: where logs go, s3://BUCKET/FOLDER. `release`: of EMR; "" is the newest.
    `subnets`, `security_groups`: from which jobs reach what is not S3. `tags`: added.
    """

    execution_role: str
    application: str = ""
    log_uri: str = ""
    release: str = ""
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


class EmrServerless(ComputeCluster):
    """Spark jobs that EMR Serverless runs."""

    name = "emr-serverless"
    cloud = "aws"
    Config = Config
    capabilities = {
        Capability.JAR: SUPPORTED,
        Capability.PACKAGES: SUPPORTED,
        Capability.CONCURRENT_JOBS: SUPPORTED,
        Capability.AUTOSCALE: Support(False, "there is no cluster: each job scales by itself"),
        Capability.SPOT: Support(False, "EMR Serverless has one price"),
    }

    @property
    def clusters(self) -> None:
        return None

    @cached_property
    def jobs(self) -> RunDriver:
        return RunDriver(self.config)

    def check(self) -> Iterable[Finding]:
        return check.serverless(self.config, self.jobs.applications)
