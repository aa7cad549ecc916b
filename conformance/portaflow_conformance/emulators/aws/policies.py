"""EMR beside clusters and steps: policies, security configurations, and what its releases have."""

from __future__ import annotations

import base64
import json
import time
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from . import releases
from .cluster import Cluster
from .rest import ACCOUNT, Asked, RefusedError, Service, invalid

Json = dict[str, Any]

_PAGE = 50


def no_such(message: str) -> RefusedError:
    return RefusedError(400, "InvalidRequestException", message)


def auto_termination(given: Json) -> Json:
    timeout = given.get("IdleTimeout", 3600)
    if not 60 <= timeout <= 604_800:
        raise invalid("IdleTimeout must be from 60 to 604800 seconds.")
    return {"IdleTimeout": timeout}


def scaling(given: Json, fleets: bool) -> Json:
    """A managed scaling policy that fits the kind of cluster."""
    limits = given.get("ComputeLimits")
    if limits is None:
        raise invalid("ComputeLimits must be specified in the managed scaling policy.")
    if (limits["UnitType"] == "InstanceFleetUnits") != fleets:
        kind = "fleets" if fleets else "groups"
        why = f"UnitType {limits['UnitType']} is not valid for a cluster with instance {kind}."
        raise invalid(why)
    least, most = limits["MinimumCapacityUnits"], limits["MaximumCapacityUnits"]
    if not 1 <= least <= most:
        raise invalid(
            "MinimumCapacityUnits must be at least 1 and not greater than MaximumCapacityUnits."
        )
    for name in ("MaximumOnDemandCapacityUnits", "MaximumCoreCapacityUnits"):
        if limits.get(name, 0) > most:
            raise invalid(f"{name} must not be greater than MaximumCapacityUnits.")
    return given


def paged(name: str, things: Sequence[Any], asked: Asked, mark: str = "Marker") -> Json:
    """A page of a listing; its marker names the last thing, for others may come before it."""
    marker, start = asked.body.get(mark), 0
    keys = [(isinstance(one, dict) and one.get("Id")) or json.dumps(one) for one in things]
    if marker:
        try:
            start = keys.index(base64.b64decode(marker, validate=True).decode()) + 1
        except ValueError:
            raise no_such(f"{mark} '{marker}' is not valid.") from None
    end = start + asked.body.get("MaxResults", _PAGE)
    told: Json = {name: list(things[start:end])}
    if end < len(things):
        told[mark] = base64.b64encode(keys[end - 1].encode()).decode()
    return told


