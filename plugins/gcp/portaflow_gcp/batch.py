"""Dataproc Serverless as a backend: Spark jobs as batches, without a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
    Machines,
    Request,
    Size,
    State,
    Status,
    Support,
    Verdict,
)
from portaflow.errors import ConflictError, NotFoundError, RejectedError
from portaflow.spark import conf_fit

from . import catalogue, check, marks, output, secret, ttl
from .clients import LARGER, Client
from .connect import Access
from .job import DECIDED, work

_PAGE = 500  # things in one answer to a list
_STATES = {
    "PENDING": State.PENDING,
    "RUNNING": State.RUNNING,
    "CANCELLING": State.RUNNING,
    "CANCELLED": State.STOPPED,
    "SUCCEEDED": State.SUCCEEDED,
    "FAILED": State.FAILED,
}
_WORDS = {
    Cause.CAPACITY: ("quota", "insufficient", "exhausted", "stockout"),
    Cause.DENIED: ("permission", "forbidden", secret.FAILED),
    Cause.INFRA: ("driver was killed", "internal error"),
}
_CORES = (4, 8, 16)  # that an executor may have


@dataclass(frozen=True, kw_only=True)
class Config(Access):
    """`region`: of all batches, such as europe-west1. `runtime_version`: instead of the newest.

    `container_image`: with what the jobs need. `service_account`: of the jobs. `network`,
    `subnet`: one of them, or neither. `network_tags`: of the machines. `staging_bucket`: instead
    of Dataproc's own. `labels`: added to the batches'.
    """

    region: str
    runtime_version: str = ""
    container_image: str = ""
    service_account: str = ""
    network: str = ""
    subnet: str = ""
    network_tags: tuple[str, ...] = ()
    staging_bucket: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class DataprocServerless(ComputeCluster):
    """Batches of Dataproc Serverless."""

    name = "dataproc-serverless"
    cloud = "gcp"
    Config = Config
    capabilities = {
        Capability.JAR: SUPPORTED,
        Capability.PACKAGES: SUPPORTED,
        Capability.CONCURRENT_JOBS: SUPPORTED,
        Capability.AUTOSCALE: Support(False, "there is no cluster: each job scales by itself"),
        Capability.SPOT: Support(False, "Dataproc Serverless has no spot machines"),
    }

    @property
    def clusters(self) -> None:
        return None

    @cached_property
    def jobs(self) -> BatchDriver:
        return BatchDriver(self.config)

    def check(self) -> Iterable[Finding]:
        return check.batches(self.config)


class BatchDriver(Driver[JobSpec]):
    """Starts, watches and stops batches of one project and region."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client = Client(config, "BatchControllerClient", config.region)
        self._ended: dict[str, Status] = {}  # by id: an end does not change

    # -- requests

    def request(self, name: str, spec: JobSpec, parent: str = "") -> Request:
        config = self._config
        if not spec.main:
            raise RejectedError("a Spark job needs a main: a Python file or a jar")
        spec = secret.launched(name, spec)
        env = {f"spark.dataproc.driverEnv.{key}": value for key, value in spec.env.items()}
        env |= {f"spark.executorEnv.{key}": value for key, value in spec.env.items()}
        version = config.runtime_version or catalogue.version("runtimes", "")
        asked = work(spec, "batch", version, env)
        properties = {**asked.pop("properties"), **_sized(spec.size), **spec.conf}
        execution: dict[str, Any] = {
            "ttl": {"seconds": ttl.taken(spec.ttl)},
            "service_account": config.service_account,
            "network_uri": config.network,
            "subnetwork_uri": config.subnet,
            "network_tags": list(config.network_tags),
            "staging_bucket": config.staging_bucket,
        }
        runtime = {
            "version": version,
            "container_image": config.container_image,
            "properties": properties,
        }
        batch = {
            **asked,
            "runtime_config": {k: v for k, v in runtime.items() if v},
            "environment_config": {"execution_config": {k: v for k, v in execution.items() if v}},
        }
        labels = marks.marked({"id": name, **batch}, spec, config.labels)
        return {
            "region": config.region,
            "batch_id": name,
            "batch": {**batch, "labels": labels},
            "request_id": labels[marks.DIGEST],
        }

    def fit(self, spec: JobSpec) -> Mapping[str, Fit]:
        fits = {**ttl.fit(spec.ttl), **conf_fit(spec.conf, DECIDED)}
        if spec.size != Size():
            about = "of each executor, in the steps that Dataproc has; there are as many as needed"
            fits["size"] = Fit(Verdict.APPROXIMATED, about)
        return {**fits, **secret.fit(spec)}

    def files(self, spec: JobSpec) -> Mapping[str, bytes]:
        return secret.files(spec)

    def machines(self, request: Request) -> Sequence[Machines] | None:
        return None  # executors come and go with the load

    # -- life

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        try:
            batch = self._got(name)
        except NotFoundError:
            return None
        return self._handle(name) if marks.OWNER in batch.labels else None

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        name, labels = request["batch_id"], request["batch"].get("labels", {})
        what = f"job {name!r}"
        marks.check(what, labels)
        asked = {key: request[key] for key in ("batch_id", "batch", "request_id")}
        try:
            self._client.call(what, "create_batch", {**asked, "parent": self._parent()})
        except ConflictError:
            marks.compare(what, self._got(name).labels, labels)
        return self._handle(name)

    def stop(self, handle: Handle) -> None:
        """Cancel the operation that made the batch: a batch itself has no such method."""
        try:
            batch = self._got(handle.id)
            if not self._verdict(batch).state.final:
                self._client.call(
                    f"job {handle.name!r}", "cancel_operation", {"name": batch.operation}
                )
        except NotFoundError:
            return
        except RejectedError:
            if not self._verdict(self._got(handle.id)).state.final:
                raise

    def owned(self, owner: str = "") -> Iterable[Handle]:
        states = ("PENDING", "RUNNING")
        listed = self._listed(owner)
        return [self._handle(_id(b)) for b in listed if b.state.name in states]

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        seen: dict[str, Status | NotFoundError] = dict(self._ended)
        wanted = {h.id for h in handles} - seen.keys()
        for batch in self._listed("") if wanted else ():
            seen[_id(batch)] = self._verdict(batch)
            if not (wanted := wanted - {_id(batch)}):
                break
        for name in wanted:  # too new for the list, or not there
            try:
                seen[name] = self._verdict(self._got(name))
            except NotFoundError as error:
                seen[name] = error
        return {h.name: seen[h.id] for h in handles}

    def _verdict(self, batch: Any) -> Status:
        state, reason = _STATES.get(batch.state.name, State.PENDING), batch.state_message
        status = Status(state=state, reason=reason)
        if state is State.SUCCEEDED:
            status = Status(state=state, exit_code=0)
        if state is State.FAILED:
            low = reason.lower()
            causes = (c for c, words in _WORDS.items() if any(word in low for word in words))
            cause = next(causes, Cause.USER)
            reason += f"; {LARGER}" if cause is Cause.CAPACITY else ""
            status = Status(state=state, reason=reason or "it has ended badly", cause=cause)
        if state.final:
            self._ended[_id(batch)] = status
        return status

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        batch = self._got(handle.id)
        ended = self._verdict(batch).state.final
        return output.read(self._config, batch.runtime_info.output_uri, cursor, ended)

    # -- what Dataproc knows

    def _parent(self) -> str:
        return f"projects/{self._client.project}/locations/{self._config.region}"

    def _listed(self, owner: str) -> Iterable[Any]:
        request = {
            "parent": self._parent(), "filter": marks.filtered(owner), "page_size": _PAGE,
            "order_by": "create_time desc",
        }  # fmt: skip
        return self._client.call("list of jobs", "list_batches", request)  # type: ignore[no-any-return]

    def _got(self, name: str) -> Any:
        request = {"name": f"{self._parent()}/batches/{name}"}
        return self._client.call(f"job {name!r}", "get_batch", request)

    def _handle(self, name: str) -> Handle:
        region, project = self._config.region, self._client.project
        url = f"https://console.cloud.google.com/dataproc/batches/{region}/{name}?project={project}"
        return Handle(name=name, id=name, url=url)


def _id(batch: Any) -> str:
    return str(batch.name).rpartition("/")[2]


def _sized(size: Size) -> dict[str, str]:
    """The cores that an executor may have, for those that are asked for."""
    if size == Size():
        return {}
    cores = next((n for n in _CORES if n >= size.cpu), _CORES[-1])
    return {"spark.executor.cores": str(cores)}
