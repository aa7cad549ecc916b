"""Runs `portaflow` in processes that have a cloud's environment from their start.

Reads one JSON object a line, {"words", "env"}, and forks: what takes long is imported once, and
no client outlives its command. Answers with a line of JSON: the exit code, or minus the signal,
and what was written.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from portaflow_aws import asked
from portaflow_kubernetes import jobs, verdict

from portaflow import calls, engine, poller
from portaflow import state as run_state
from portaflow.cli import main as command_line

_ONCE = (
    *("boto3", "google.cloud.container_v1", "google.cloud.dataproc_v1", "kubernetes", "obstore"),
    *("portaflow_aws.eks", "portaflow_aws.emr", "portaflow_aws.s3", "portaflow_aws.serverless"),
    *("portaflow_gcp.batch", "portaflow_gcp.dataproc", "portaflow_gcp.gcs", "portaflow_gcp.gke"),
    *(f"portaflow.cli.{name}" for name in ("define", "place", "run", "show")),
)


def impatient() -> None:
    """The same steps with shorter pauses."""
    pauses: tuple[tuple[ModuleType, dict[str, float]], ...] = (
        (calls, {"_FIRST_PAUSE": 0.02, "_LONGEST_PAUSE": 0.3}),
        (asked, {"_LATE": 1.0}),
        (poller, {"_GRACE": 3.0, "_SURE": 0.3, "_DENIED": 1.0, "_LONGEST_TROUBLE": 0.2}),
        (engine, {"STOP_AGAIN": 1.0}),
        (run_state, {"LOSS_DELAY": 0.3}),
        (jobs, {"PATIENCE": 0.5}),
        (verdict, {"_SETTLING": 1.0}),
    )
    for module, values in pauses:
        for name, seconds in values.items():
            getattr(module, name)  # of another name it would be as long as ever
            setattr(module, name, seconds)


def _child(order: dict[str, Any]) -> None:
    for name, value in order["env"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    impatient()
    sys.argv = ["portaflow", *order["words"]]
    command_line()


def _run(order: dict[str, Any], folder: Path) -> dict[str, Any]:
    out, err = folder / "out", folder / "err"
    if pid := os.fork():
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return {"code": code, "out": out.read_text("utf-8"), "err": err.read_text("utf-8")}
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), number)
    code = 70
    try:
        _child(order)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    for name in _ONCE:
        importlib.import_module(name)
    for line in sys.stdin:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(_run(json.loads(line), Path(folder))), flush=True)


if __name__ == "__main__":
    main()
