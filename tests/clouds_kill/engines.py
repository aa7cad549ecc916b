"""Runs `portaflow` in processes of their own, each in an environment of its own.

Reads orders, a JSON object a line, {"words", "env", "log", "program"}, and forks for each: what
takes long is imported once. Says {"began": pid} at once, in the order of the orders, and later
{"ended": pid, "code": the exit code, or minus the signal}. Ends, with all of them, when no more
orders can come.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import sys
import traceback
from contextlib import suppress
from typing import Any

from portaflow.cli import main as command_line

ONCE = (
    "boto3", "google.cloud.container_v1", "google.cloud.dataproc_v1", "kubernetes",
    "obstore.store", "portaflow_aws.eks", "portaflow_aws.emr", "portaflow_aws.s3",
    "portaflow_gcp.dataproc", "portaflow_gcp.gcs", "portaflow_gcp.gke", "portaflow.cli.place",
    "portaflow.cli.run",
)  # fmt: skip
"""What takes long to import, and has no connection before it is used."""


def _child(order: dict[str, Any]) -> None:
    out = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(out, number)
    code = 70
    try:
        os.environ.clear()
        os.environ.update(order["env"])
        if order["program"]:
            _without_spark(order["program"])
        sys.argv = ["portaflow", *order["words"]]
        command_line()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _without_spark(program: str) -> None:
    """Let steps run a Python program instead of spark-submit: EMR is called as ever."""
    from portaflow_aws.step import StepDriver

    plain = StepDriver.request

    def request(self: Any, name: str, spec: Any, parent: str = "") -> Any:
        made = plain(self, name, spec, parent)
        step = made["Steps"][0]["HadoopJarStep"]
        words = step["Args"]
        owner = [word for word in words if word.startswith("spark.portaflow.owner=")]
        before = words[: words.index("spark-submit")]
        step["Args"] = [*before, "env", *owner, "python", "-c", program, *spec.args]
        return made

    StepDriver.request = request  # type: ignore[method-assign]


def _say(**what: int) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    for name in ONCE:
        importlib.import_module(name)
    orders = os.fdopen(os.dup(0), "rb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    alive: set[int] = set()
    while True:
        if select.select([orders], [], [], 0.02)[0]:
            line = b""
            while not line.endswith(b"\n"):
                if not (more := orders.read(65_536)):
                    for pid in alive:
                        os.kill(pid, signal.SIGKILL)
                    return
                line += more
            for one in line.splitlines():
                if (pid := os.fork()) == 0:
                    _child(json.loads(one))
                alive.add(pid)
                _say(began=pid)
        while alive and (ended := os.waitpid(-1, os.WNOHANG))[0]:
            alive.remove(ended[0])
            _say(ended=ended[0], code=os.waitstatus_to_exitcode(ended[1]))


if __name__ == "__main__":
    main()
