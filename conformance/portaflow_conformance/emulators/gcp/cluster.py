"""One cluster of Dataproc: its states, what Dataproc adds to what was asked, and its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from google.cloud.dataproc_v1 import types

from ..control import Fault
from . import checks
from .initialization import Initialization
from .objects import Objects
from .rpc import invalid
from .world import stamp

State: Any = types.ClusterStatus.State

IMAGE = "2.3-debian12"
_MACHINE = "n1-standard-4"
_COMPUTE = "https://www.googleapis.com/compute/v1/"


@dataclass(slots=True)
class Cluster:
    message: Any
    number: int
    fault: Fault | None
    hidden: float
    born: float  # by the control's clock, as the others are
    idle: float = 0.0  # since when no job has been active
    ready: float = 0.0  # when it was running first
    initialization: Initialization | None = None

    @property
    def state(self) -> str:
        return str(State(self.message.status.state).name)

    def enter(self, state: int, detail: str = "") -> None:
        message = self.message
        if message.status.state:
            message.status_history.add().CopyFrom(message.status)
        new = types.ClusterStatus.pb()(state=state, detail=detail, state_start_time=stamp())
        message.status.CopyFrom(new)


def complete(message: Any, region: str, objects: Objects) -> None:
    """Fill in what Dataproc chooses where a client has not."""
    name, config = message.cluster_name, message.config
    message.labels["goog-dataproc-cluster-name"] = name
    message.labels["goog-dataproc-cluster-uuid"] = message.cluster_uuid
    message.labels["goog-dataproc-location"] = region
    for field, kind in (("config_bucket", "staging"), ("temp_bucket", "temp")):
        if not getattr(config, field):
            bucket = f"dataproc-{kind}-{region}-{message.project_id}"
            setattr(config, field, objects.ensure_bucket(bucket).name)
    software, compute = config.software_config, config.gce_cluster_config
    software.image_version = software.image_version or IMAGE
    if not compute.zone_uri:
        compute.zone_uri = f"{_COMPUTE}projects/{message.project_id}/zones/{region}-a"
    if not (compute.network_uri or compute.subnetwork_uri):
        network = f"projects/{message.project_id}/global/networks/default"
        compute.network_uri = _COMPUTE + network
    _complete_groups(name, config)


def _complete_groups(name: str, config: Any) -> None:
    master, workers = config.master_config, config.worker_config
    master.num_instances = master.num_instances or 1
    if config.software_config.properties.get(checks.ALLOW_ZERO) != "true":
        workers.num_instances = workers.num_instances or 2
    more = config.secondary_worker_config
    kinds: Any = types.InstanceGroupConfig.Preemptibility
    for group, word in ((master, "m"), (workers, "w"), (more, "sw")):
        if not group.num_instances:
            if group is not more or config.HasField("secondary_worker_config"):
                del group.instance_names[:]
            continue
        default = workers.machine_type_uri if group is more else _MACHINE
        group.machine_type_uri = group.machine_type_uri or default
        group.preemptibility = group.preemptibility or (
            kinds.PREEMPTIBLE if group is more else kinds.NON_PREEMPTIBLE
        )
        group.is_preemptible = group.preemptibility != kinds.NON_PREEMPTIBLE
        del group.instance_names[:]
        alone = word == "m" and group.num_instances == 1
        numbers = [""] if alone else [f"-{n}" for n in range(group.num_instances)]
        group.instance_names.extend(f"{name}-{word}{number}" for number in numbers)


def over(life: Any, what: str, now: float, born: float, idle: float) -> bool:
    """Whether a cluster is to be stopped or deleted ("stop", "delete") by now."""
    ends = []
    if life.HasField(f"idle_{what}_ttl"):
        ends.append(idle + getattr(life, f"idle_{what}_ttl").seconds)
    if life.HasField(f"auto_{what}_ttl"):
        ends.append(born + getattr(life, f"auto_{what}_ttl").seconds)
    if life.HasField(f"auto_{what}_time"):
        ends.append(float(getattr(life, f"auto_{what}_time").seconds))
    return bool(ends) and now >= min(ends)


def take(mine: Any, theirs: Any, path: list[str]) -> None:
    """Take one field of an update mask over."""
    *above, last = path
    for name in above:
        mine, theirs = getattr(mine, name), getattr(theirs, name)
    if last == "labels":
        kept = {k: v for k, v in mine.labels.items() if k.startswith("goog-dataproc-")}
        mine.labels.clear()
        mine.labels.update({**theirs.labels, **kept})
        return
    field = mine.DESCRIPTOR.fields_by_name.get(last)
    if field is None:
        raise invalid(f"Update mask: {'.'.join(path)} is not a field")
    if field.message_type is None:
        setattr(mine, last, getattr(theirs, last))
    elif theirs.HasField(last):
        getattr(mine, last).CopyFrom(getattr(theirs, last))
    else:
        mine.ClearField(last)
