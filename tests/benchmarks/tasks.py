"""200 tiny tasks, two at a time, against a bare pool of subprocesses in the same run."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from portaflow.load import Project
from portaflow.pipeline import ContainerTask, Pipeline
from portaflow.plan import Run
from portaflow.session import Session
from portaflow.target import load_target

from . import Figure, paired

_COUNT = 200


def run(folder: Path, n: int, run_id: str) -> None:
    """Run `n` tasks that do nothing, in a store under `folder`."""
    sets = (
        f"store.root={folder}/store",
        f"compute.root={folder}/local",
        f"container.root={folder}/local",
        "max_parallel=2",
    )
    tasks = [ContainerTask(id=f"t{i}", image="any", command=("true",)) for i in range(n)]
    pipeline = Pipeline(name="tiny", tasks=tasks)
    session = Session(load_target("local", environ={}, sets=sets))
    state = session.start(Project(pipeline, folder, folder / "pipeline.py"), Run(id=run_id)).run()
    if not state.succeeded:
        raise SystemExit(f"the benchmark's own run failed: {state.failed()}")


def _pool() -> None:
    with ThreadPoolExecutor(2) as pool:
        for _ in pool.map(lambda _: subprocess.run(["true"], check=True), range(_COUNT)):
            pass


def measure() -> Iterator[Figure]:
    disk = _over(None)
    memory = _over("/dev/shm") if Path("/dev/shm").is_dir() else disk
    over, mine, other = memory
    yield Figure(
        "a task over the pool's", over, "ms", "<= 3 ms", over <= 3,
        f"pool {other:.2f} ms a task, ours {mine:.2f} ms; on the disk {disk[0]:.2f} ms over",
    )  # fmt: skip


def _over(folder: str | None) -> tuple[float, float, float]:
    """Milliseconds a task: ours over the pool's, ours, the pool's. The store is in `folder`.

    In memory portaflow is measured and not the disk: ext4 makes files several times slower in
    the minutes after many were deleted near by, as tests and benchmarks do.
    """
    numbers = count()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        mine, other = paired(lambda: run(Path(name), _COUNT, f"r{next(numbers)}"), _pool, 5)
    mine, other = mine / _COUNT * 1000, other / _COUNT * 1000
    return mine - other, mine, other
