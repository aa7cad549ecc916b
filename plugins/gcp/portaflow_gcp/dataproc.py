"""Dataproc as a backend: its settings, and what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from portaflow.backend import SUPPORTED, Capability, ComputeCluster, Finding

from . import check
from .cluster import ClusterDriver
from .connect import Access
from .job import JobDriver


@dataclass(frozen=True, kw_only=True)
class Config(Access):
    """`region`: of all that is made, such as europe-west1. `zone`: "" lets Dataproc choose.

    `image_version`: instead of the newest with the Spark that is asked for. `machine_type`: of
    the workers, instead of the catalogue's; `master_type`: of the first machine.
    `service_account`: of the machines. `network`, `subnet`: one of them, or neither.
    `internal_ip_only`: no machine has an address on the internet. `network_tags`: of the machines.
    `autoscaling_policy`: the name of one, for a range of workers. `idle_delete`: seconds after
    which a cluster without jobs is deleted, 0 for not before its end.
    `initialization_actions`: scripts that each machine runs first, gs://...
    `staging_bucket`, `temp_bucket`: instead of Dataproc's own. `labels`: added to the cluster's.
    """

    region: str
    zone: str = ""
    image_version: str = ""
    machine_type: str = ""
    master_type: str = ""
    service_account: str = ""
    network: str = ""
    subnet: str = ""
    internal_ip_only: bool = False
    network_tags: tuple[str, ...] = ()
    autoscaling_policy: str = ""
    idle_delete: int = 0
    initialization_actions: tuple[str, ...] = ()
    staging_bucket: str = ""
    temp_bucket: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


class Dataproc(ComputeCluster):
    """Clusters of Dataproc on Compute Engine, and Spark jobs on them."""

    name = "dataproc"
    cloud = "gcp"
    Config = Config
    capabilities = {
        Capability.JAR: SUPPORTED,
        Capability.PACKAGES: SUPPORTED,
        Capability.AUTOSCALE: SUPPORTED,
        Capability.SPOT: SUPPORTED,
        Capability.CONCURRENT_JOBS: SUPPORTED,
    }

    @cached_property
    def clusters(self) -> ClusterDriver:
        return ClusterDriver(self.config)

    @cached_property
    def jobs(self) -> JobDriver:
        return JobDriver(self.config)

    def check(self) -> Iterable[Finding]:
        return check.clusters(self.config)
