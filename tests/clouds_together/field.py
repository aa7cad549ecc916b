"""Processes with engines in them, on local clouds, and what all tests of them ask."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from portaflow_conformance.emulators.clouds import Clouds

PATIENCE = 120.0
CREATIONS = {
    "aws:emr.RunJobFlow": "Name",
    "aws:emr.AddJobFlowSteps": "Steps.0.Name",
    "aws:emr-serverless.StartJobRun": "name",
    "gcp:dataproc.CreateCluster": "cluster.cluster_name",
    "gcp:dataproc.SubmitJob": "job.reference.job_id",
    "gcp:dataproc.CreateBatch": "batch_id",
    "kubernetes:jobs.create": "body.metadata.name",
}
"""The calls that make something, and where in their parameters its name is."""


class Engines:
    """A process in which engines run. Those with one `folder` are on one machine."""

    def __init__(self, clouds: Clouds, folder: Path) -> None:
        self._errors = folder / f"errors-{uuid4().hex}"
        pipe = subprocess.PIPE
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).parent / "runner.py")],
                stdin=pipe,
                stdout=pipe,
                stderr=errors,
                text=True,
                env={**clouds.environ(), "TMPDIR": str(folder)},
            )

    def ask(self, verb: str, **order: Any) -> None:
        assert self._process.stdin
        print(json.dumps({"verb": verb, **order}), file=self._process.stdin, flush=True)

    def begin(self, verb: str, target: str, pipeline: str, run: str, **params: Any) -> None:
        self.ask(verb, target=target, pipeline=pipeline, run=run, params=params)

    def told(self) -> dict[str, Any]:
        """The next answer: {"answer": ...} or {"error": ...}, with the order it is for."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, self._errors.read_text()[-3000:]
        return dict(json.loads(line))

    def ready(self) -> bool:
        """Whether there is an answer to be told."""
        assert self._process.stdout
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def answer(self, verb: str, **order: Any) -> Any:
        self.ask(verb, **order)
        told = self.told()
        assert "answer" in told, told
        return told["answer"]

    def kill(self) -> None:
        """SIGKILL, whatever it is at."""
        self._process.kill()
        self.close()

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._process.wait()
            self._process.stdout.close()


def until(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)  # a look at all clouds is a dozen calls
    return value


def made(clouds: Clouds) -> Counter[str]:
    """How often each thing was asked for, by its name, as the clouds' log of calls has it."""
    found: Counter[str] = Counter()
    for operation, path in CREATIONS.items():
        for call in clouds.control.seen(operation):
            found[_at(call.params, path)] += 1
    return found


def _at(value: Any, path: str) -> str:
    for part in path.split("."):
        value = value[int(part)] if part.isdigit() else value[part]
    return str(value)


def nothing_lives(looker: Engines) -> None:
    until(lambda: not looker.answer("alive"))
