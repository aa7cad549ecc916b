"""All local clouds, a target for each driver, and `portaflow` as a command in their environment."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

from portaflow_conformance.emulators.aws import commands
from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.emulators.spark import Spark

PATIENCE = 120.0
PACE = 0.02
ROLE = "arn:aws:iam::123456789012:role/portaflow-jobs"
_S3 = 'store = {backend = "s3", root = "s3://portaflow/store"}'
_GCS = 'store = {backend = "gcs", root = "gs://portaflow/store"}'
_GKE = 'cluster = "portaflow", location = "us-central1"'
TARGETS: Mapping[str, str] = {
    "emr": f'{_S3}\ncompute = {{backend = "emr"}}',
    "serverless": f'{_S3}\ncompute = {{backend = "emr-serverless", execution_role = "{ROLE}"}}',
    "eks": f'{_S3}\ncontainer = {{backend = "eks", cluster = "portaflow"}}',
    "kubernetes": f'{_GCS}\ncontainer = {{backend = "kubernetes"}}',
    "dataproc": f'{_GCS}\ncompute = {{backend = "dataproc", region = "europe-west1"}}',
    "batches": f'{_GCS}\ncompute = {{backend = "dataproc-serverless", region = "europe-west1"}}',
    "gke": f'{_GCS}\ncontainer = {{backend = "gke", {_GKE}}}',
}
"""One for each driver of jobs and of containers; those of clusters and stores are among them."""

Json = Mapping[str, Any]
_NONE: Json = {}
_SLEEP = ("import sys, time", "time.sleep(float(sys.argv[-1]))")
"""What stands for a Spark job: the drivers of clouds, not Spark, are looked at here."""


def written(target: str, *, task: Json = _NONE, cluster: Json = _NONE, **more: str) -> Any:
    """A pipeline with one task that this target's driver can run."""
    body: dict[str, Any] = {"name": "p", **more}
    if target in ("emr", "dataproc"):
        body["clusters"] = [{"name": "c", "timeout": 20, **cluster}]
    if target in ("emr", "dataproc", "serverless", "batches"):
        work = {"kind": "spark", "main": "job.py", "args": ["0.1"]}
        work |= {"cluster": "c"} if "clusters" in body else {}
    else:
        work = {"kind": "container", "image": "busybox", "command": ["sleep", "0.1"]}
    return {**body, "tasks": [{"id": "t", "timeout": 20, **work, **task}]}


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def text(self) -> str:
        return self.out + self.err

    @property
    def run(self) -> Any:
        return json.loads(self.out)

    @property
    def task(self) -> Any:
        (task,) = self.run["tasks"]
        return task

    @property
    def cluster(self) -> Any:
        (cluster,) = self.run["clusters"]
        return cluster


class Field:
    def __init__(self, clouds: Clouds, folder: Path) -> None:
        self.clouds, self.folder, self.control = clouds, folder, clouds.control
        self.env = {"TMPDIR": str(folder)}
        self._numbers = count()
        self._undo = ExitStack()
        text = "".join(f"[targets.{name}]\n{lines}\n" for name, lines in TARGETS.items())
        (folder / "portaflow.toml").write_text(text)
        (folder / "job.py").write_text("print('this is Spark')\n")
        self._runner = self._process("runner.py")
        self._auditor = self._process("auditor.py", str(folder / "portaflow.toml"), *TARGETS)

    def _process(self, name: str, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(name)), *words],
            env={**self.clouds.environ(), **self.env}, cwd=self.folder, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._undo.enter_context(process)
        assert process.stdin
        self._undo.callback(process.stdin.close)
        return process

    def close(self) -> None:
        self._undo.close()

    # -- commands

    @cached_property
    def _second(self) -> subprocess.Popen[str]:
        return self._process("runner.py")

    def portaflow(self, *words: str, env: Json = _NONE, beside: bool = False) -> Done:
        """`beside`: while another command is under way."""
        began = time.monotonic()
        runner = self._second if beside else self._runner
        answer = _asked(runner, json.dumps({"words": words, "env": env}))
        return Done(seconds=time.monotonic() - began, **answer)

    def pipeline(self, target: str, **what: Any) -> str:
        """The file of what `written` says."""
        file = self.folder / f"{next(self._numbers)}.yaml"
        file.write_text(json.dumps(written(target, **what), ensure_ascii=False), "utf-8")
        return str(file)

    def run(self, target: str, *words: str, env: Json = _NONE, **what: Any) -> Done:
        file, id = self.pipeline(target, **what), f"r{next(self._numbers)}"
        return self.portaflow(
            "run", file, "--target", target, "--run-id", id, "--json", *words, env=env
        )

    # -- faults

    def fault(self, effect: Any, operation: str, **more: Any) -> Fault:
        return self.control.order(Fault(effect=effect, operation=operation, **more))

    def calls(self, target: str) -> dict[str, int]:
        """What a run without a fault calls, and how often: operations of this target's drivers."""
        began = time.time()
        assert self.run(target).code == 0
        made = Counter(c.operation for c in self.control.seen() if c.time >= began)
        return {op: made[op] for op in sorted(made) if not _inside(op)}

    def audit(self, target: str) -> dict[str, list[str]]:
        """What is alive, and what was made."""
        found: dict[str, list[str]] = _asked(self._auditor, target)
        return found

    def audit_again(self, target: str) -> dict[str, list[str]]:
        """The same, when faults are not to strike who audits."""
        self.control.clear()
        return self.audit(target)

    def nothing_left(self, target: str) -> None:
        """What goes down on its own part is given time; nobody asks it to."""
        self.control.clear()
        deadline = time.monotonic() + PATIENCE
        while left := {k: v for k, v in self.audit(target).items() if k != "made" and v}:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)

    def once(self, operation: str, act: Any) -> threading.Thread:
        """Do something as soon as an operation has been called."""
        before = self.control.count(operation)

        def wait() -> None:
            deadline = time.monotonic() + PATIENCE
            while self.control.count(operation) == before and time.monotonic() < deadline:
                time.sleep(0.02)
            act()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        return thread


def _asked(process: subprocess.Popen[str], line: str) -> Any:
    assert process.stdin
    assert process.stdout
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def _inside(operation: str) -> bool:
    """Whether it is a cloud's own: what keeps pods, and what a job does."""
    return operation.startswith(("kubernetes:kubelet.", "proxy:"))


@contextmanager
def opened(folder: Path) -> Iterator[Field]:
    """Local clouds on which a Spark job is a process that sleeps for as long as its last word."""
    script = "\n".join(_SLEEP)
    cheap = patch.object(
        Spark, "command", lambda self, words, *_: [sys.executable, "-c", script, words[-1]]
    )
    with (
        cheap,
        patch.object(commands, "_SUBMIT", script),
        emulate("aws", "gcp", "kubernetes", pace=PACE, buckets=["portaflow"]) as clouds,
    ):
        field = Field(clouds, folder)
        try:
            yield field
        finally:
            field.close()
