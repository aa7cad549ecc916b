"""GKE's clusters: google.container.v1.ClusterManager. Their endpoint is the local Kubernetes.

All clusters share it: there is one Kubernetes beside this cloud, if there is one. One cluster
is there from the start, for nobody wants to make one before every try.
"""

from __future__ import annotations

import base64
import re
import secrets
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.cloud.container_v1 import types

from ..place import Place
from .regions import REGIONS
from .rpc import Call, Code, RefusedError, Service, invalid, not_found
from .tokens import Tokens
from .world import copied

_STATUS: Any = types.Cluster.Status
_TYPE: Any = types.Operation.Type
GIVEN = "portaflow"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_PARENT = re.compile(r"projects/([^/]+)/(?:locations|zones)/([^/]+)")
_CHILD = re.compile(_PARENT.pattern + r"/(?:clusters|operations)/([^/]+)")
_VERSION = "1.34.1-gke.1000"
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class _Operation:
    message: Any
    key: Key  # of its cluster


class Container:
    """`GetCluster` and the rest take both forms of a request: a name, and its parts."""

    def __init__(self, place: Place, tokens: Tokens, project: str, region: str) -> None:
        self._place = place
        self._lock = threading.RLock()
        self._all: dict[Key, Any] = {}
        self._operations: dict[Key, _Operation] = {}
        self._known = _admit(place, tokens)
        if self._known:
            given = types.Cluster.pb()(name=GIVEN)
            self._all[project, region, GIVEN] = self._complete(given, project, region, "RUNNING")

    def service(self) -> Service:
        methods: dict[str, tuple[Any, Any]] = {
            "CreateCluster": (types.CreateClusterRequest, self._create),
            "GetCluster": (types.GetClusterRequest, self._get),
            "ListClusters": (types.ListClustersRequest, self._list),
            "DeleteCluster": (types.DeleteClusterRequest, self._delete),
            "GetOperation": (types.GetOperationRequest, self._get_operation),
            "ListOperations": (types.ListOperationsRequest, self._list_operations),
        }
        return Service("container", methods, frozenset(("CreateCluster", "DeleteCluster")))

    def _complete(self, message: Any, project: str, location: str, status: str) -> Any:
        kubernetes: Any = self._place.others.get("kubernetes")
        message.endpoint = kubernetes.url.removeprefix("https://")
        bundle = self._place.authority.bundle.read_bytes()
        message.master_auth.cluster_ca_certificate = base64.b64encode(bundle).decode()
        message.location = message.zone = location
        message.id = secrets.token_hex(32)
        message.current_master_version = message.current_node_version = _VERSION
        message.create_time = _now()
        message.current_node_count = message.initial_node_count or 1
        path = f"projects/{project}/locations/{location}/clusters/{message.name}"
        message.self_link = f"https://container.googleapis.com/v1/{path}"
        message.status = _STATUS[status]
        return message

    def _create(self, request: Any, call: Call) -> Any:
        project, location = _parent(request)
        name = request.cluster.name
        if not self._known:
            text = "a cluster needs the local Kubernetes: portaflow emulate gcp kubernetes"
            raise RefusedError(Code.FAILED_PRECONDITION, text)
        if not _NAME.fullmatch(name):
            raise invalid(f"Cluster.name '{name}' must match '{_NAME.pattern}'")
        key = (project, location, name)
        with self._lock:
            if key in self._all:
                path = "projects/{}/locations/{}/clusters/{}".format(*key)
                raise RefusedError(Code.ALREADY_EXISTS, f"Already exists: {path}.")
            self._all[key] = self._complete(
                copied(request.cluster), project, location, "PROVISIONING"
            )
            return self._begin(key, "CREATE_CLUSTER", call)

    def _begin(self, key: Key, kind: str, call: Call) -> Any:
        project, location, _ = key
        operation = types.Operation.pb()(
            name=f"operation-{secrets.token_hex(8)}",
            zone=location,
            location=location,
            operation_type=_TYPE[kind],
            status=types.Operation.Status.RUNNING,
            target_link=self._all[key].self_link,
            start_time=_now(),
        )
        link = f"projects/{project}/locations/{location}/operations/{operation.name}"
        operation.self_link = f"https://container.googleapis.com/v1/{link}"
        self._operations[project, location, operation.name] = _Operation(operation, key)
        effect = call.fault.effect if call.fault else ""
        if effect != "hang":
            timer = threading.Timer(
                2 * self._place.pace, self._end, (project, location, operation.name, effect)
            )
            timer.daemon = True
            timer.start()
        answer = types.Operation.pb()()
        answer.CopyFrom(operation)
        return answer

    def _end(self, project: str, location: str, name: str, effect: str) -> None:
        with self._lock:
            found = self._operations[project, location, name]
            message, cluster = found.message, self._all.get(found.key)
            message.status = types.Operation.Status.DONE
            message.end_time = _now()
            deleting = message.operation_type == types.Operation.Type.DELETE_CLUSTER
            if deleting:
                self._all.pop(found.key, None)
            elif effect in ("fail", "die"):
                message.error.code = Code.RESOURCE_EXHAUSTED.value[0]
                message.error.message = "Insufficient resources: a fault on order"
                if cluster is not None:
                    cluster.status = types.Cluster.Status.ERROR
                    cluster.status_message = message.error.message
            elif cluster is not None and cluster.status == types.Cluster.Status.PROVISIONING:
                cluster.status = types.Cluster.Status.RUNNING

    def _get(self, request: Any, call: Call) -> Any:
        with self._lock:
            return self._shown(self._found(_child(request, request.cluster_id)))

    def _found(self, key: Key) -> Any:
        if (found := self._all.get(key)) is None:
            raise not_found("projects/{}/locations/{}/clusters/{}.".format(*key))
        return found

    @staticmethod
    def _shown(message: Any) -> Any:
        copy = type(message)()
        copy.CopyFrom(message)
        return copy

    def _list(self, request: Any, call: Call) -> Any:
        project, location = _parent(request)
        answer = types.ListClustersResponse.pb()()
        with self._lock:
            answer.clusters.extend(
                cluster
                for (own, where, _), cluster in self._all.items()
                if own == project and location in ("-", where)
            )
        return answer

    def _delete(self, request: Any, call: Call) -> Any:
        key = _child(request, request.cluster_id)
        with self._lock:
            cluster = self._found(key)
            if cluster.status == types.Cluster.Status.STOPPING:
                text = f"Cluster {key[2]} is being deleted already."
                raise RefusedError(Code.FAILED_PRECONDITION, text)
            cluster.status = types.Cluster.Status.STOPPING
            return self._begin(key, "DELETE_CLUSTER", call)

    def _get_operation(self, request: Any, call: Call) -> Any:
        key = _child(request, request.operation_id)
        with self._lock:
            if (found := self._operations.get(key)) is None:
                raise not_found("projects/{}/locations/{}/operations/{}.".format(*key))
            return self._shown(found.message)

    def _list_operations(self, request: Any, call: Call) -> Any:
        project, location = _parent(request)
        answer = types.ListOperationsResponse.pb()()
        with self._lock:
            answer.operations.extend(
                operation.message
                for (own, where, _), operation in self._operations.items()
                if own == project and location in ("-", where)
            )
        return answer


