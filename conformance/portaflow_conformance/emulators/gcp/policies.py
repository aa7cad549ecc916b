"""Dataproc's autoscaling policies: google.cloud.dataproc.v1.AutoscalingPolicyService.

They are kept, checked, and named by clusters. No cluster grows or shrinks by one: its jobs run
on this machine, whatever its size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.cloud.dataproc_v1 import types
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from . import checks
from .paging import page
from .rpc import Call, Code, RefusedError, Service, invalid, not_found
from .world import World, copied

_PARENT = re.compile(r"projects/([^/]+)/(?:locations|regions)/([^/]+)")
_NAME = re.compile(_PARENT.pattern + r"/autoscalingPolicies/([^/]+)")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{1,48}[A-Za-z0-9]")
_DAY = 86_400.0


@dataclass(slots=True)
class _Policy:
    message: Any
    number: int


class Policies:
    """`used` tells whether a cluster is by the policy of that name."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all: dict[str, _Policy] = {}
        self.used: Callable[[str], bool] = lambda name: False

    def service(self) -> Service:
        methods: dict[str, tuple[Any, Any]] = {
            "CreateAutoscalingPolicy": (types.CreateAutoscalingPolicyRequest, self._create),
            "UpdateAutoscalingPolicy": (types.UpdateAutoscalingPolicyRequest, self._update),
            "GetAutoscalingPolicy": (types.GetAutoscalingPolicyRequest, self._get),
            "ListAutoscalingPolicies": (types.ListAutoscalingPoliciesRequest, self._list),
            "DeleteAutoscalingPolicy": (types.DeleteAutoscalingPolicyRequest, self._delete),
        }
        return Service("dataproc", methods)

    def check(self, uri: str, project: str, region: str) -> str:
        """The whole name of a policy that a cluster names. Raises RefusedError."""
        name = _whole(uri[uri.find("projects/") :] if "projects/" in uri else uri)
        if not name.startswith(f"projects/{project}/regions/{region}/"):
            raise invalid(f"Autoscaling policy '{uri}' is not of the cluster's project and region")
        return str(self._found(name).message.name)

    def _found(self, name: str) -> _Policy:
        if (found := self._all.get(_whole(name))) is None:
            raise not_found(f"Autoscaling policy {name}")
        return found

    def _create(self, request: Any, call: Call) -> Any:
        project, region = _parent(request.parent)
        checks.check_place(project, region)
        policy = request.policy
        if not _ID.fullmatch(policy.id):
            raise invalid(f"Invalid policy id '{policy.id}': it must match '{_ID.pattern}'")
        _check(policy)
        name = f"projects/{project}/regions/{region}/autoscalingPolicies/{policy.id}"
        with self._world.lock:
            if name in self._all:
                text = f"Already exists: Autoscaling policy {name}"
                raise RefusedError(Code.ALREADY_EXISTS, text)
            message = _completed(policy, name)
            self._all[name] = _Policy(message, self._world.number())
            return copied(message)

    def _update(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            found = self._found(request.policy.name)
            _check(request.policy)
            found.message = _completed(request.policy, found.message.name)
            return copied(found.message)

    def _get(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            return copied(self._found(request.name).message)

    def _list(self, request: Any, call: Call) -> Any:
        inside = "projects/{}/regions/{}/".format(*_parent(request.parent))
        with self._world.lock:
            found = [policy for name, policy in self._all.items() if name.startswith(inside)]
            shown, token = page(found, request.page_size, request.page_token, lambda p: p.number)
            answer = types.ListAutoscalingPoliciesResponse.pb()(next_page_token=token)
            answer.policies.extend(policy.message for policy in shown)
            return answer

    def _delete(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            name = self._found(request.name).message.name
            if self.used(name):
                text = f"Autoscaling policy {name} is used by clusters; it cannot be deleted"
                raise RefusedError(Code.FAILED_PRECONDITION, text)
            del self._all[name]
        return empty_pb2.Empty()


def _parent(text: str) -> tuple[str, str]:
    if not (found := _PARENT.fullmatch(text)):
        raise invalid(f"Invalid parent: '{text}'")
    return found[1], found[2]


def _whole(name: str) -> str:
    if not (found := _NAME.fullmatch(name)):
        raise invalid(f"Invalid autoscaling policy name: '{name}'")
    return "projects/{}/regions/{}/autoscalingPolicies/{}".format(*found.groups())


def _completed(policy: Any, name: str) -> Any:
    message = copied(policy)
    message.name, message.id = name, name.rpartition("/")[2]
    algorithm = message.basic_algorithm
    if not algorithm.HasField("cooldown_period"):
        algorithm.cooldown_period.FromSeconds(120)
    workers = message.worker_config
    workers.min_instances = workers.min_instances or 2
    workers.weight = workers.weight or 1
    return message


def _check(policy: Any) -> None:
    checks.check_labels(policy.labels)
    algorithm, workers = policy.basic_algorithm, policy.worker_config
    if not algorithm.HasField("yarn_config"):
        raise invalid("An autoscaling policy needs basic_algorithm.yarn_config")
    if not workers.max_instances:
        raise invalid("worker_config.max_instances is required")
    for field, config in (
        ("worker", workers),
        ("secondary_worker", policy.secondary_worker_config),
    ):
        least = config.min_instances or (2 if field == "worker" else 0)
        if config.max_instances < least and config.ByteSize():
            raise invalid(f"{field}_config.max_instances must be at least {least}")
    for word in ("scale_up_factor", "scale_down_factor"):
        if not 0 <= getattr(algorithm.yarn_config, word) <= 1:
            raise invalid(f"yarn_config.{word} must be from 0.0 to 1.0")
    if algorithm.HasField("yarn_config") and not algorithm.yarn_config.HasField(
        "graceful_decommission_timeout"
    ):
        raise invalid("yarn_config.graceful_decommission_timeout is required")
    bounds = (
        ("cooldown_period", algorithm, 120.0),
        ("graceful_decommission_timeout", algorithm.yarn_config, 0.0),
    )
    for word, holder, low in bounds:
        seconds = getattr(holder, word).ToTimedelta().total_seconds()
        if holder.HasField(word) and not low <= seconds <= _DAY:
            raise invalid(f"{word} must be from {low:.0f} s to one day")
