"""A Spark job, then a container: each leaves the token of its run."""

from __future__ import annotations

from pathlib import Path

from portaflow import Cluster, ContainerTask, Pipeline, Size, SparkTask

_ARGS = ("{{ params.token }}", "{{ outputs.out }}", "{{ result }}", "{{ params.gate }}")

pipeline = Pipeline(
    name="marks",
    params={"token": "", "gate": ""},
    clusters=(Cluster(name="spark", ttl="2h"),),
    tasks=(
        SparkTask(id="job", main="mark.py", cluster="spark", outputs=("out",), args=_ARGS),
        ContainerTask(
            id="box",
            image="python",
            command=("python", "-c", (Path(__file__).parent / "mark.py").read_text()),
            args=_ARGS,
            after=("job",),
            outputs=("out",),
            size=Size(cpu=0.1, memory="256Mi"),
        ),
    ),
)
