"""Runs and resumes pipelines in processes that kill themselves where they are told.

Reads one JSON list of strings a line, [pipeline, folder, "start" or "resume", boundary], and
forks: what takes long is imported once. Answers with a line: the exit code, or minus the
signal. The pipeline is "light", or "recommendations" for the one with real Spark.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from portaflow import data
from portaflow.backend import Kind
from portaflow.call import CallDriver
from portaflow.hookspecs import BackendSpec
from portaflow.journal import Journal
from portaflow.load import load
from portaflow.plan import Run
from portaflow.plugins import Offer, Registry, installed
from portaflow.session import Session
from portaflow.state import Event
from portaflow.target import Target

HERE = Path(__file__).parent
KINDS: tuple[Kind, ...] = ("cluster", "job", "container")
sys.path.insert(0, str(HERE))


def session(folder: Path, pipeline: str = "light") -> Session:
    light = Offer(BackendSpec("light", "compute", "light:Light"), "tests")
    bindings = {
        "store": {"backend": "folder", "root": str(folder / "store")},
        "container": {"backend": "process", "root": str(folder / "local")},
        "compute": {
            "backend": "light" if pipeline == "light" else "spark-local",
            "root": str(folder / "compute"),
        },
    }
    target = Target.model_validate({"name": "test", "base": folder, **bindings})
    return Session(target, Registry([*installed(), light], []))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _around(owner: Any, method: str, names: Callable[..., Iterable[str]], boundary: str) -> None:
    """Let a method die just before or just after it does what `boundary` names."""
    call = getattr(owner, method)

    @functools.wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        mine = set(names(*args, **kwargs))
        if any(boundary == f"before {name}" for name in mine):
            _die()
        answer = call(*args, **kwargs)
        if any(boundary == f"after {name}" for name in mine):
            _die()
        return answer

    setattr(owner, method, wrapped)


def _arm(opened: Session, boundary: str) -> None:
    def events(journal: Journal, events: list[Event]) -> list[str]:
        return [f"event {e.action} {e.phase.value}" for e in events]

    _around(Journal, "append", events, boundary)
    _around(Journal, "begin", lambda *_: ["begin"], boundary)
    _around(data, "commit", lambda fs, action, attempt: [f"commit {action.id}"], boundary)
    for driver in {CallDriver, *(type(opened.backends.driver(kind)) for kind in KINDS)}:
        _around(driver, "start", lambda _, r, *__: [f"start {_task(r['name'])}"], boundary)
        _around(driver, "stop", lambda _, h: [f"stop {_task(h.name)}"], boundary)


def _task(name: str) -> str:
    """pf-light-TASK-digest-attempt: the task or cluster that a remote thing is for."""
    return name.split("-")[2]


def _run(pipeline: str, folder: Path, verb: str, boundary: str) -> bool:
    opened = session(folder, pipeline)
    _arm(opened, boundary)
    if verb == "resume":
        engine = opened.resume(opened.find(f"{pipeline}/r"))
    elif pipeline == "light":
        run = Run(id="r", params={"ledger": str(folder / "ledger")})
        engine = opened.start(load(HERE / "pipeline"), run)
    else:
        engine = opened.start(load(HERE.parents[1] / "dags" / pipeline), Run(id="r"))
    return engine.run().succeeded


def _child(pipeline: str, folder: str, verb: str, boundary: str) -> None:
    try:
        os._exit(0 if _run(pipeline, Path(folder), verb, boundary) else 1)
    except BaseException:
        traceback.print_exc()
        os._exit(2)


def main() -> None:
    for line in sys.stdin:
        if pid := os.fork():
            _, status = os.waitpid(pid, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
        else:
            _child(*json.loads(line))


if __name__ == "__main__":
    main()
