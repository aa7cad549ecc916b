"""A step of EMR: its states, its process, its logs."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..control import Fault
from ..running import Running
from . import commands
from .jobrun import hidden
from .nodes import identity
from .shop import Shop

ACTIVE = ("PENDING", "RUNNING", "CANCEL_PENDING")
_TICK = 0.05
_LOGS_EVERY = 2.0  # seconds; on EMR five minutes
_ERROR = re.compile(r"^.*\b\w*(?:Exception|Error)\b.*$", re.MULTILINE)


class Step:
    """Its thread begins when its turn comes: to start it, and to keep its logs, may take long."""

    def __init__(
        self,
        shop: Shop,
        given: dict[str, Any],
        logs: str,
        fault: Fault | None,
        lock: threading.RLock,
    ) -> None:
        self.id = identity("s-")
        self.state = "PENDING"
        self.fault = fault
        self.given = given
        action = given.get("ActionOnFailure", "TERMINATE_CLUSTER")
        self.on_failure = action.replace("JOB_FLOW", "CLUSTER")
        self._shop = shop
        self._bucket = logs
        self._logs = f"{logs}steps/{self.id}/" if logs else ""
        self._folder = shop.folder / self.id
        self._created = time.time()
        self._began: float | None = None
        self._ended: float | None = None
        self._grace = 0.0
        self._cancelled = threading.Event()
        self._lock = lock  # its cluster's: what a step's end means for that follows at once
        self._failure: dict[str, str] = {}
        self._thread: threading.Thread | None = None

    def told(self) -> dict[str, Any]:
        jar = self.given["HadoopJarStep"]
        times = {"StartDateTime": self._began, "EndDateTime": self._ended}
        timeline = {k: v for k, v in times.items() if v is not None}
        told = {
            "Id": self.id,
            "Name": self.given["Name"],
            "Config": {
                "Jar": jar["Jar"],
                "Properties": {p["Key"]: p.get("Value", "") for p in jar.get("Properties", ())},
                "Args": jar.get("Args", []),
                **({"MainClass": jar["MainClass"]} if "MainClass" in jar else {}),
            },
            "ActionOnFailure": self.on_failure,
            "Status": {
                "State": self.state,
                "StateChangeReason": {},
                "Timeline": {"CreationDateTime": self._created, **timeline},
            },
        }
        if "ExecutionRoleArn" in self.given:
            told["ExecutionRoleArn"] = self.given["ExecutionRoleArn"]
        if self.state == "FAILED":
            told["Status"]["FailureDetails"] = self._failure
        return told

    def hidden(self) -> bool:
        return hidden(self.fault, self._created)

    def start(self, ended: Callable[[Step], None]) -> bool:
        """Run it, if it may begin; `ended` is called when it has ended."""
        with self._lock:
            if self.state != "PENDING" or (self.fault and self.fault.effect == "hang"):
                return False
            self.state, self._began = "RUNNING", time.time()
        name = f"step-{self.id}"
        self._thread = threading.Thread(target=self._work, args=(ended,), name=name, daemon=True)
        self._thread.start()
        return True

    def cancel(self, grace: float) -> bool:
        """Ask it to end, in how many seconds before it is killed; whether it had not yet."""
        with self._lock:
            if self.state not in ACTIVE:
                return False
            if self.state == "PENDING":
                self.state = "CANCELLED"
            else:
                self.state, self._grace = "CANCEL_PENDING", grace
                self._cancelled.set()
            return True

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join()

    def _work(self, ended: Callable[[Step], None]) -> None:
        code = self._run()
        state = "FAILED" if code else "COMPLETED"
        if code is None:
            state = "CANCELLED"
        ended_at = time.time()
        self._say(f"INFO Step {self.id} ended: {state}, exit code {code}")
        self._keep_logs()  # they are there before the state says that the step has ended
        self._failure = self._said()  # the cluster's folder goes when it ends
        with self._lock:
            self.state, self._ended = state, ended_at
            ended(self)

    def _run(self) -> int | None:
        """Its exit code; None when it was cancelled."""
        self._folder.mkdir(parents=True)
        jar = self.given["HadoopJarStep"]
        args = jar.get("Args", [])
        self._say(f"INFO startExec 'hadoop jar {jar['Jar']} {' '.join(args)}'")
        effect = self.fault.effect if self.fault else ""
        try:
            if effect == "fail":
                raise commands.CannotRunError("a fault on order")
            running = commands.step(self._shop, jar, self._folder)
        except commands.CannotRunError as error:
            (self._folder / "stderr").write_text(f'Exception in thread "main" {error}\n', "utf-8")
            return 1
        self._say(f"INFO ProcessRunner started child process : {running.pid}")
        code = self._watch(running, effect)
        return self._of_cluster(code) if commands.on_cluster(jar, self._shop.spark_conf()) else code

    def _of_cluster(self, code: int | None) -> int | None:
        """Tell what the client of YARN tells of a driver that ran on the cluster, whose own
        output is a container's."""
        name = f"{int(self._created * 1000)}_{int(self.id[2:], 36) % 10_000:04}"
        final = "KILLED" if code is None else "FAILED" if code else "SUCCEEDED"
        said = f"INFO Client: Submitted application application_{name}\n"
        said += f"INFO Client: Application report for application_{name} (state: FINISHED)\n"
        said += f"\t final status: {final}\n"
        if code:
            said += 'Exception in thread "main" org.apache.spark.SparkException: Application '
            said += f"application_{name} finished with failed status\n"
        (self._folder / "stderr").write_text(said, "utf-8")
        for log in ("stdout", "stderr") if self._bucket else ():
            container = f"containers/application_{name}/container_{name}_01_000001"
            uri = f"{self._bucket}{container}/{log}.gz"
            driver = self._folder / f"{commands.DRIVER}{log}"
            self._shop.keep_log(driver, uri, "aws:emr.logs-lost")
        return code and 1

    def _watch(self, running: Running, effect: str) -> int | None:
        kept, limit = time.monotonic(), commands.limit(self.given["HadoopJarStep"])
        rings = self._shop.control.now() + limit
        while (code := running.wait(_TICK)) is None:
            if self._shop.control.now() > rings:  # a clock that jumped is its machine's, too
                running.ring()
                rings = float("inf")
            if time.monotonic() > kept + _LOGS_EVERY:
                self._keep_logs()
                kept = time.monotonic()
            if self._cancelled.is_set():
                running.stop(self._grace)
                return None
            if effect == "die":
                running.stop(0)
        return code

    def _say(self, line: str) -> None:
        with (self._folder / "controller").open("a", encoding="utf-8") as controller:
            controller.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {line}\n")

    def _keep_logs(self) -> None:
        if self._logs:
            for name in ("controller", "stdout", "stderr"):
                uri = f"{self._logs}{name}.gz"
                self._shop.keep_log(self._folder / name, uri, "aws:emr.logs-lost")

    def _said(self) -> dict[str, str]:
        told = {"Reason": "Unknown Error."}
        log = Path(self._folder / "stderr")
        said = log.read_text("utf-8", "replace") if log.exists() else ""
        if errors := _ERROR.findall(said):
            told["Message"] = errors[-1].strip()[:1000]
        if self._logs:
            told["LogFile"] = f"{self._logs}stderr.gz"
        return told
