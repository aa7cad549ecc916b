"""Two containers, one after the other: each leaves the token of its run."""

from __future__ import annotations

from pathlib import Path

from portaflow import ContainerTask, Pipeline, Size

_TEXT = (Path(__file__).parent / "mark.py").read_text()
_ARGS = ("{{ params.token }}", "{{ outputs.out }}", "{{ result }}", "{{ params.gate }}")


def box(id: str, *after: str) -> ContainerTask:
    return ContainerTask(
        id=id,
        image="python",
        command=("python", "-c", _TEXT),
        args=_ARGS,
        after=after,
        outputs=("out",),
        size=Size(cpu=0.1, memory="256Mi"),
    )


pipeline = Pipeline(
    name="boxes",
    params={"token": "", "gate": ""},
    tasks=(box("first"), box("second", "first")),
)