def _admit(place: Place, tokens: Tokens) -> bool:
    """Let the local Kubernetes, if there is one, know our tokens, as GKE knows Google's."""
    kubernetes: Any = place.others.get("kubernetes")
    if kubernetes is None:
        return False
    from ..kubernetes.access import User

    def ask(token: str) -> User | None:
        who = tokens.principal(f"Bearer {token}")
        return User(who, "admin") if who else None

    kubernetes.authenticate_by(ask)
    return True


def _parent(request: Any) -> tuple[str, str]:
    if not request.parent:
        return request.project_id, _place(request.zone)
    if not (found := _PARENT.fullmatch(request.parent)):
        raise invalid(f"Parent '{request.parent}' is not projects/*/locations/*")
    return found[1], _place(found[2])


def _child(request: Any, last: str) -> Key:
    if not request.name:
        return request.project_id, _place(request.zone), last
    if not (found := _CHILD.fullmatch(request.name)):
        raise invalid(f"Name '{request.name}' is not projects/*/locations/*/...")
    return found[1], _place(found[2]), found[3]


def _place(location: str) -> str:
    """A region, a zone of one, or "-" for all."""
    if location != "-" and re.sub("-[a-f]$", "", location) not in REGIONS:
        text = f"Permission denied on 'locations/{location}' (or it may not exist)."
        raise RefusedError(Code.PERMISSION_DENIED, text)
    return location


def _now() -> str:
    return datetime.now(UTC).isoformat()
