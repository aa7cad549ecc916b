"""Drivers of EMR on the tests' local AWS, and what tests do with them."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from portaflow_aws.emr import Config, Emr
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

from portaflow.backend import ClusterSpec, Driver, Handle, JobSpec, Request, State, Status
from portaflow.errors import NotFoundError

PATIENCE = 60.0


class Field:
    """Names that belong to one test alone; what it starts is ended after it."""

    def __init__(self, clouds: Clouds, **config: Any) -> None:
        self.clouds, self.control = clouds, clouds.control
        self.config = Config(**{"log_uri": "s3://logs/emr", **config})
        self.emr = Emr(self.config)
        self.owner = f"o-{uuid4().hex[:8]}"

    def name(self) -> str:
        return f"pf-{uuid4().hex[:12]}-1"

    def fault(self, effect: Any, operation: str, **more: Any) -> None:
        self.control.order(Fault(effect=effect, operation=f"aws:{operation}", **more))

    def cluster_request(self, name: str, **spec: Any) -> Request:
        return self.emr.clusters.request(name, ClusterSpec(**{"owner": self.owner, **spec}))

    def cluster(self, **spec: Any) -> Handle:
        """A cluster that is ready."""
        handle = self.emr.clusters.start(self.cluster_request(self.name(), **spec))
        self.wait(self.emr.clusters, handle, State.RUNNING)
        return handle

    def job_request(self, name: str, cluster: Handle, *command: str, **spec: Any) -> Request:
        """A step that runs a command instead of spark-submit, for speed."""
        full = {"owner": self.owner, "ttl": 60, "grace": 1, "main": "s3://b/main.py", **spec}
        request = self.emr.jobs.request(name, JobSpec(**full), cluster.name)
        (step,) = request["Steps"]
        words = step["HadoopJarStep"]["Args"]
        own = [word for word in words if word.startswith("spark.portaflow.")]
        # The owner is in the words that ListSteps tells; `sh` takes it for its $0.
        step["HadoopJarStep"]["Args"] = [*words[:3], *command, *own]
        return request

    def sh(self, cluster: Handle, script: str, **spec: Any) -> Handle:
        request = self.job_request(self.name(), cluster, "sh", "-c", script, **spec)
        return self.emr.jobs.start(request, cluster)

    def wait(self, driver: Driver[Any], handle: Handle, *states: State) -> Status:
        return wait(driver, handle, *states)

    def clear(self) -> None:
        self.control.clear()
        handles = list(self.emr.clusters.owned(self.owner))
        for handle in handles:
            self.emr.clusters.stop(handle)
        for handle in handles:
            self.wait(self.emr.clusters, handle)
        assert list(self.emr.clusters.owned(self.owner)) == []


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
