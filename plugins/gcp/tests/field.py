"""Drivers of Dataproc on the tests' local GCP, and what tests do with them."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault
from portaflow_gcp.batch import BatchDriver, DataprocServerless
from portaflow_gcp.batch import Config as BatchConfig
from portaflow_gcp.dataproc import Config, Dataproc

from portaflow.backend import ClusterSpec, Driver, Handle, JobSpec, Request, State, Status
from portaflow.errors import NotFoundError

PATIENCE = 60.0
REGION = "europe-west1"


class Field:
    """Names that belong to one test alone; what it starts is ended after it."""

    def __init__(self, clouds: Clouds, **config: Any) -> None:
        self.control = clouds.control
        self.config = Config(**{"region": REGION, **config})
        self.dataproc = Dataproc(self.config)
        self.clusters, self.jobs = self.dataproc.clusters, self.dataproc.jobs
        self.batches = batches()
        self.owner = f"o-{uuid4().hex[:8]}"

    def name(self) -> str:
        return f"pf-{uuid4().hex[:12]}-1"

    def fault(self, effect: Any, method: str, **more: Any) -> None:
        self.control.order(Fault(effect=effect, operation=f"gcp:dataproc.{method}", **more))

    def made(self, method: str, name: str) -> int:
        """How many calls have asked for a thing of a name."""
        return sum(name in str(c.params) for c in self.control.seen(f"gcp:dataproc.{method}"))

    def cluster_request(self, name: str = "", **spec: Any) -> Request:
        full = {"owner": self.owner, **spec}
        return self.clusters.request(name or self.name(), ClusterSpec(**full))

    def cluster(self, **spec: Any) -> Handle:
        """A cluster that is ready."""
        handle = self.clusters.start(self.cluster_request(**spec))
        wait(self.clusters, handle, State.RUNNING)
        return handle

    def job_request(self, cluster: Handle, name: str = "", **spec: Any) -> Request:
        full = {"owner": self.owner, "main": "gs://nonesuch/main.py", **spec}
        return self.jobs.request(name or self.name(), JobSpec(**full), cluster.name)

    def hanging(self, cluster: Handle) -> Handle:
        """A job that waits for ever."""
        self.fault("hang", "SubmitJob")
        return self.jobs.start(self.job_request(cluster), cluster)

    def batch_request(self, name: str = "", **spec: Any) -> Request:
        full = {"owner": self.owner, "main": "gs://nonesuch/main.py", **spec}
        return self.batches.request(name or self.name(), JobSpec(**full))

    def clear(self) -> None:
        self.control.clear()
        for batch in list(self.batches.owned(self.owner)):
            self.batches.stop(batch)
            wait(self.batches, batch)
        handles = list(self.clusters.owned(self.owner))
        for handle in handles:
            self.clusters.stop(handle)
        for handle in handles:
            gone(self.clusters, handle)
        deadline = time.monotonic() + PATIENCE
        while left := list(self.jobs.owned(self.owner)):  # they end a moment after their cluster
            assert time.monotonic() < deadline, left
            time.sleep(0.02)


def batches(**config: Any) -> BatchDriver:
    return DataprocServerless(BatchConfig(**{"region": REGION, **config})).jobs


def wait(driver: Driver[Any], handle: Handle, *states: State) -> Status:
    """Poll until a thing is in one of the states, or has ended when none is given."""
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = driver.poll([handle])[handle.name]
        assert not isinstance(seen, NotFoundError), seen
        if seen.state in states or seen.state.final:
            assert not states or seen.state in states, seen
            return seen
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)


def gone(driver: Driver[Any], handle: Handle) -> None:
    """Poll until a cluster is deleted: Dataproc knows no more of it."""
    deadline = time.monotonic() + PATIENCE
    while not isinstance(seen := driver.poll([handle])[handle.name], NotFoundError):
        assert time.monotonic() < deadline, seen
        time.sleep(0.02)
