"""The machines of a cluster of EMR: instance groups or instance fleets, and what is told of them.

No machine is behind them; their states are those of the cluster.
"""

from __future__ import annotations

import random
import re
import secrets
import string
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .rest import RefusedError, invalid

Json = dict[str, Any]

_GROUP_STATES = {
    "STARTING": "PROVISIONING",
    "WAITING": "RUNNING",
    "TERMINATED_WITH_ERRORS": "TERMINATED",
}
_INSTANCE_STATES = {
    "STARTING": "PROVISIONING",
    "WAITING": "RUNNING",
    "TERMINATING": "RUNNING",
    "TERMINATED_WITH_ERRORS": "TERMINATED",
}
_ONE_WAY = (
    "Please configure instances using one and only one of the following: instance groups; "
    "instance fleets; instance count, master and slave instance type."
)
_EXCLUSIVE = (
    "Instance {0} and instance {1} are mutually exclusive. The EMR cluster specified in the "
    "request uses instance {0}. The {2} operation does not support clusters that use instance {0}."
)
_EBS = "EbsConfiguration"


def identity(prefix: str, size: int = 13) -> str:
    letters = string.ascii_uppercase + string.digits
    return prefix + "".join(secrets.choice(letters) for _ in range(size))


@dataclass(slots=True)
class Instance:
    type: str
    market: str
    units: int = 1
    id: str = field(default_factory=lambda: identity("ci-"))
    ec2: str = field(default_factory=lambda: f"i-0{secrets.token_hex(8)}")
    address: str = field(
        default_factory=lambda: f"10.0.{random.randrange(256)}.{random.randrange(1, 255)}"
    )
    created: float = field(default_factory=time.time)
    ended: float | None = None

    @property
    def host(self) -> str:
        return f"ip-{self.address.replace('.', '-')}.ec2.internal"


class Group:
    """An instance group, or a fleet: `given` is what the call asked for."""

    def __init__(self, given: Json, fleet: bool) -> None:
        self.given, self.fleet = given, fleet
        self.role: str = given["InstanceFleetType" if fleet else "InstanceRole"]
        self.id = identity("if-" if fleet else "ig-")
        self.created = time.time()
        self.instances: list[Instance] = []
        self.resize()

    @property
    def cores(self) -> int:
        """Of all its machines, as their types' names tell: a large one has two."""
        return sum(_cores(one.type) for one in self.living)

    @property
    def living(self) -> list[Instance]:
        return [one for one in self.instances if one.ended is None]

    def spot(self) -> bool:
        if self.fleet:
            return bool(self.given.get("TargetSpotCapacity"))
        return self.given.get("Market") == "SPOT"

    def resize(self) -> None:
        """Have the instances that are wanted: others come, the last ones go."""
        targets = (
            {
                "ON_DEMAND": self.given.get("TargetOnDemandCapacity", 0),
                "SPOT": self.given.get("TargetSpotCapacity", 0),
            }
            if self.fleet
            else {self.given.get("Market", "ON_DEMAND"): self.given["InstanceCount"]}
        )
        types = self.given.get("InstanceTypeConfigs") or [self.given]
        name, units = types[0]["InstanceType"], types[0].get("WeightedCapacity", 1)
        for market, target in targets.items():
            while (have := self.provisioned(market)) < target:
                self.instances.append(Instance(name, market, units))
            for one in reversed(self.living):
                if one.market == market and have - one.units >= target:
                    one.ended, have = time.time(), have - one.units

    def provisioned(self, market: str) -> int:
        return sum(one.units for one in self.living if one.market == market)

    def told(self, status: Json) -> Json:
        state = status["State"]
        up = state not in ("STARTING", "TERMINATED", "TERMINATED_WITH_ERRORS")
        told = self._fleet(up) if self.fleet else self._group(up)
        return {"Id": self.id, **told, "Status": self._status(status, _GROUP_STATES, self.created)}

    def _group(self, up: bool) -> Json:
        given = self.given
        kept: Json = {k: given[k] for k in ("BidPrice", "CustomAmiId") if k in given}
        if scaling := given.get("AutoScalingPolicy"):
            kept["AutoScalingPolicy"] = {**scaling, "Status": {"State": "ATTACHED"}}
        return {
            "Name": given.get("Name", ""),
            "Market": given.get("Market", "ON_DEMAND"),
            "InstanceGroupType": self.role,
            "InstanceType": given["InstanceType"],
            "RequestedInstanceCount": given["InstanceCount"],
            "RunningInstanceCount": len(self.living) if up else 0,
            "Configurations": given.get("Configurations", []),
            "EbsBlockDevices": devices(given),
            "ShrinkPolicy": {},
            **kept,
        }

    def _fleet(self, up: bool) -> Json:
        given = self.given
        kept = ("LaunchSpecifications", "ResizeSpecifications", "Context")
        return {
            "Name": given.get("Name", ""),
            "InstanceFleetType": self.role,
            "TargetOnDemandCapacity": given.get("TargetOnDemandCapacity", 0),
            "TargetSpotCapacity": given.get("TargetSpotCapacity", 0),
            "ProvisionedOnDemandCapacity": self.provisioned("ON_DEMAND") if up else 0,
            "ProvisionedSpotCapacity": self.provisioned("SPOT") if up else 0,
            "InstanceTypeSpecifications": [
                {
                    "WeightedCapacity": 1,
                    **({} if "BidPrice" in one else {_PERCENT: 100.0}),
                    **{k: v for k, v in one.items() if k != _EBS},
                    "EbsBlockDevices": devices(one),
                }
                for one in given.get("InstanceTypeConfigs", ())
            ],
            **{k: given[k] for k in kept if k in given},
        }

    def members(self, status: Json) -> Iterator[Json]:
        for one in self.instances:
            told: Json = {
                "Id": one.id,
                "Ec2InstanceId": one.ec2,
                "PublicDnsName": "",
                "PrivateDnsName": one.host,
                "PrivateIpAddress": one.address,
                "Market": one.market,
                "InstanceType": one.type,
                "InstanceFleetId" if self.fleet else "InstanceGroupId": self.id,
                "EbsVolumes": [],
                "Status": self._status(status, _INSTANCE_STATES, one.created),
            }
            if one.ended is not None:
                told["Status"]["State"] = "TERMINATED"
                told["Status"]["Timeline"]["EndDateTime"] = one.ended
            yield told

    def _status(self, status: Json, states: Mapping[str, str], created: float) -> Json:
        state = states.get(status["State"], status["State"])
        reason: Json = {"Message": ""}
        if state == "TERMINATED":
            reason = {"Code": "CLUSTER_TERMINATED", "Message": "Job flow terminated"}
        timeline = {**status["Timeline"], "CreationDateTime": created}
        if "ReadyDateTime" in timeline:
            timeline["ReadyDateTime"] = max(created, timeline["ReadyDateTime"])
        return {"State": state, "StateChangeReason": reason, "Timeline": timeline}


