"""What 1,000 jobs of one account cost in status calls, a round of the poller, by driver.

They are held before they run, so that no process of theirs is there; what the stand-in's log
of calls has grown by is what a round costs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, cast

from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.emulators.endpoint import RemoteControl

from portaflow.backend import ClusterSpec, ContainerSpec, Driver, Handle, JobSpec, State
from portaflow.calls import patiently
from portaflow.poller import Poller

from . import Figure

_COUNT, _MOST = 1_000, 20
_ROUNDS = 3
_PATIENCE = 120.0  # seconds for a cluster to be there, and for the rounds
Started = tuple[Driver[Any], list[Handle]]


def measure() -> Iterator[Figure]:
    for cloud in _STARTS:
        with emulate(cloud, pace=0) as clouds:
            done = subprocess.run(
                [sys.executable, "-m", __name__, cloud],
                env=clouds.environ(), stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
        for name, (calls, took) in json.loads(done.stdout).items():
            yield Figure(
                f"status of {_COUNT:,} {name}", calls, "calls a round", f"<= {_MOST} calls",
                calls <= _MOST, f"a round took {took:.2f} s",
            )  # fmt: skip


class _Rounds:
    """A driver as the poller sees it, whose rounds are counted."""

    def __init__(self, driver: Driver[Any], calls: Callable[[], int]) -> None:
        self._driver, self._calls = driver, calls
        self.costs: list[tuple[int, float]] = []

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Any]:
        before, began = self._calls(), time.perf_counter()
        seen = self._driver.poll(handles)
        if len(handles) == _COUNT:  # else the watching has but begun
            self.costs.append((self._calls() - before, time.perf_counter() - began))
        return seen


def _rounds(driver: Driver[Any], handles: list[Handle], calls: Callable[[], int]) -> Any:
    """The calls and the seconds of the dearest of some rounds."""
    seen: dict[str, Any] = {}
    rounds, poller = _Rounds(driver, calls), Poller()
    for handle in handles:
        poller.watch(cast("Driver[Any]", rounds), handle, partial(seen.__setitem__, handle.name))
    until(lambda: len(rounds.costs) >= _ROUNDS)
    poller.close()
    wrong = {h.name: seen.get(h.name) for h in handles} if len(seen) != len(handles) else {}
    wrong |= {n: s for n, s in seen.items() if getattr(s, "state", None) is not State.PENDING}
    if wrong:
        raise SystemExit(f"these were to wait: {wrong}")
    return max(rounds.costs)


def until(truth: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not truth():
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {_PATIENCE:.0f} s")
        time.sleep(0.02)


def ready(driver: Driver[Any], request: Any) -> Handle:
    """A cluster, once it is there."""
    cluster = driver.start(request)
    until(lambda: getattr(driver.poll([cluster])[cluster.name], "state", None) is State.RUNNING)
    return cluster


def _all(start: Callable[[int], Handle]) -> list[Handle]:
    """As the engine does: urllib3 changes a TLS context that other threads make use of."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda n: patiently(partial(start, n), None), range(_COUNT)))


def _emr() -> Started:
    """On as many clusters as that takes: one has at most 256 steps that have not ended."""
    from portaflow_aws.emr import Config, Emr

    emr, each = Emr(Config()), 250
    handles: list[Handle] = []
    for n in range(_COUNT // each):
        cluster = ready(emr.clusters, emr.clusters.request(f"pf-c-{n}", ClusterSpec(owner="o")))
        request = emr.jobs.request("pf-j", JobSpec(owner="o", main="s3://b/j.py"), cluster.name)
        steps = [{**request["Steps"][0], "Name": f"pf-{n}-{i}"} for i in range(each)]
        client = emr.clusters.aws.client("emr")
        ids = client.add_job_flow_steps(JobFlowId=cluster.id, Steps=steps)["StepIds"]
        handles += (
            Handle(name=step["Name"], id=id, parent=cluster.id)
            for step, id in zip(steps, ids, strict=True)
        )
    return emr.jobs, handles


def _emr_serverless() -> Started:
    from portaflow_aws.serverless import Config, EmrServerless

    jobs = EmrServerless(Config(execution_role="arn:aws:iam::123456789012:role/job")).jobs
    spec = JobSpec(owner="o", main="s3://b/j.py")
    jobs.start(jobs.request("pf-first", spec))  # makes the application
    return jobs, _all(lambda n: jobs.start(jobs.request(f"pf-{n}", spec)))


def _dataproc() -> Started:
    from portaflow_gcp.dataproc import Config, Dataproc

    dataproc = Dataproc(Config(region="europe-west1"))
    jobs, clusters = dataproc.jobs, dataproc.clusters
    cluster = ready(clusters, clusters.request("pf-c", ClusterSpec(owner="o")))
    spec = JobSpec(owner="o", main="gs://b/j.py")
    return jobs, _all(lambda n: jobs.start(jobs.request(f"pf-{n}", spec, cluster.name), cluster))


def _batches() -> Started:
    from portaflow_gcp.batch import Config, DataprocServerless

    jobs = DataprocServerless(Config(region="europe-west1")).jobs
    spec = JobSpec(owner="o", main="gs://b/j.py")
    return jobs, _all(lambda n: jobs.start(jobs.request(f"pf-{n}", spec)))


def _kubernetes() -> Started:
    """Suspended: whatever waits costs twice what runs, for its pods are asked for, too."""
    from portaflow_kubernetes.containers import Config, Kubernetes

    driver = Kubernetes(Config()).containers
    spec = ContainerSpec(owner="o", image="busybox", command=("true",))

    def start(n: int) -> Handle:
        request = driver.request(f"pf-{n}", spec)
        return driver.start({**request, "spec": {**request["spec"], "suspend": True}})

    return driver, _all(start)


_STARTS: Mapping[str, Mapping[str, Callable[[], Started]]] = {
    "aws": {"steps of EMR": _emr, "job runs of EMR Serverless": _emr_serverless},
    "gcp": {"jobs of Dataproc": _dataproc, "batches of Dataproc": _batches},
    "kubernetes": {"Jobs of Kubernetes that wait": _kubernetes},
}
_HELD = ("aws:emr.AddJobFlowSteps", "aws:emr-serverless.StartJobRun", "gcp:*.SubmitJob")


def _measured(cloud: str) -> dict[str, Any]:
    control = RemoteControl()
    for operation in (*_HELD, "gcp:*.CreateBatch"):
        control.order(Fault(effect="hang", operation=operation, times=-1))
    calls = partial(control.count, f"{cloud}:*")
    return {name: _rounds(*start(), calls) for name, start in _STARTS[cloud].items()}


if __name__ == "__main__":
    print(json.dumps(_measured(sys.argv[1])))
