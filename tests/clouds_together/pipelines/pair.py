"""Spark writes what Spark counts, then a container: all with one store, wherever they run."""

from __future__ import annotations

from pathlib import Path

from portaflow import Cluster, ContainerTask, Pipeline, Size, SparkTask

pipeline = Pipeline(
    name="pair",
    clusters=(Cluster(name="spark", ttl="2h"),),
    tasks=(
        SparkTask(
            id="rows",
            main="tally.py",
            cluster="spark",
            outputs=("out",),
            args=("rows", "{{ outputs.out }}"),
        ),
        SparkTask(
            id="count",
            main="tally.py",
            cluster="spark",
            inputs={"rows": "rows.out"},
            outputs=("out",),
            args=("count", "{{ inputs.rows }}", "{{ outputs.out }}"),
        ),
        ContainerTask(
            id="box",
            image="python",
            command=("python", "-c", (Path(__file__).parent / "mark.py").read_text()),
            args=("from a box", "{{ outputs.out }}", "{{ result }}", "{{ inputs.count }}/_SUCCESS"),
            inputs={"count": "count.out"},
            outputs=("out",),
            size=Size(cpu=0.1, memory="256Mi"),
        ),
    ),
)