class Policies(Service):
    def __init__(self) -> None:
        self._security: dict[tuple[str, str], Json] = {}
        self._public: dict[str, Json] = {}

    @abstractmethod
    def cluster(self, asked: Asked) -> Cluster:
        """The cluster that a call names."""

    def put_auto_termination(self, asked: Asked) -> Json:
        cluster = self.cluster(asked)
        cluster.need_alive()
        cluster.auto_termination = auto_termination(asked.body.get("AutoTerminationPolicy", {}))
        return {}

    def get_auto_termination(self, asked: Asked) -> Json:
        return {"AutoTerminationPolicy": self.cluster(asked).auto_termination}

    def remove_auto_termination(self, asked: Asked) -> Json:
        self.cluster(asked).auto_termination = None
        return {}

    def put_scaling(self, asked: Asked) -> Json:
        cluster = self.cluster(asked)
        cluster.need_alive()
        cluster.scaling = scaling(asked.body["ManagedScalingPolicy"], cluster.nodes.fleets)
        return {}

    def get_scaling(self, asked: Asked) -> Json:
        return {"ManagedScalingPolicy": self.cluster(asked).scaling}

    def remove_scaling(self, asked: Asked) -> Json:
        self.cluster(asked).scaling = None
        return {}

    def put_group_scaling(self, asked: Asked) -> Json:
        cluster, policy = self.cluster(asked), asked.body["AutoScalingPolicy"]
        cluster.nodes.need(False, "PutAutoScalingPolicy")
        group = cluster.nodes.one(asked.body["InstanceGroupId"])
        if group.role == "MASTER":
            raise invalid("An automatic scaling policy cannot be attached to the master group.")
        group.given = {**group.given, "AutoScalingPolicy": policy}
        return {
            "ClusterId": cluster.id,
            "InstanceGroupId": group.id,
            "AutoScalingPolicy": {**policy, "Status": {"State": "ATTACHED"}},
            "ClusterArn": cluster.arn,
        }

    def remove_group_scaling(self, asked: Asked) -> Json:
        group = self.cluster(asked).nodes.one(asked.body["InstanceGroupId"])
        group.given = {k: v for k, v in group.given.items() if k != "AutoScalingPolicy"}
        return {}

    def create_security(self, asked: Asked) -> Json:
        name, text = asked.body["Name"], asked.body["SecurityConfiguration"]
        if (asked.region, name) in self._security:
            raise no_such(f"SecurityConfiguration with name '{name}' already exists.")
        try:
            json.loads(text)
        except ValueError:
            raise no_such("The security configuration is no JSON.") from None
        made = {"Name": name, "CreationDateTime": time.time()}
        self._security[asked.region, name] = {**made, "SecurityConfiguration": text}
        return made

    def describe_security(self, asked: Asked) -> Json:
        return self.security(asked.body["Name"], asked.region)

    def delete_security(self, asked: Asked) -> Json:
        self.security(asked.body["Name"], asked.region)
        del self._security[asked.region, asked.body["Name"]]
        return {}

    def list_security(self, asked: Asked) -> Json:
        found = [
            {k: v for k, v in one.items() if k != "SecurityConfiguration"}
            for (region, _), one in self._security.items()
            if region == asked.region
        ]
        return paged("SecurityConfigurations", found, asked)

    def security(self, name: str, region: str) -> Json:
        found = self._security.get((region, name))
        if found is None:
            raise no_such(f"Security configuration with name '{name}' does not exist.")
        return found

    def put_public_access(self, asked: Asked) -> Json:
        by = f"arn:aws:iam::{ACCOUNT}:user/{asked.principal}"
        self._public[asked.region] = {
            "BlockPublicAccessConfiguration": asked.body["BlockPublicAccessConfiguration"],
            "BlockPublicAccessConfigurationMetadata": {
                "CreationDateTime": time.time(),
                "CreatedByArn": by,
            },
        }
        return {}

    def get_public_access(self, asked: Asked) -> Json:
        default = {
            "BlockPublicAccessConfiguration": {
                "BlockPublicSecurityGroupRules": True,
                "PermittedPublicSecurityGroupRuleRanges": [{"MinRange": 22, "MaxRange": 22}],
            },
            "BlockPublicAccessConfigurationMetadata": {
                "CreationDateTime": 0,
                "CreatedByArn": f"arn:aws:iam::{ACCOUNT}:root",
            },
        }
        return self._public.get(asked.region, default)

    def list_releases(self, asked: Asked) -> Json:
        wanted = asked.body.get("Filters") or {}
        found = [
            label
            for label in releases.labels(asked.region)
            if label.startswith(wanted.get("Prefix", ""))
        ]
        return paged("ReleaseLabels", found, asked, "NextToken")

    def list_types(self, asked: Asked) -> Json:
        label = asked.body["ReleaseLabel"]
        if label not in releases.labels(asked.region):
            raise no_such(f"Release label '{label}' is not valid.")
        types = [dict(one) for one in releases.instance_types(label).values()]
        return paged("SupportedInstanceTypes", types, asked)

    calls: ClassVar = {
        "PutAutoTerminationPolicy": put_auto_termination,
        "GetAutoTerminationPolicy": get_auto_termination,
        "RemoveAutoTerminationPolicy": remove_auto_termination,
        "PutManagedScalingPolicy": put_scaling,
        "GetManagedScalingPolicy": get_scaling,
        "RemoveManagedScalingPolicy": remove_scaling,
        "PutAutoScalingPolicy": put_group_scaling,
        "RemoveAutoScalingPolicy": remove_group_scaling,
        "CreateSecurityConfiguration": create_security,
        "DescribeSecurityConfiguration": describe_security,
        "DeleteSecurityConfiguration": delete_security,
        "ListSecurityConfigurations": list_security,
        "PutBlockPublicAccessConfiguration": put_public_access,
        "GetBlockPublicAccessConfiguration": get_public_access,
        "ListReleaseLabels": list_releases,
        "ListSupportedInstanceTypes": list_types,
    }
