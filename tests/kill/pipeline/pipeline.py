"""The shape of dags/recommendations with tasks that take a blink.

Each writes a line to the ledger, outside the store, when it begins and when it ends.
"""

from portaflow import Cluster, ContainerTask, Pipeline, SparkTask

pipeline = Pipeline(
    name="light",
    params={"ledger": ""},
    clusters=(Cluster(name="spark", conf={"ledger": "{{ params.ledger }}"}),),
    tasks=(
        SparkTask(
            id="features",
            cluster="spark",
            main="task.sh",
            args=("features", "{{ params.ledger }}", "{{ outputs.rows }}"),
            outputs=("rows",),
        ),
        ContainerTask(
            id="train",
            image="train",
            command=("sh", "task.sh"),
            args=("train", "{{ params.ledger }}", "{{ outputs.model }}", "{{ inputs.rows }}"),
            inputs={"rows": "features.rows"},
            outputs=("model",),
        ),
        SparkTask(
            id="recommend",
            cluster="spark",
            main="task.sh",
            args=("recommend", "{{ params.ledger }}", "{{ outputs.top }}", "{{ inputs.model }}"),
            inputs={"model": "train.model"},
            outputs=("top",),
        ),
    ),
)
