"""From the end of a job to the start of the next one: chains of trivial jobs on local clouds.

Each job says when it ends as the last thing it does; when the next one is started is in the
stand-in's log of calls. Between them are the provider's notice of the end, ours, the commit and
the call.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.endpoint import RemoteControl

from portaflow.backend import Driver, Handle
from portaflow.load import Project
from portaflow.pipeline import Cluster, ContainerTask, Pipeline, SparkTask
from portaflow.plan import Run
from portaflow.session import Session
from portaflow.target import Target

from . import Figure

_JOBS, _CONTAINERS = 5, 12
_PLACES: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "containers on Kubernetes": (
        ("aws", "kubernetes"), "kubernetes:jobs.create",
        {
            "store": {"backend": "s3", "root": "s3://bench/k"},
            "container": {"backend": "kubernetes"},
        },
    ),
    "jobs of EMR": (
        ("aws",), "aws:emr.AddJobFlowSteps",
        {
            "store": {"backend": "s3", "root": "s3://bench/e"},
            "compute": {"backend": "emr", "log_uri": "s3://bench/logs"},
        },
    ),
    "jobs of Dataproc": (
        ("gcp",), "gcp:dataproc.SubmitJob",
        {
            "store": {"backend": "gcs", "root": "gs://bench/d"},
            "compute": {"backend": "dataproc", "region": "europe-west1"},
        },
    ),
}  # fmt: skip


def measure() -> Iterator[Figure]:
    for name, (clouds, _, _) in _PLACES.items():
        with emulate(*clouds, buckets=("bench",)) as running:
            done = subprocess.run(
                [sys.executable, "-m", __name__, name],
                env=running.environ(), stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
        gaps = json.loads(done.stdout)
        half = median(gaps)
        yield Figure(
            f"{name}: from an end to the next start", half, "s", "<= 2 s", half <= 2,
            f"median of {len(gaps)}; from {min(gaps):.2f} s to {max(gaps):.2f} s",
        )  # fmt: skip


def _gaps(name: str) -> list[float]:
    _, operation, bindings = _PLACES[name]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "job.py").write_text("import time\nprint('end', time.time())\n")
        pipeline = _chain("container" in bindings)
        session = Session(Target.model_validate({"name": "bench", **bindings}))
        project = Project(pipeline, Path(folder), Path(folder) / "pipeline.py")
        engine = session.start(project, Run(id="r"))
        state = engine.run()
    if not state.succeeded:
        raise SystemExit(f"the benchmark's own run failed: {state.failed()}")
    starts = [call.time for call in RemoteControl().seen(operation)]
    ends = []
    for task in pipeline.tasks:
        action, handle = engine.plan.by_id[task.id], state[task.id].handle
        assert handle
        ends.append(_end(session.driver(action), handle))
    if len(starts) != len(ends):
        raise SystemExit(f"{len(ends)} jobs were started by {len(starts)} calls")
    return [start - end for end, start in zip(ends, starts[1:], strict=False)]


def _chain(containers: bool) -> Pipeline:
    if not containers:
        jobs = [
            SparkTask(id=f"t{n}", main="job.py", cluster="c", after=[f"t{n - 1}"] if n else [])
            for n in range(_JOBS)
        ]
        return Pipeline(name="chain", clusters=(Cluster(name="c"),), tasks=jobs)
    tasks = [
        ContainerTask(
            id=f"t{n}", image="busybox", command=("sh", "-c", "date +'end %s.%N'"),
            after=[f"t{n - 1}"] if n else [],
        )
        for n in range(_CONTAINERS)
    ]  # fmt: skip
    return Pipeline(name="chain", tasks=tasks)


def _end(driver: Driver[Any], handle: Handle) -> float:
    """When a job said that it ended."""
    data, cursor, end = b"", "", False
    while not end:
        chunk = driver.logs(handle, cursor)
        data, cursor, end = data + chunk.data, chunk.cursor, chunk.end
    return float(data.rpartition(b"end ")[2].split()[0])


if __name__ == "__main__":
    print(json.dumps(_gaps(sys.argv[1])))
