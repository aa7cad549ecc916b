"""Three containers, each with the output of the one before: where jobs are to be no Spark."""

from __future__ import annotations

from pathlib import Path

from portaflow import ContainerTask, Pipeline, Size

_TEXT = (Path(__file__).parents[1] / "pipeline" / "work.py").read_text()


def task(id: str, before: str = "") -> ContainerTask:
    return ContainerTask(
        id=id,
        image="python",
        command=("python", "-c", _TEXT),
        args=(
            *(id, "{{ params.ledger }}", "{{ outputs.top }}", "{{ result }}"),
            *(["{{ inputs.before }}"] if before else []),
        ),
        inputs={"before": f"{before}.top"} if before else {},
        outputs=("top",),
        size=Size(cpu=0.1, memory="256Mi"),
    )


pipeline = Pipeline(
    name="kill",
    params={"ledger": ""},
    tasks=(task("features"), task("train", "features"), task("recommend", "train")),
)
