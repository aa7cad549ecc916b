"""Make numbers in one container and take their mean in another. No Spark, no cluster."""

from portaflow import ContainerTask, Pipeline

pipeline = Pipeline(
    name="container-only",
    params={"count": 1000},
    tasks=(
        ContainerTask(
            id="make",
            image="numbers",
            command=("python", "make.py"),
            args=("{{ params.count }}", "{{ outputs.numbers }}"),
            outputs=("numbers",),
        ),
        ContainerTask(
            id="mean",
            image="numbers",
            command=("python", "mean.py"),
            inputs={"numbers": "make.numbers"},
            args=("{{ inputs.numbers }}", "{{ result }}"),
        ),
    ),
)