class Nodes:
    def __init__(self, instances: Json, types: Collection[str]) -> None:
        """Raises RefusedError for what EMR would not take."""
        self.types = types
        ways = [
            "InstanceFleets" in instances,
            "InstanceGroups" in instances,
            bool({"InstanceCount", "MasterInstanceType", "SlaveInstanceType"} & instances.keys()),
        ]
        if sum(ways) > 1:
            raise invalid(_ONE_WAY)
        self.fleets = ways[0]
        if instances.get("Ec2SubnetIds") and not self.fleets:
            raise invalid(
                "Only one subnet may be specified for clusters configured with instance groups or "
                "instance count, master and slave instance type. Revise the configuration and "
                "resubmit."
            )
        given = instances.get("InstanceFleets") or instances.get("InstanceGroups")
        self.groups: list[Group] = []
        self.add(given or _counted(instances))
        if not any(group.role == "MASTER" for group in self.groups):
            raise invalid(
                "No master instance fleets were supplied; you must specify exactly one master "
                "instance fleet. Revise the configuration and resubmit."
                if self.fleets
                else "Zero master instance groups supplied, you must specify exactly one master "
                "instance group"
            )

    def add(self, given: Iterable[Json]) -> list[Group]:
        """All of them, or none: raises RefusedError."""
        new = [Group(one, self.fleets) for one in map(self._checked, given)]
        roles = [group.role for group in (*self.groups, *new)]
        for role in ("MASTER", "CORE", *(["TASK"] if self.fleets else [])):
            if roles.count(role) > 1:
                raise invalid(
                    f"Multiple {role.lower()} instance groups supplied, you must specify exactly "
                    f"one {role.lower()} instance group"
                )
        if "TASK" in roles and "CORE" not in roles:
            raise invalid("Clusters with task nodes must also define core nodes.")
        self.groups += new
        return new

    def _checked(self, given: Json) -> Json:
        configs = given.get("InstanceTypeConfigs", ()) if self.fleets else [given]
        names = [config["InstanceType"] for config in configs]
        for name in names:
            if name not in self.types:
                raise invalid(f"Instance type '{name}' is not supported")
            if names.count(name) > 1:
                raise invalid(
                    f"The instance fleet: {given.get('Name', 'null')} contains duplicate instance "
                    f"types [{name}]. Revise the configuration and resubmit."
                )
        for config in configs:
            _priced(config, "fleet" if self.fleets else "group")
        if self.fleets:
            _sized_fleet(given)
        else:
            _sized_group(given)
        return given

    def one(self, id: str) -> Group:
        for group in self.groups:
            if group.id == id:
                return group
        raise RefusedError(400, "InvalidRequestException", f"Instance group id '{id}' is not valid")

    def need(self, fleets: bool, operation: str) -> None:
        """Refuse what the other kind of cluster alone has."""
        if fleets != self.fleets:
            kinds = ("fleets", "groups") if self.fleets else ("groups", "fleets")
            why = _EXCLUSIVE.format(*kinds, operation)
            raise RefusedError(400, "InvalidRequestException", why)

    @property
    def master(self) -> Instance:
        return next(group for group in self.groups if group.role == "MASTER").instances[0]

    def spot(self) -> bool:
        return any(group.spot() for group in self.groups)


