"""EMR: its calls, on clusters whose states take time and whose steps are processes."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, ClassVar

from . import releases
from .cluster import Cluster
from .policies import Policies, auto_termination, no_such, paged, scaling
from .rest import Asked, invalid
from .shapes import check
from .shop import Shop
from .step import Step

Json = dict[str, Any]

_MOST_IDS = 10


class Emr(Policies):
    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self._shop = shop
        self._lock = threading.RLock()
        self._clusters: dict[str, Cluster] = {}

    def do(self, operation: str, asked: Asked) -> Json:
        if operation in self.calls:
            check("emr", operation, asked.body)
        with self._lock:
            return super().do(operation, asked)

    def stop(self) -> None:
        for cluster in self._clusters.values():
            cluster.finish("INTERNAL_ERROR", "The local AWS was stopped")
        for cluster in self._clusters.values():
            cluster.join()

    # Clusters

    def run(self, asked: Asked) -> Json:
        given = dict(asked.body)
        _check_release(given, asked.region)
        for role, what in (("ServiceRole", "ServiceRole"), ("JobFlowRole", "InstanceProfile")):
            if not given.get(role):
                raise invalid(f"{what} is required for creating cluster.")
        _check_concurrency(given.get("StepConcurrencyLevel", 1))
        if name := given.get("SecurityConfiguration"):
            self.security(name, asked.region)
        cluster = Cluster(self._shop, asked.region, given, asked.fault)
        if "AutoTerminationPolicy" in given:
            cluster.auto_termination = auto_termination(given["AutoTerminationPolicy"])
        if "ManagedScalingPolicy" in given:
            cluster.scaling = scaling(given["ManagedScalingPolicy"], cluster.nodes.fleets)
        cluster.tags = _tags(given.get("Tags", ()))
        runs_as = _role(given.get("StepExecutionRoleArn"))
        cluster.add_steps([{**step, **runs_as} for step in given.get("Steps", ())], None)
        self._clusters[cluster.id] = cluster
        cluster.begin()
        return {"JobFlowId": cluster.id, "ClusterArn": cluster.arn}

    def describe(self, asked: Asked) -> Json:
        return {"Cluster": self.cluster(asked).told()}

    def list_all(self, asked: Asked) -> Json:
        body = asked.body
        states = body.get("ClusterStates")
        after, before = body.get("CreatedAfter", 0), body.get("CreatedBefore", float("inf"))
        found = [
            cluster.summary()
            for cluster in reversed(self._clusters.values())
            if cluster.region == asked.region and not cluster.hidden()
            if after <= cluster.created <= before
        ]
        return paged("Clusters", [c for c in found if not states or _state(c) in states], asked)

    def terminate(self, asked: Asked) -> Json:
        clusters = self._job_flows(asked)
        for cluster in clusters:
            if not cluster.protected:
                cluster.finish("USER_REQUEST", "Terminated by user request")
        if any(cluster.protected and cluster.state[:9] != "TERMINATE" for cluster in clusters):
            raise invalid(
                "Could not shut down one or more job flows since they are termination protected."
            )
        return {}

    def protect(self, asked: Asked) -> Json:
        for cluster in self._job_flows(asked):
            cluster.need_alive()
            cluster.protected = asked.body["TerminationProtected"]
        return {}

    def keep_alive(self, asked: Asked) -> Json:
        for cluster in self._job_flows(asked):
            cluster.need_alive()
            cluster.keep_alive = asked.body["KeepJobFlowAliveWhenNoSteps"]
        return {}

    def replace(self, asked: Asked) -> Json:
        for cluster in self._job_flows(asked):
            cluster.need_alive()
            cluster.replaces = asked.body["UnhealthyNodeReplacement"]
        return {}

    def show(self, asked: Asked) -> Json:
        for cluster in self._job_flows(asked):
            cluster.visible = asked.body["VisibleToAllUsers"]
        return {}

    def modify(self, asked: Asked) -> Json:
        cluster = self.cluster(asked)
        cluster.need_alive()
        level = asked.body.get("StepConcurrencyLevel", cluster.concurrency)
        _check_concurrency(level)
        cluster.concurrency = level
        return {"StepConcurrencyLevel": level}

    def add_tags(self, asked: Asked) -> Json:
        cluster = self._tagged(asked)
        cluster.tags |= _tags(asked.body["Tags"])
        return {}

    def remove_tags(self, asked: Asked) -> Json:
        cluster = self._tagged(asked)
        for key in asked.body["TagKeys"]:
            cluster.tags.pop(key, None)
        return {}

    # Steps

    def add_steps(self, asked: Asked) -> Json:
        cluster = self._job_flow(asked.body["JobFlowId"], asked.region)
        role = _role(asked.body.get("ExecutionRoleArn"))
        given = [{**step, **role} for step in asked.body["Steps"]]
        return {"StepIds": [step.id for step in cluster.add_steps(given, asked.fault)]}

    def list_steps(self, asked: Asked) -> Json:
        cluster = self.cluster(asked)
        ids, states = asked.body.get("StepIds"), asked.body.get("StepStates")
        if ids and states:
            raise no_such("Cannot specify both StepIds and StepStates.")
        if len(ids or ()) > _MOST_IDS:
            raise no_such(f"StepIds must have at most {_MOST_IDS} elements.")
        steps: Iterable[Step] = reversed([s for s in cluster.steps if not s.hidden()])
        if ids:
            steps = [_step(cluster, id) for id in ids]
        found = [step.told() for step in steps]
        return paged("Steps", [s for s in found if not states or _state(s) in states], asked)

    def describe_step(self, asked: Asked) -> Json:
        return {"Step": _step(self.cluster(asked), asked.body["StepId"]).told()}

    def cancel_steps(self, asked: Asked) -> Json:
        cluster, body = self.cluster(asked), asked.body
        forced = body.get("StepCancellationOption") == "TERMINATE_PROCESS"
        told = cluster.cancel(body["StepIds"], *([0.0] if forced else ()))
        return {"CancelStepsInfoList": told}

    def list_bootstrap_actions(self, asked: Asked) -> Json:
        found = [
            {
                "Name": one["Name"],
                "ScriptPath": one["ScriptBootstrapAction"]["Path"],
                "Args": one["ScriptBootstrapAction"].get("Args", []),
            }
            for one in self.cluster(asked).given.get("BootstrapActions", ())
        ]
        return paged("BootstrapActions", found, asked)

    # Machines

    def list_groups(self, asked: Asked) -> Json:
        return self._list_nodes(asked, False, "ListInstanceGroups")

    def list_fleets(self, asked: Asked) -> Json:
        return self._list_nodes(asked, True, "ListInstanceFleets")

    def _list_nodes(self, asked: Asked, fleets: bool, operation: str) -> Json:
        cluster = self.cluster(asked)
        cluster.nodes.need(fleets, operation)
        status = cluster.status()
        found = [group.told(status) for group in cluster.nodes.groups]
        return paged(operation.removeprefix("List"), found, asked)

    def list_instances(self, asked: Asked) -> Json:
        cluster, body = self.cluster(asked), asked.body
        group = body.get("InstanceGroupId") or body.get("InstanceFleetId")
        roles = body.get("InstanceGroupTypes") or [body.get("InstanceFleetType")]
        states, status = body.get("InstanceStates"), cluster.status()
        groups = [cluster.nodes.one(group)] if group else cluster.nodes.groups
        found = [
            one
            for each in groups
            if roles == [None] or each.role in roles
            for one in each.members(status)
        ]
        return paged("Instances", [i for i in found if not states or _state(i) in states], asked)

    def add_groups(self, asked: Asked) -> Json:
        cluster = self._job_flow(asked.body["JobFlowId"], asked.region)
        cluster.nodes.need(False, "AddInstanceGroups")
        cluster.need_alive()
        new = cluster.nodes.add(asked.body["InstanceGroups"])
        ids = [group.id for group in new]
        return {"JobFlowId": cluster.id, "InstanceGroupIds": ids, "ClusterArn": cluster.arn}

    def add_fleet(self, asked: Asked) -> Json:
        cluster = self.cluster(asked)
        cluster.nodes.need(True, "AddInstanceFleet")
        cluster.need_alive()
        (new,) = cluster.nodes.add([asked.body["InstanceFleet"]])
        return {"ClusterId": cluster.id, "InstanceFleetId": new.id, "ClusterArn": cluster.arn}

    def modify_groups(self, asked: Asked) -> Json:
        for change in asked.body.get("InstanceGroups", ()):
            cluster, group = self._group(change["InstanceGroupId"], asked.region)
            if cluster.state not in ("RUNNING", "WAITING"):
                raise invalid(
                    "An instance group may only be modified when the cluster is running or waiting"
                )
            for name in ("InstanceCount", "Configurations"):
                if name in change:
                    group.given = {**group.given, name: change[name]}
            group.resize()
        return {}

    def modify_fleet(self, asked: Asked) -> Json:
        cluster, change = self.cluster(asked), asked.body["InstanceFleet"]
        cluster.nodes.need(True, "ModifyInstanceFleet")
        cluster.need_alive()
        group = cluster.nodes.one(change["InstanceFleetId"])
        kept = {k: v for k, v in change.items() if k != "InstanceFleetId"}
        group.given = {**group.given, **kept}
        group.resize()
        return {}

    def _group(self, id: str, region: str) -> tuple[Cluster, Any]:
        for cluster in self._clusters.values():
            for group in cluster.nodes.groups:
                if group.id == id and cluster.region == region:
                    return cluster, group
        raise no_such(f"Instance group id '{id}' is not valid.")

    calls: ClassVar = {
        **Policies.calls,
        "RunJobFlow": run,
        "DescribeCluster": describe,
        "ListClusters": list_all,
        "TerminateJobFlows": terminate,
        "SetTerminationProtection": protect,
        "SetKeepJobFlowAliveWhenNoSteps": keep_alive,
        "SetUnhealthyNodeReplacement": replace,
        "SetVisibleToAllUsers": show,
        "ModifyCluster": modify,
        "AddTags": add_tags,
        "RemoveTags": remove_tags,
        "AddJobFlowSteps": add_steps,
        "ListSteps": list_steps,
        "DescribeStep": describe_step,
        "CancelSteps": cancel_steps,
        "ListBootstrapActions": list_bootstrap_actions,
        "ListInstanceGroups": list_groups,
        "ListInstanceFleets": list_fleets,
        "ListInstances": list_instances,
        "AddInstanceGroups": add_groups,
        "AddInstanceFleet": add_fleet,
        "ModifyInstanceGroups": modify_groups,
        "ModifyInstanceFleet": modify_fleet,
    }

    def cluster(self, asked: Asked) -> Cluster:
        id = asked.body["ClusterId"]
        found = self._clusters.get(id)
        if found is None or found.region != asked.region:
            raise no_such(f"Cluster id '{id}' is not valid.")
        return found

    def _tagged(self, asked: Asked) -> Cluster:
        id = asked.body["ResourceId"]
        found = self._clusters.get(id)
        if found is None or found.region != asked.region:
            raise no_such(f"Resource ID '{id}' is not valid.")
        if found.state.startswith("TERMINATED"):
            raise no_such("Tags cannot be modified on terminated clusters.")
        return found

    def _job_flow(self, id: str, region: str) -> Cluster:
        found = self._clusters.get(id)
        if found is None or found.region != region:
            raise invalid("Specified job flow ID not valid")
        return found

    def _job_flows(self, asked: Asked) -> list[Cluster]:
        ids = asked.body["JobFlowIds"]
        if not ids:
            raise invalid("The JobFlowId list cannot be empty")
        return [self._job_flow(id, asked.region) for id in ids]


def _state(told: Json) -> str:
    state: str = told["Status"]["State"]
    return state


def _step(cluster: Cluster, id: str) -> Step:
    for step in cluster.steps:
        if step.id == id:
            return step
    raise no_such(f"Step id '{id}' is not valid.")


def _role(arn: str | None) -> Json:
    return {"ExecutionRoleArn": arn} if arn else {}


def _check_release(given: Json, region: str) -> None:
    label, image = given.get("ReleaseLabel"), given.get("AmiVersion")
    if label and image:
        raise invalid(
            "Only one AMI version and release label may be specified. Provided AMI: "
            f"{image}, release label: {label}."
        )
    if image:
        raise invalid("The supplied ami version is invalid.")
    if not label:
        raise invalid(
            "Must specify exactly one of the following: release label, AMI version, or Hadoop "
            "version."
        )
    if label not in releases.labels(region):
        raise invalid(f"The supplied release label is invalid: {label}.")
    if given.get("SupportedProducts") or given.get("NewSupportedProducts"):
        raise invalid(
            "Cannot specify supported products when release label is used. Specify applications "
            "instead."
        )


def _check_concurrency(level: int) -> None:
    if not 1 <= level <= 256:
        raise invalid("StepConcurrencyLevel must be from 1 to 256.")


def _tags(given: Iterable[Json]) -> dict[str, str]:
    found: dict[str, str] = {}
    for tag in given:
        key, value = tag.get("Key") or "", tag.get("Value") or ""
        if not 1 <= len(key) <= 128 or key.lower().startswith("aws:"):
            raise no_such(
                f"Invalid tag key: '{key or 'null'}'. Tag keys must be between 1 and 128 "
                "characters in length."
            )
        if len(value) > 256:
            raise no_such(
                f"Invalid tag value: '{value}'. Tag values must be between 1 and 256 characters "
                "in length."
            )
        found[key] = value
    return found
