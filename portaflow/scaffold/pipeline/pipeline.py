"""What this pipeline does, said without naming a cloud."""

from portaflow import ContainerTask, Pipeline

# > from portaflow import Cluster, SparkTask

pipeline = Pipeline(
    name="@NAME@",
    description="Makes orders and adds them up by country.",
    params={"orders": 1000},
    tasks=[
        # A container: its image is built from images/steps. On a laptop the command runs as a
        # process in that folder; nothing is built.
        ContainerTask(
            id="orders",
            image="steps",
            command=["python", "orders.py"],
            args=["--count", "{{ params.orders }}", "--output", "{{ outputs.events }}"],
            outputs=["events"],
        ),
        # It reads what `orders` wrote, and so it waits for it.
        ContainerTask(
            id="totals",
            image="steps",
            command=["python", "totals.py"],
            args=["--events", "{{ inputs.events }}", "--output", "{{ outputs.table }}"],
            inputs={"events": "orders.events"},
            outputs=["table"],
        ),
        # Spark beside containers: take the marks `# > ` off all lines that have them.
        # Needs `pip install 'portaflow[local]'`; no Java.
        # > SparkTask(
        # >     id="best",
        # >     main="jobs/best.py",
        # >     cluster="etl",
        # >     args=["--events", "{{ inputs.events }}", "--output", "{{ outputs.best }}"],
        # >     inputs={"events": "orders.events"},
        # >     outputs=["best"],
        # > ),
    ],
    # > clusters=[Cluster(name="etl", workers=2)],
)