_PERCENT = "BidPriceAsPercentageOfOnDemandPrice"


def devices(given: Json) -> list[Json]:
    """The volumes that a group's or a type's EbsConfiguration adds up to."""
    found: list[Json] = []
    for config in (given.get(_EBS) or {}).get("EbsBlockDeviceConfigs", ()):
        for _ in range(config.get("VolumesPerInstance", 1)):
            device = f"/dev/sd{chr(ord('c') + len(found))}"
            found.append({"Device": device, "VolumeSpecification": config["VolumeSpecification"]})
    return found


def _counted(instances: Json) -> list[Json]:
    """The groups that count, master and slave instance type stand for."""
    if "MasterInstanceType" not in instances:
        return []
    master, count = instances["MasterInstanceType"], instances.get("InstanceCount", 1)
    groups = [{"InstanceRole": "MASTER", "InstanceType": master, "InstanceCount": 1}]
    if count > 1:
        slave = instances.get("SlaveInstanceType", master)
        groups.append({"InstanceRole": "CORE", "InstanceType": slave, "InstanceCount": count - 1})
    return groups


def _cores(kind: str) -> int:
    found = re.search(r"\.(\d*)(x?large|metal)", kind)
    return int(found[1] or 1) * (4 if found[2] == "xlarge" else 2) if found else 1


def _sized_group(given: Json) -> None:
    if given["InstanceCount"] < 1 and given["InstanceRole"] != "TASK":
        raise invalid("An instance group must have at least one instance")
    if given["InstanceRole"] == "MASTER" and given["InstanceCount"] not in (1, 3):
        raise invalid("A master instance group must specify a single instance")


def _sized_fleet(given: Json) -> None:
    target = given.get("TargetOnDemandCapacity", 0) + given.get("TargetSpotCapacity", 0)
    if given["InstanceFleetType"] == "MASTER" and target != 1:
        raise invalid(
            "A master instance fleet can only have a target capacity of 1. Revise the "
            "configuration and resubmit."
        )
    if target < 1 and given["InstanceFleetType"] == "CORE":
        raise invalid(
            f"The instance fleet ({given.get('Name', 'null')}) should have a value of one or "
            "greater for either targetOnDemandCapacity or targetSpotCapacity."
        )
    if not given.get("InstanceTypeConfigs"):
        raise invalid("The instance fleet must have at least one instance type configuration.")
    if any(one.get("WeightedCapacity") == 0 for one in given["InstanceTypeConfigs"]):
        raise invalid("Weighted capacity cannot be zero. Revise the configuration and resubmit.")


def _priced(given: Json, what: str) -> None:
    if "BidPrice" not in given:
        return
    if what == "group" and given.get("Market") != "SPOT":
        raise invalid("Attempted to set bid price for on demand instance group.")
    try:
        price = float(given["BidPrice"])
    except ValueError:
        why = f"The bid price supplied for an instance {what} is invalid"
        raise invalid(why) from None
    if not price > 0:
        raise invalid("The bid price is negative or zero.")
    if len(given["BidPrice"].partition(".")[2]) > 3:
        raise invalid("No more than 3 digits are allowed after decimal place in bid price")
