"""A Spark job and a container at once, each until a gate is open."""

from __future__ import annotations

from pathlib import Path

from portaflow import Cluster, ContainerTask, Pipeline, Size, SparkTask

_ARGS = ("{{ params.token }}", "{{ outputs.out }}", "{{ result }}", "{{ params.gate }}")

pipeline = Pipeline(
    name="held",
    params={"token": "", "gate": ""},
    clusters=(Cluster(name="spark", ttl="2h"),),
    tasks=(
        SparkTask(
            id="job", main="mark.py", cluster="spark", outputs=("out",), args=_ARGS, timeout="30m"
        ),
        ContainerTask(
            id="box",
            image="python",
            command=("python", "-c", (Path(__file__).parent / "mark.py").read_text()),
            args=_ARGS,
            outputs=("out",),
            size=Size(cpu=0.1, memory="256Mi"),
            timeout="30m",
        ),
    ),
)
