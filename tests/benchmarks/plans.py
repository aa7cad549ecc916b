"""plan() of many tasks: fast, and linear."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from portaflow.pipeline import Cluster, ContainerTask, Pipeline, SparkTask
from portaflow.plan import Image, Local, LocalFile, Run
from portaflow.planner import plan
from portaflow.plugins import Backends
from portaflow.target import load_target

from . import Figure, seconds


def pipeline(n: int) -> Pipeline:
    """Chains of a Spark job and three containers, ten clusters shared among them."""
    tasks: list[SparkTask | ContainerTask] = []
    for i in range(n // 4):
        tasks.append(
            SparkTask(
                id=f"features{i}", main="job.py", cluster=f"c{i % 10}", outputs=("clean",),
                args=("{{ outputs.clean }}", "--day", "{{ ds }}"),
            )
        )  # fmt: skip
        before = f"features{i}.clean"
        for step in ("train", "score", "check"):
            tasks.append(
                ContainerTask(
                    id=f"{step}{i}", image="train", command=("python", "run.py"),
                    args=("{{ inputs.data }}", "{{ outputs.out }}", str(i)),
                    inputs={"data": before}, outputs=("out",),
                )
            )  # fmt: skip
            before = f"{step}{i}.out"
    return Pipeline(name="many", tasks=tasks, clusters=[Cluster(name=f"c{i}") for i in range(10)])


def measure() -> Iterator[Figure]:
    target = load_target("local", environ={})
    local = Local({"job.py": LocalFile("job.py", "job.py", "0" * 64, 1)}, {"train": Image("train")})

    def cost(n: int) -> float:
        model, backends = pipeline(n), Backends(target)
        return statistics.median(
            seconds(lambda: plan(model, target, Run(id="r"), backends, local)) for _ in range(3)
        )

    cost(100)
    tenth, whole = cost(1_000), cost(10_000)
    yield Figure("plan() of 10,000 tasks", whole, "s", "<= 1 s", whole <= 1)
    ratio = whole / tenth / 10
    yield Figure(
        "the same, a task, against 1,000 tasks", ratio, "x", "<= 1.5 x", ratio <= 1.5,
        f"1,000 tasks {tenth:.3f} s",
    )  # fmt: skip
