"""Clusters of Dataproc on Compute Engine."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from portaflow.backend import (
    Cause,
    ClusterSpec,
    Driver,
    Fit,
    Handle,
    LogChunk,
    Machines,
    Request,
    Size,
    State,
    Status,
    Verdict,
)
from portaflow.errors import ConflictError, NotFoundError, RejectedError
from portaflow.spark import conf_fit

from . import catalogue, marks, prices, ttl
from .clients import Client
from .job import DECIDED

if TYPE_CHECKING:
    from .dataproc import Config

_SHORTEST_IDLE = 300  # seconds
_PAGE = 500  # things in one answer to a list
_STATES = {
    "CREATING": State.PENDING,
    "STARTING": State.PENDING,
    "RUNNING": State.RUNNING,
    "UPDATING": State.RUNNING,
    "REPAIRING": State.RUNNING,
    "DELETING": State.RUNNING,
    "STOPPING": State.RUNNING,
    "STOPPED": State.STOPPED,
    "ERROR": State.FAILED,
    "ERROR_DUE_TO_UPDATE": State.RUNNING,
}
_WORDS = {
    Cause.CAPACITY: ("quota", "resources to fulfill", "insufficient", "exhausted", "stockout"),
    Cause.DENIED: ("permission", "forbidden", "not authorized"),
    Cause.USER: ("initialization action", "invalid"),
}


class ClusterDriver(Driver[ClusterSpec]):
    """Starts, watches and stops clusters of one project and region."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client = Client(config, "ClusterControllerClient", config.region)

    # -- requests

    def request(self, name: str, spec: ClusterSpec, parent: str = "") -> Request:
        config = self._config
        body: dict[str, Any] = {
            "gce_cluster_config": self._network(),
            **self._groups(spec),
            "software_config": self._software(spec),
            "lifecycle_config": {"auto_delete_ttl": {"seconds": ttl.taken(spec.ttl)}},
        }
        if config.idle_delete:
            idle = {"seconds": max(config.idle_delete, _SHORTEST_IDLE)}
            body["lifecycle_config"]["idle_delete_ttl"] = idle
        if spec.workers[0] < spec.workers[1]:
            if not config.autoscaling_policy:
                raise RejectedError(_NO_POLICY)
            body["autoscaling_config"] = {"policy_uri": config.autoscaling_policy}
        if config.initialization_actions:
            body["initialization_actions"] = [
                {"executable_file": uri} for uri in config.initialization_actions
            ]
        if config.staging_bucket:
            body["config_bucket"] = config.staging_bucket
        if config.temp_bucket:
            body["temp_bucket"] = config.temp_bucket
        cluster = {"cluster_name": name, "config": body}
        labels = marks.marked(cluster, spec, config.labels)
        # Asked twice with one id, Dataproc does it once; another request has another id.
        return {
            "region": config.region,
            "cluster": {**cluster, "labels": labels},
            "request_id": labels[marks.DIGEST],
        }

    def _network(self) -> dict[str, Any]:
        config = self._config
        body: dict[str, Any] = {
            "zone_uri": config.zone,
            "service_account": config.service_account,
            "network_uri": config.network,
            "subnetwork_uri": config.subnet,
            "tags": list(config.network_tags),
            "internal_ip_only": config.internal_ip_only,
        }
        if config.network and config.subnet:
            raise RejectedError("the target names a `network` and a `subnet`; give one of them")
        return {key: value for key, value in body.items() if value}

    def _groups(self, spec: ClusterSpec) -> dict[str, Any]:
        config, (low, _) = self._config, spec.workers
        worker = config.machine_type or catalogue.machine(spec.size).name
        master = config.master_type or catalogue.machine(Size(cpu=4, memory=16)).name
        if low < 2 and spec.workers[1] < 2:  # it is its own worker
            return {"master_config": _group(master if low == 0 else worker, 1, spec.size)}
        first = 2 if spec.spot else max(low, 2)
        groups = {
            "master_config": _group(master, 1, Size()),
            "worker_config": _group(worker, first, spec.size),
        }
        if spec.spot and low > first:
            secondary = _group("", low - first, spec.size)
            groups["secondary_worker_config"] = {**secondary, "preemptibility": "SPOT"}
        return groups

    def _software(self, spec: ClusterSpec) -> dict[str, Any]:
        version = self._config.image_version or catalogue.version("images", spec.spark_version)
        properties = {f"spark:{key}": value for key, value in spec.conf.items()}
        if spec.workers[1] < 2:
            properties["dataproc:dataproc.allow.zero.workers"] = "true"
        return {"image_version": version, "properties": properties}

    def fit(self, spec: ClusterSpec) -> Mapping[str, Fit]:
        config, fits = self._config, {**ttl.fit(spec.ttl), **conf_fit(spec.conf, DECIDED)}
        low, high = spec.workers
        if not config.machine_type:
            try:
                about = f"{catalogue.machine(spec.size)}; YARN has about four fifths of the memory"
                fits["size"] = _near(about)
            except RejectedError as error:
                fits["size"] = Fit(Verdict.REFUSED, str(error))
        else:
            fits["size"] = _near(f"{config.machine_type}, by the target's `machine_type`")
        if low < high and not config.autoscaling_policy:
            fits["workers"] = Fit(Verdict.REFUSED, _NO_POLICY)
        elif low < high:
            about = f"from {max(low, 2)}, then as policy {config.autoscaling_policy!r} says"
            fits["workers"] = _near(about)
        elif low == 1:
            fits["workers"] = _near("one machine that is the master, too: Dataproc takes 0 or 2")
        if spec.spot:
            fits["spot"] = _near("all but the first two workers, which Dataproc keeps data on")
        if spec.spark_version:
            try:
                image = config.image_version or catalogue.version("images", spec.spark_version)
                fits["spark_version"] = _near(f"the one of Dataproc's image {image}")
            except RejectedError as error:
                fits["spark_version"] = Fit(Verdict.REFUSED, str(error))
        return fits

    def machines(self, request: Request) -> Sequence[Machines] | None:
        config = request["cluster"]["config"]
        if "autoscaling_config" in config:
            return None  # the policy decides, which is elsewhere
        found = []
        for key in ("master_config", "worker_config", "secondary_worker_config"):
            if group := config.get(key):
                kind = group.get("machine_type_uri") or config["worker_config"]["machine_type_uri"]
                many, spot = group["num_instances"], group.get("preemptibility") == "SPOT"
                found.append(Machines(type=kind, least=many, most=many, spot=spot))
        return found

    def prices(self, machines: Collection[Machines]) -> Mapping[str, float]:
        return prices.hourly(self._config, self._config.region, machines)

    # -- life

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        try:
            cluster = self._got(name)
        except NotFoundError:
            return None
        return self._handle(cluster) if marks.OWNER in cluster.labels else None

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        asked = request["cluster"]
        name, labels = asked["cluster_name"], asked.get("labels", {})
        what = f"cluster {name!r}"
        marks.check(what, labels)
        project = self._client.project
        try:
            self._client.call(what, "create_cluster", {**request, "project_id": project})
        except ConflictError:
            cluster = self._got(name)
            marks.compare(what, cluster.labels, labels)
            return self._handle(cluster)
        return Handle(name=name, id=name, url=self._page(name))

    def stop(self, handle: Handle) -> None:
        request = {**self._where(), "cluster_name": handle.id}
        try:
            self._client.call(f"cluster {handle.name!r}", "delete_cluster", request)
        except NotFoundError:
            return
        except RejectedError:
            if not self._going(handle.id):
                raise

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        wanted = {h.id for h in handles}
        seen: dict[str, Status | NotFoundError] = {}
        for cluster in self._listed(""):
            if (name := cluster.cluster_name) in wanted:
                seen[name] = self._status(cluster)
        for name in wanted - seen.keys():  # too new for the list, or not there
            try:
                seen[name] = self._status(self._got(name))
            except NotFoundError as error:
                seen[name] = error
        return {h.name: seen[h.id] for h in handles}

    def _status(self, cluster: Any) -> Status:
        """What is said of a cluster; one in error costs until it is deleted, so that is done."""
        if cluster.status.state.name == "ERROR":
            self.stop(self._handle(cluster))
        return _verdict(cluster)

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        """A cluster has no log of its own; those of its machines are in Cloud Logging."""
        return LogChunk(data=b"", cursor=cursor, end=True)

    def owned(self, owner: str = "") -> Iterable[Handle]:
        return [self._handle(c) for c in self._listed(owner) if c.status.state.name != "DELETING"]

    # -- what Dataproc knows

    def _where(self) -> dict[str, str]:
        return {"project_id": self._client.project, "region": self._config.region}

    def _listed(self, owner: str) -> Iterable[Any]:
        """Clusters of portaflow's, of all pages."""
        request = {**self._where(), "filter": marks.filtered(owner), "page_size": _PAGE}
        return list(self._client.call("list of clusters", "list_clusters", request))

    def _got(self, name: str) -> Any:
        request = {**self._where(), "cluster_name": name}
        return self._client.call(f"cluster {name!r}", "get_cluster", request, _GONE)

    def _going(self, name: str) -> bool:
        """Whether a cluster is being deleted, or was."""
        try:
            return bool(self._got(name).status.state.name == "DELETING")
        except NotFoundError:
            return True

    def _handle(self, cluster: Any) -> Handle:
        name = cluster.cluster_name
        return Handle(name=name, id=name, url=self._page(name))

    def _page(self, name: str) -> str:
        region, project = self._config.region, self._client.project
        return (
            f"https://console.cloud.google.com/dataproc/clusters/{name}"
            f"?region={region}&project={project}"
        )


_GONE = "Dataproc forgets what was deleted"
_NO_POLICY = (
    "Dataproc scales by a policy: name one with `autoscaling_policy` in the target, or give one "
    "count of workers"
)


def _verdict(cluster: Any) -> Status:
    """What a cluster's status means. One that is deleted since it failed has failed."""
    told = cluster.status
    if told.state.name == "DELETING" and cluster.status_history:
        before = cluster.status_history[-1]
        told = before if before.state.name == "ERROR" else told
    state, reason = _STATES.get(told.state.name, State.PENDING), told.detail
    if state is not State.FAILED:
        return Status(state=state, reason=reason)
    low = reason.lower()
    causes = (cause for cause, words in _WORDS.items() if any(word in low for word in words))
    cause = next(causes, Cause.INFRA)
    return Status(state=state, reason=reason or "no reason given", cause=cause)


def _group(machine: str, count: int, size: Size) -> dict[str, Any]:
    group: dict[str, Any] = {"num_instances": count}
    if machine:
        group["machine_type_uri"] = machine
    if size.disk > Size().disk:
        group["disk_config"] = {"boot_disk_size_gb": max(round(size.disk), 30)}
    return group


def _near(reason: str) -> Fit:
    return Fit(Verdict.APPROXIMATED, reason)
