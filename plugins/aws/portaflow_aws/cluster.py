"""Clusters of EMR on EC2."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
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

from . import asked, catalogue, prices
from .connect import Aws, connect, told

if TYPE_CHECKING:
    from .emr import Config

DECIDED = {
    "spark.master": "the cluster decides it",
    "spark.submit.deployMode": "the driver runs on the cluster's first machine",
}
OWNER, TTL, _DIGEST = "portaflow.owner", "portaflow.ttl", "portaflow.request"
_LONGEST_IDLE, _SHORTEST_IDLE = 604_800, 60  # seconds that EMR takes for an idle time
_ALIVE = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING")
_ENDED = ("TERMINATED", "TERMINATED_WITH_ERRORS")
_CAUSES = {
    "BOOTSTRAP_FAILURE": Cause.USER,
    "INSTANCE_FLEET_TIMEOUT": Cause.CAPACITY,
    "STEP_FAILURE": Cause.USER,
    "VALIDATION_ERROR": Cause.USER,
}
_WORDS = {
    Cause.CAPACITY: ("capacity", "quota", "exceed", "limit"),
    Cause.DENIED: ("not authorized", "access denied", "permission", "unauthorized"),
    Cause.PREEMPTED: ("spot interruption", "spot instance was", "reclaimed"),
}


class ClusterDriver(Driver[ClusterSpec]):
    """Starts, watches and stops clusters of one account and region."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._created: dict[str, datetime] = {}  # by id; how far back a list must reach
        self._ended: dict[str, Status] = {}  # by id: an end does not change
        self._tags: dict[str, Mapping[str, str]] = {}  # by id

    @property
    def aws(self) -> Aws:
        return connect(self._config)

    # -- requests

    def request(self, name: str, spec: ClusterSpec, parent: str = "") -> Request:
        config = self._config
        body: dict[str, Any] = {
            "Name": name,
            "ReleaseLabel": config.release or catalogue.release(spec.spark_version),
            "Applications": [{"Name": "Spark"}],
            "Instances": self._instances(spec),
            "ServiceRole": config.service_role,
            "JobFlowRole": config.instance_profile,
            "StepConcurrencyLevel": config.concurrent_jobs,
            "AutoTerminationPolicy": {"IdleTimeout": _idle(spec.ttl)},
            "VisibleToAllUsers": True,
        }
        if spec.conf:
            defaults = {"Classification": "spark-defaults", "Properties": dict(spec.conf)}
            body["Configurations"] = [defaults]
        if config.bootstrap:
            body["BootstrapActions"] = [
                {"Name": uri.rpartition("/")[2], "ScriptBootstrapAction": {"Path": uri}}
                for uri in config.bootstrap
            ]
        if config.log_uri:
            body["LogUri"] = config.log_uri
        if config.security_configuration:
            body["SecurityConfiguration"] = config.security_configuration
        low, high = _workers(spec)
        if low < high:
            unit = "InstanceFleetUnits" if config.instances == "fleets" else "Instances"
            limits = {"MinimumCapacityUnits": low, "MaximumCapacityUnits": high}
            body["ManagedScalingPolicy"] = {"ComputeLimits": {"UnitType": unit, **limits}}
        said = json.dumps([body, spec.overrides], sort_keys=True)
        tags = {
            **config.tags,
            "for-use-with-amazon-emr-managed-policies": "true",
            OWNER: spec.owner,
            TTL: str(spec.ttl),
            _DIGEST: hashlib.sha256(said.encode()).hexdigest()[:32],
        }
        return {**body, "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}

    def _instances(self, spec: ClusterSpec) -> dict[str, Any]:
        config = self._config
        low, _ = _workers(spec)
        fleets = config.instances == "fleets"
        if len(config.subnets) > 1 and not fleets:
            raise RejectedError('more than one of `subnets` needs `instances = "fleets"`')
        make = _fleet if fleets else _group
        types = config.instance_types or (catalogue.instance(spec.size).name,)
        master = config.master_type or catalogue.instance(Size(cpu=4, memory=16)).name
        groups = [make("MASTER", (master,), 1, False, Size())]
        if low:
            groups.append(make("CORE", types, low, spec.spot, spec.size))
        body: dict[str, Any] = {
            "InstanceFleets" if fleets else "InstanceGroups": groups,
            "KeepJobFlowAliveWhenNoSteps": True,
            "TerminationProtected": False,
        }
        if config.subnets:
            many = {"Ec2SubnetIds": list(config.subnets)}
            body |= many if fleets else {"Ec2SubnetId": config.subnets[0]}
        if config.security_groups:
            body["AdditionalMasterSecurityGroups"] = list(config.security_groups)
            body["AdditionalSlaveSecurityGroups"] = list(config.security_groups)
        if config.key:
            body["Ec2KeyName"] = config.key
        return body

    def fit(self, spec: ClusterSpec) -> Mapping[str, Fit]:
        config, fits = self._config, conf_fit(spec.conf, DECIDED)
        idle = _idle(spec.ttl)
        fits["ttl"] = _near(
            f"EMR ends a cluster on which nothing has run for {idle} s; each job has an end of "
            "its own"
        )
        try:
            types = config.instance_types or (str(catalogue.instance(spec.size)),)
            about = f"{prices.OR.join(types)}; EMR leaves Spark about three quarters of the memory"
            gpus = "; Spark is not told of the GPUs, the job's conf can do that"
            fits["size"] = _near(about + (gpus if spec.size.gpu else ""))
        except RejectedError as error:
            fits["size"] = Fit(Verdict.REFUSED, str(error))
        if spec.spark_version and config.release:
            fits["spark_version"] = _near(f"the one of {config.release}, by the target's `release`")
        elif spec.spark_version:
            try:
                label = catalogue.release(spec.spark_version)
                fits["spark_version"] = _near(f"with the patches of {label}")
            except RejectedError as error:
                fits["spark_version"] = Fit(Verdict.REFUSED, str(error))
        if spec.workers[0] == 0 < spec.workers[1]:
            fits["workers"] = _near("from 1: EMR scales no cluster down to none")
        return fits

    def machines(self, request: Request) -> Sequence[Machines]:
        instances = request["Instances"]
        limits = request.get("ManagedScalingPolicy", {}).get("ComputeLimits", {})
        found = []
        for group in instances.get("InstanceGroups", ()):
            spot, low = group.get("Market") == "SPOT", group["InstanceCount"]
            found.append((group["InstanceRole"], group["InstanceType"], low, spot))
        for fleet in instances.get("InstanceFleets", ()):
            spot = bool(fleet.get("TargetSpotCapacity"))
            low = fleet.get("TargetSpotCapacity" if spot else "TargetOnDemandCapacity", 0)
            types = prices.OR.join(one["InstanceType"] for one in fleet["InstanceTypeConfigs"])
            found.append((fleet["InstanceFleetType"], types, low, spot))
        most = {"CORE": limits.get("MaximumCapacityUnits", 0)}
        return [
            Machines(type=type_, least=low, most=max(low, most.get(role, 0)), spot=spot)
            for role, type_, low, spot in found
        ]

    def prices(self, machines: Collection[Machines]) -> Mapping[str, float]:
        return prices.hourly(self.aws, machines)

    # -- life

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        found = next((c for c in self._named(name) if OWNER in self._tags_of(c["Id"])), None)
        return self._handle(name, found["Id"]) if found else asked.made(self._key(name))

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        name, tags = request["Name"], {t["Key"]: t["Value"] for t in request["Tags"]}
        if missing := {OWNER, TTL, _DIGEST} - tags.keys():
            raise RejectedError(
                f"cluster {name!r} would lack the tags {', '.join(sorted(missing))}: set `tags` "
                "in the target instead of overriding Tags"
            )

        def make() -> Handle:
            with told(f"cluster {name!r}", self._config):
                id = self.aws.client("emr").run_job_flow(**request)["JobFlowId"]
            self._tags[id] = tags
            return self._handle(name, id)

        handle = asked.once(self._key(name), lambda: self.find(name), make)
        if self._tags_of(handle.id).get(_DIGEST) != tags[_DIGEST]:
            raise ConflictError(f"cluster {name!r} is there and was made from another request")
        return handle

    def stop(self, handle: Handle) -> None:
        try:
            with told(f"cluster {handle.name!r}", self._config):
                self.aws.client("emr").terminate_job_flows(JobFlowIds=[handle.id])
        except NotFoundError:
            return

    def owned(self, owner: str = "") -> Iterable[Handle]:
        for cluster in self.listed(_ALIVE):
            mine = self._tags_of(cluster["Id"]).get(OWNER, "")
            if mine and owner in ("", mine) and cluster["Status"]["State"] != "TERMINATING":
                yield self._handle(cluster["Name"], cluster["Id"])

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        """A cluster has no log of its own; what its nodes log is below its LogUri."""
        return LogChunk(data=b"", cursor=cursor, end=True)

    # -- status

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        seen: dict[str, Status | NotFoundError] = dict(self._ended)
        wanted = {h.id for h in handles} - seen.keys()
        known = sorted(self._created[id] for id in wanted if id in self._created)
        after = known[0] - timedelta(minutes=1) if 0 < len(known) == len(wanted) else None
        for cluster in self.listed((), after) if wanted else ():
            seen[cluster["Id"]] = self._status(cluster)
            if not (wanted := wanted - {cluster["Id"]}):
                break
        for id in wanted:  # too new for the list, or not there
            try:
                seen[id] = self._status(self.described(id))
            except NotFoundError as error:
                seen[id] = error
        return {h.name: seen[h.id] for h in handles}

    def _status(self, cluster: Mapping[str, Any]) -> Status:
        id, timeline = cluster["Id"], cluster["Status"].get("Timeline", {})
        if "CreationDateTime" in timeline:
            self._created[id] = timeline["CreationDateTime"]
        status = _verdict(cluster["Status"])
        if status.state.final:
            self._ended[id] = status
        return status

    # -- what EMR knows

    def listed(
        self, states: Iterable[str], after: datetime | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """The clusters in some states, or in any; the newest first."""
        words: dict[str, Any] = {"ClusterStates": list(states)} if states else {}
        if after:
            words["CreatedAfter"] = after
        while True:
            with told("list of clusters", self._config):
                answer = self.aws.client("emr").list_clusters(**words)
            yield from answer["Clusters"]
            if not (marker := answer.get("Marker")):
                return
            words["Marker"] = marker

    def described(self, id: str) -> Mapping[str, Any]:
        with told(f"cluster {id}", self._config):
            answer: Mapping[str, Any] = self.aws.client("emr").describe_cluster(ClusterId=id)
        return answer["Cluster"]  # type: ignore[no-any-return]

    def _named(self, name: str) -> Iterator[Mapping[str, Any]]:
        """The clusters of a name: first those that live."""
        for states in (_ALIVE, _ENDED):
            yield from (c for c in self.listed(states) if c["Name"] == name)

    def _tags_of(self, id: str) -> Mapping[str, str]:
        if id not in self._tags:
            tags = self.described(id).get("Tags", ())
            self._tags[id] = {tag["Key"]: tag.get("Value", "") for tag in tags}
        return self._tags[id]

    def _key(self, name: str) -> str:
        return f"{self.aws.access} {name}"

    def page(self, id: str) -> str:
        """Where a person can look at a cluster."""
        region = self.aws.region
        return (
            f"https://{region}.console.aws.amazon.com/emr/home?region={region}#/clusterDetails/{id}"
        )

    def _handle(self, name: str, id: str) -> Handle:
        return Handle(name=name, id=id, url=self.page(id))


def _verdict(status: Mapping[str, Any]) -> Status:
    """What a status of EMR means."""
    state = status["State"]
    if state in ("RUNNING", "WAITING"):
        return Status(state=State.RUNNING)
    if state in _ENDED:
        return ending(status)
    return Status(
        state=State.PENDING, reason=status.get("StateChangeReason", {}).get("Message", "")
    )


def ending(status: Mapping[str, Any]) -> Status:
    """What the end of a cluster means that has ended, or is about to."""
    why = status.get("StateChangeReason", {})
    code, message = why.get("Code", ""), why.get("Message", "")
    if code in ("USER_REQUEST", "ALL_STEPS_COMPLETED"):
        return Status(state=State.STOPPED, reason=message or "it was asked to stop")
    details = [d.get("ErrorMessage", "") for d in status.get("ErrorDetails", ())]
    reason = "\n".join(dict.fromkeys(filter(None, (message, *details)))) or code
    return Status(
        state=State.FAILED, reason=reason or "no reason given", cause=_cause(code, status)
    )


def _cause(code: str, status: Mapping[str, Any]) -> Cause:
    said = json.dumps([status.get("StateChangeReason"), status.get("ErrorDetails")], default=str)
    for cause, words in _WORDS.items():
        if code != "BOOTSTRAP_FAILURE" and any(word in said.lower() for word in words):
            return cause
    return _CAUSES.get(code, Cause.INFRA)


def _workers(spec: ClusterSpec) -> tuple[int, int]:
    low, high = spec.workers
    return (max(low, 1), high) if low < high else (low, high)


def _idle(ttl: int) -> int:
    return min(max(ttl, _SHORTEST_IDLE), _LONGEST_IDLE)


def _disk(size: Size) -> dict[str, Any]:
    """A disk beside the one that EMR gives each machine, when that is not enough."""
    if size.disk <= Size().disk:
        return {}
    volume = {"VolumeType": "gp3", "SizeInGB": math.ceil(size.disk)}
    blocks = [{"VolumeSpecification": volume, "VolumesPerInstance": 1}]
    return {"EbsConfiguration": {"EbsBlockDeviceConfigs": blocks}}


def _group(role: str, types: Sequence[str], count: int, spot: bool, size: Size) -> dict[str, Any]:
    return {
        "Name": role.lower(),
        "InstanceRole": role,
        "InstanceType": types[0],
        "InstanceCount": count,
        "Market": "SPOT" if spot else "ON_DEMAND",
        **_disk(size),
    }


def _fleet(role: str, types: Sequence[str], count: int, spot: bool, size: Size) -> dict[str, Any]:
    fleet: dict[str, Any] = {
        "Name": role.lower(),
        "InstanceFleetType": role,
        f"Target{'Spot' if spot else 'OnDemand'}Capacity": count,
        "InstanceTypeConfigs": [
            {"InstanceType": kind, "WeightedCapacity": 1, **_disk(size)} for kind in types
        ],
    }
    if spot:
        patience = {"TimeoutDurationMinutes": 20, "TimeoutAction": "SWITCH_TO_ON_DEMAND"}
        fleet["LaunchSpecifications"] = {"SpotSpecification": patience}
    return fleet


def _near(reason: str) -> Fit:
    return Fit(Verdict.APPROXIMATED, reason)
