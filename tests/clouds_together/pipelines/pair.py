"""Spark writes and counts, then a container looks: all with one store, wherever they run."""

from __future__ import annotations

from pathlib import Path

from portaflow import Cluster, ContainerTask, Pipeline, Size, SparkTask

pipeline = Pipeline(
    name="pair",
    clusters=(Cluster(name="spark", ttl="2h"),),
    tasks=(
        SparkTask(
            id="tally",
            main="tally.py",
            cluster="spark",
            outputs=("rows", "count"),
            args=("{{ outputs.rows }}", "{{ outputs.count }}"),
        ),
        ContainerTask(
            id="box",
            image="python",
            command=("python", "-c", (Path(__file__).parent / "mark.py").read_text()),
            args=("from a box", "{{ outputs.out }}", "{{ result }}", "{{ inputs.count }}/_SUCCESS"),
            inputs={"count": "tally.count"},
            outputs=("out",),
            size=Size(cpu=0.1, memory="256Mi"),
        ),
    ),
)
