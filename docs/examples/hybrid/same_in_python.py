"""The same pipeline as pipeline.yaml."""

from portaflow import Cluster, ContainerTask, Pipeline, Source, SparkTask

pipeline = Pipeline(
    name="hybrid",
    params={"at_least": 1},
    sources={"text": Source(path="text.txt")},
    clusters=(Cluster(name="words", workers=2, ttl="1h"),),
    tasks=(
        SparkTask(
            id="count",
            main="jobs/count.py",
            cluster="words",
            inputs={"text": "text"},
            outputs=("counts",),
            args=("{{ inputs.text }}", "{{ outputs.counts }}", "{{ params.at_least }}"),
        ),
        ContainerTask(
            id="top",
            image="top",
            inputs={"counts": "count.counts"},
            command=("python", "top.py"),
            args=("{{ inputs.counts }}", "{{ result }}"),
        ),
    ),
)
