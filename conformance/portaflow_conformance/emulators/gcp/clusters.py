"""Dataproc's clusters: google.cloud.dataproc.v1.ClusterController.

A cluster is a message with states that take time; what it runs runs on this machine. Its
times-to-live go by the clock of the control, so that tests can let them age at once.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

from google.cloud.dataproc_v1 import types
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from . import checks
from .cluster import Cluster, State, complete, over, take
from .driver import Shop
from .initialization import Initialization
from .paging import matches, page, terms
from .policies import Policies
from .rpc import Call, Code, RefusedError, Service, invalid, not_found
from .world import Operations, World, copied, stamp

Key = tuple[str, str, str]

_ACTIVE = ("CREATING", "UPDATING", "RUNNING", "REPAIRING", "STARTING")
_GROUPS = {
    "ACTIVE": _ACTIVE,
    "INACTIVE": ("DELETING", "ERROR", "STOPPING", "STOPPED"),
}
_UPDATABLE = (
    "labels",
    "config.worker_config.num_instances",
    "config.secondary_worker_config.num_instances",
    "config.autoscaling_config.policy_uri",
    "config.lifecycle_config",
)


class Clusters:
    """All clusters. `busy` tells whether a cluster has active jobs, `end_jobs` ends them."""

    def __init__(
        self, world: World, operations: Operations, policies: Policies, shop: Shop
    ) -> None:
        self._world, self._operations = world, operations
        self._policies, self._shop = policies, shop
        policies.used = lambda name: any(
            cluster.message.config.autoscaling_config.policy_uri == name
            for cluster in self._all.values()
        )
        self._all: dict[Key, Cluster] = {}
        self._asked: dict[tuple[str, str], Any] = {}  # (method, request id) -> operation
        self.busy: Callable[[Cluster], bool] = lambda cluster: False
        self.end_jobs: Callable[[Cluster, str], None] = lambda cluster, why: None

    def service(self) -> Service:
        methods: dict[str, tuple[Any, Any]] = {
            "CreateCluster": (types.CreateClusterRequest, self._create),
            "GetCluster": (types.GetClusterRequest, self._get),
            "ListClusters": (types.ListClustersRequest, self._list),
            "UpdateCluster": (types.UpdateClusterRequest, self._update),
            "DeleteCluster": (types.DeleteClusterRequest, self._delete),
            "StopCluster": (types.StopClusterRequest, self._stop),
            "StartCluster": (types.StartClusterRequest, self._start),
        }
        begins = ("CreateCluster", "UpdateCluster", "DeleteCluster", "StopCluster", "StartCluster")
        return Service("dataproc", methods, frozenset(begins))

    def find(self, project: str, region: str, name: str) -> Cluster:
        if (found := self._all.get((project, region, name))) is None:
            raise not_found(f"Cluster projects/{project}/regions/{region}/clusters/{name}")
        return found

    def die(self, cluster: Cluster, why: str) -> None:
        """Let a cluster break down: it stays, in error, until it is deleted."""
        cluster.enter(State.ERROR, why)
        self.end_jobs(cluster, why)

    def _create(self, request: Any, call: Call) -> Any:
        project, region, asked = request.project_id, request.region, request.cluster
        checks.check_place(project, region, request.request_id)
        with self._world.lock:
            if (known := self._known("create", request)) is not None:
                return known
            if asked.project_id not in ("", project):
                raise invalid("Cluster's project does not match the request's")
            checks.check_cluster(asked, self._shop.objects)
            policy = self._policy(asked, project, region)
            key = (project, region, asked.cluster_name)
            if key in self._all:
                where = f"projects/{project}/regions/{region}/clusters/{asked.cluster_name}"
                text = f"Already exists: Failed to create cluster: Cluster {where}"
                raise RefusedError(Code.ALREADY_EXISTS, text)
            message = copied(asked)
            message.project_id = project
            message.cluster_uuid = str(uuid.uuid4())
            complete(message, region, self._shop.objects)
            message.config.autoscaling_config.policy_uri = policy
            hidden = self._world.hidden_until(call.fault)
            now = self._world.now()
            cluster = Cluster(message, self._world.number(), call.fault, hidden, born=now)
            cluster.enter(State.CREATING)
            self._all[key] = cluster
            self._world.watched[key] = lambda: self._age(key, cluster)
            operation = self._begin("create", request, cluster, region)
            if not (call.fault and call.fault.effect == "hang"):
                self._world.after(1.0, lambda: self._made(cluster, operation))
            return copied(operation)

    def _policy(self, asked: Any, project: str, region: str) -> str:
        uri = asked.config.autoscaling_config.policy_uri
        return self._policies.check(uri, project, region) if uri else ""

    def _made(self, cluster: Cluster, operation: Any) -> None:
        """The machines are there: initialize them."""
        if cluster.fault and cluster.fault.effect == "fail" and cluster.state == "CREATING":
            why = "Insufficient resources: a fault on order"
            cluster.enter(State.ERROR, why)
            self._operations.fail(operation, Code.RESOURCE_EXHAUSTED, why)
            return
        cluster.initialization = Initialization(self._shop, cluster.message, self._world.now)
        self._world.watched[operation.name] = lambda: self._initialize(cluster, operation)

    def _initialize(self, cluster: Cluster, operation: Any) -> None:
        assert cluster.initialization is not None
        problem = None
        if cluster.state == "CREATING" and (problem := cluster.initialization.look()) is None:
            return
        del self._world.watched[operation.name]
        if cluster.state != "CREATING":  # it was deleted meanwhile
            cluster.initialization.stop()
            self._operations.fail(operation, Code.ABORTED, "The cluster was deleted.")
        elif problem:
            cluster.enter(State.ERROR, problem)
            self._operations.fail(operation, Code.INVALID_ARGUMENT, problem)
        else:
            cluster.enter(State.RUNNING)
            cluster.ready = cluster.idle = self._world.now()
            self._operations.finish(operation, cluster.message)

    def stop(self) -> None:
        """End what still initializes clusters."""
        for cluster in self._all.values():
            if cluster.initialization is not None:
                cluster.initialization.stop()

    def _known(self, method: str, request: Any) -> Any:
        """The operation that a request with this id began before."""
        known = self._asked.get((method, request.request_id)) if request.request_id else None
        return None if known is None else copied(known)

    def _begin(self, method: str, request: Any, cluster: Cluster, region: str) -> Any:
        message = cluster.message
        metadata = types.ClusterOperationMetadata.pb()(
            cluster_name=message.cluster_name,
            cluster_uuid=message.cluster_uuid,
            operation_type=method.upper(),
            labels=dict(message.labels),
        )
        parent = f"projects/{message.project_id}/regions/{region}"
        operation = self._operations.begin(parent, metadata)
        if request is not None and request.request_id:
            self._asked[method, request.request_id] = operation
        return operation

    def _get(self, request: Any, call: Call) -> Any:
        checks.check_place(request.project_id, request.region)
        with self._world.lock:
            return copied(
                self.find(request.project_id, request.region, request.cluster_name).message
            )

    def _list(self, request: Any, call: Call) -> Any:
        checks.check_place(request.project_id, request.region)
        wanted = terms(request.filter)
        with self._world.lock:
            now = self._world.now()
            found = [
                cluster
                for (project, region, name), cluster in self._all.items()
                if (project, region) == (request.project_id, request.region)
                and cluster.hidden <= now
                and matches(
                    wanted,
                    {"status.state": cluster.state, "clusterName": name, "cluster_name": name},
                    cluster.message.labels,
                    _GROUPS,
                )
            ]
            shown, token = page(found, request.page_size, request.page_token, lambda c: c.number)
            answer = types.ListClustersResponse.pb()(next_page_token=token)
            answer.clusters.extend(cluster.message for cluster in shown)
            return answer

    def _update(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            if (known := self._known("update", request)) is not None:
                return known
            paths = list(request.update_mask.paths)
            if not paths:
                raise invalid("Update mask must not be empty")
            for path in paths:
                if not path.startswith(_UPDATABLE):
                    raise invalid(f"Update mask: {path} cannot be updated")
            checks.check_labels(request.cluster.labels)
            checks.check_lifecycle(request.cluster.config.lifecycle_config)
            policy = self._policy(request.cluster, request.project_id, request.region)
            cluster = self._in_state(request, ("RUNNING",), "updated")

            def apply() -> None:
                for path in paths:
                    take(cluster.message, request.cluster, path.split("."))
                complete(cluster.message, request.region, self._shop.objects)
                if policy:
                    cluster.message.config.autoscaling_config.policy_uri = policy

            return self._through(
                "update", request, call, cluster, State.UPDATING, State.RUNNING, apply
            )

    def _stop(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            if (known := self._known("stop", request)) is not None:
                return known
            cluster = self._in_state(request, ("RUNNING", "ERROR"), "stopped")
            return self._halt(request, call, cluster)

    def _halt(self, request: Any, call: Call, cluster: Cluster) -> Any:
        self.end_jobs(cluster, "The cluster was stopped.")
        return self._through("stop", request, call, cluster, State.STOPPING, State.STOPPED)

    def _start(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            if (known := self._known("start", request)) is not None:
                return known
            cluster = self._in_state(request, ("STOPPED",), "started")
            return self._through("start", request, call, cluster, State.STARTING, State.RUNNING)

    def _in_state(self, request: Any, states: Iterable[str], what: str) -> Cluster:
        checks.check_place(request.project_id, request.region, request.request_id)
        cluster = self.find(request.project_id, request.region, request.cluster_name)
        uuid_asked = getattr(request, "cluster_uuid", "")
        if uuid_asked not in ("", cluster.message.cluster_uuid):
            raise not_found(f"Cluster with uuid {uuid_asked}")
        if cluster.state not in states:
            text = f"Cluster '{request.cluster_name}' in state {cluster.state} cannot be {what}"
            raise RefusedError(Code.FAILED_PRECONDITION, text)
        return cluster

    def _through(
        self, method: str, request: Any, call: Call, cluster: Cluster, during: int, after: int,
        apply: Callable[[], None] = lambda: None,
    ) -> Any:  # fmt: skip
        cluster.enter(during)
        operation = self._begin(method, request, cluster, request.region)

        def done() -> None:
            if cluster.message.status.state != during:
                text = f"The cluster is {cluster.state}."
                self._operations.fail(operation, Code.ABORTED, text)
                return
            apply()
            cluster.enter(after)
            cluster.idle = self._world.now()
            self._operations.finish(operation, cluster.message)

        if not (call.fault and call.fault.effect == "hang"):
            self._world.after(0.5, done)
        return copied(operation)

    def _delete(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            if (known := self._known("delete", request)) is not None:
                return known
            states = set(State.__members__) - {"DELETING"}
            cluster = self._in_state(request, states, "deleted")
            return self._remove(request, call, cluster, request.region)

    def _remove(self, request: Any, call: Call | None, cluster: Cluster, region: str) -> Any:
        message = cluster.message
        key = (message.project_id, region, message.cluster_name)
        cluster.enter(State.DELETING)
        operation = self._begin("delete", request, cluster, region)
        self.end_jobs(cluster, f"Cluster {message.cluster_name} was deleted.")

        def gone() -> None:
            self._all.pop(key, None)
            self._world.watched.pop(key, None)
            self._operations.finish(operation, empty_pb2.Empty())

        if not (call and call.fault and call.fault.effect == "hang"):
            self._world.after(0.5, gone)
        return copied(operation)

    def _age(self, key: Key, cluster: Cluster) -> None:
        """Let times-to-live fire, and a cluster die that was ordered to."""
        if cluster.state not in ("RUNNING", "ERROR", "STOPPED"):
            return
        now, message = self._world.now(), cluster.message
        busy = cluster.state == "RUNNING" and self.busy(cluster)
        if busy:
            cluster.idle = now
        fault = cluster.fault
        dies = fault is not None and fault.effect == "die" and cluster.state == "RUNNING"
        if dies and fault and (now >= cluster.ready + fault.seconds if fault.seconds else busy):
            self.die(cluster, "The master is unreachable: a fault on order")
            return
        life = message.config.lifecycle_config
        life.idle_start_time.CopyFrom(stamp(cluster.idle or now))
        if over(life, "delete", now, cluster.born, cluster.idle or now):
            self._remove(None, None, cluster, key[1])
        elif cluster.state == "RUNNING" and over(life, "stop", now, cluster.born, cluster.idle):
            request = types.StopClusterRequest.pb()(region=key[1])
            self._halt(request, Call("dataproc", None), cluster)
