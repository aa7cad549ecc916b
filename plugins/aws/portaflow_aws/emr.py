"""EMR on EC2 as a backend: its settings, and what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from portaflow.backend import SUPPORTED, Capability, ComputeCluster, Finding

from . import check
from .cluster import ClusterDriver
from .connect import Access
from .step import StepDriver


@dataclass(frozen=True, kw_only=True)
class Config(Access):
    """`log_uri`: where EMR puts logs, s3://BUCKET/FOLDER; without it jobs have none.

    `release`: a release of EMR, instead of the newest with the Spark that is asked for.
    `service_role`, `instance_profile`: what EMR, and what the machines, may do.
    `subnets`: one for groups, any number for fleets. `security_groups`: added to EMR's own.
    `key`: of EC2, to log in with. `instances`: "groups" or "fleets".
    `instance_types`: of the workers, instead of the catalogue's; fleets take any of them.
    `master_type`: of the first machine, on which the drivers of all jobs run.
    `concurrent_jobs`: how many jobs run on a cluster at once. `bootstrap`: scripts that each
    machine runs first, s3://... `tags`: added to the cluster's.
    """

    log_uri: str = ""
    release: str = ""
    service_role: str = "EMR_DefaultRole"
    instance_profile: str = "EMR_EC2_DefaultRole"
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    security_configuration: str = ""
    key: str = ""
    instances: Literal["groups", "fleets"] = "groups"
    instance_types: tuple[str, ...] = ()
    master_type: str = ""
    concurrent_jobs: int = 8
    bootstrap: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)


class Emr(ComputeCluster):
    """Clusters of EMR on EC2, and Spark jobs as their steps."""

    name = "emr"
    cloud = "aws"
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
    def jobs(self) -> StepDriver:
        return StepDriver(self.config, self.clusters)

    def check(self) -> Iterable[Finding]:
        return check.emr(self.config)
