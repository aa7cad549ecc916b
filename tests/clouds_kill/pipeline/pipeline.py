"""The shape of dags/recommendations, with jobs that take a blink."""

from __future__ import annotations

from pathlib import Path

from portaflow import Cluster, ContainerTask, Pipeline, Size, SparkTask

_LEDGER = "{{ params.ledger }}"

pipeline = Pipeline(
    name="kill",
    params={"ledger": ""},
    clusters=(Cluster(name="spark", ttl="2h"),),
    tasks=(
        SparkTask(
            id="features",
            cluster="spark",
            main="work.py",
            args=("features", _LEDGER, "{{ outputs.rows }}", "{{ result }}"),
            outputs=("rows",),
        ),
        ContainerTask(
            id="train",
            image="python",
            command=("python", "-c", (Path(__file__).parent / "work.py").read_text()),
            args=("train", _LEDGER, "{{ outputs.model }}", "{{ result }}", "{{ inputs.rows }}"),
            inputs={"rows": "features.rows"},
            outputs=("model",),
            size=Size(cpu=0.1, memory="256Mi"),
        ),
        SparkTask(
            id="recommend",
            cluster="spark",
            main="work.py",
            args=("recommend", _LEDGER, "{{ outputs.top }}", "{{ result }}", "{{ inputs.model }}"),
            inputs={"model": "train.model"},
            outputs=("top",),
        ),
    ),
)
