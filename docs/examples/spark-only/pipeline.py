"""Count words with Spark, on a cluster that is made for the run."""

from portaflow import Cluster, Pipeline, Source, SparkTask

pipeline = Pipeline(
    name="spark-only",
    params={"at_least": 2},
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
    ),
)
