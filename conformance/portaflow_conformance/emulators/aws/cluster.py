"""A cluster of moto's EMR made live: its states take time, its steps are processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from moto.core.utils import utcnow
from moto.emr import models
from moto.emr.exceptions import ValidationException

from ..control import Fault
from ..running import Running
from ..spark import Spark, SparkMissingError
from .shop import S3A, Shop

_ACTIVE = ("PENDING", "RUNNING")
_MOST_ACTIVE = 256
_TICK = 0.05
_DEAD = "A job flow that is shutting down, terminated, or finished may not be modified."


class LiveCluster(models.Cluster):
    __module__ = models.__name__  # moto derives the service's name from it
    shop: ClassVar[Shop]
    ordered: ClassVar[threading.local] = threading.local()  # the fault of the call under way

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._lock = threading.RLock()
        self._running: dict[str, Running] = {}
        self._over = threading.Event()
        self._fault: Fault | None = getattr(self.ordered, "fault", None)
        self._why: dict[str, str] = {}
        self.auto_termination_policy: dict[str, Any] | None = None
        self.state = None
        super().__init__(*args, **kwargs)
        for step in self.steps:
            step.start_date_time = None  # moto has "started" the first one
        self._thread = threading.Thread(target=self._drive, name=f"emr-{self.id}", daemon=True)
        self._thread.start()

    def run_bootstrap_actions(self) -> None:
        """Nothing yet: moto calls it in the constructor, and the thread moves the states."""

    def add_steps(self, steps: list[dict[str, Any]]) -> list[Any]:
        with self._lock:
            if (self.state or "").startswith("TERMINAT"):
                raise ValidationException(_DEAD)
            if sum(s.state in _ACTIVE for s in self.steps) + len(steps) > _MOST_ACTIVE:
                raise ValidationException("Maximum number of active steps exceeded.")
            new = [models.Step(state="PENDING", **step) for step in steps]
            self.steps.extend(new)
            return new

    def terminate(self) -> None:
        self.finish("USER_REQUEST", "Terminated by user request")

    @property
    def status(self) -> dict[str, Any]:
        return {**super().status, "StateChangeReason": dict(self._why)}

    def _drive(self) -> None:
        third = self.shop.pace * 2 / 3
        effect = self._fault.effect if self._fault else ""
        if effect == "hang":
            self._over.wait()
        if not self._over.wait(third) and effect in ("fail", "die"):
            self.finish("INTERNAL_ERROR", "a fault on order", "TERMINATED_WITH_ERRORS")
        with self._lock:
            if not self._over.is_set():
                self.state = "BOOTSTRAPPING"
        self._over.wait(third)
        self.ready_datetime = utcnow()
        idle = self.shop.control.now()
        while not self._over.is_set():
            if self._tick():
                idle = self.shop.control.now()
            elif not self.keep_job_flow_alive_when_no_steps:
                self.finish("ALL_STEPS_COMPLETED", "Steps completed")
            elif self.auto_termination_policy:
                limit = float(self.auto_termination_policy.get("IdleTimeout", 3600))
                if self.shop.control.now() - idle > limit:
                    self.finish("ALL_STEPS_COMPLETED", "Auto-terminated: the cluster was idle")
            self._over.wait(_TICK)
        self._over.wait()
        time.sleep(third)
        with self._lock:
            self.end_datetime = utcnow()
            self.state = self._final

    def _tick(self) -> bool:
        """Take in the steps that ended, start those that may; whether any runs."""
        with self._lock:
            for step in [s for s in self.steps if s.id in self._running]:
                code = self._running[step.id].poll()
                if code is not None:
                    self._ended(step, code)
            if self._over.is_set():
                return False
            busy = sum(s.state == "RUNNING" for s in self.steps)
            for step in self.steps:
                if step.state == "PENDING" and busy < (self.step_concurrency_level or 1):
                    step.start()
                    step.state = "RUNNING"
                    self._launch(step)
                    busy += step.state == "RUNNING"
            if not self._over.is_set():
                self.state = "RUNNING" if busy else "WAITING"
            return busy > 0

    def _launch(self, step: Any) -> None:
        folder = self.shop.folder / self.id / step.id
        folder.mkdir(parents=True)
        words = list(step.args)
        said = f"INFO startExec '{step.jar} {' '.join(words)}'\n"
        (folder / "controller").write_text(said, "utf-8")
        stdout, stderr = folder / "stdout", folder / "stderr"
        if step.jar != "command-runner.jar" or words[:1] != ["spark-submit"]:
            stderr.write_text(
                f"{step.jar} {words[:1]} cannot run in the local AWS: only "
                "command-runner.jar with spark-submit does\n",
                "utf-8",
            )
            self._ended(step, 1)
            return
        try:
            self._running[step.id] = Spark(S3A).run(
                words[1:],
                folder,
                conf=self.shop.spark_conf(),
                env={},
                stdout=stdout,
                stderr=stderr,
            )
        except SparkMissingError as error:
            stderr.write_text(f"{error}\n", "utf-8")
            self._ended(step, 1)

    def _ended(self, step: Any, code: int) -> None:
        self._running.pop(step.id, None)
        self._keep_logs(step, code)
        step.end_date_time = utcnow()
        step.state = "FAILED" if code else "COMPLETED"
        if not code:
            return
        step.last_state_change_reason = f"Exit code {code}"
        if step.action_on_failure in ("TERMINATE_CLUSTER", "TERMINATE_JOB_FLOW"):
            why = "Shut down as step failed"
            self.finish("STEP_FAILURE", why, "TERMINATED_WITH_ERRORS")
        elif step.action_on_failure == "CANCEL_AND_WAIT":
            for other in self.steps:
                if other.state == "PENDING":
                    other.state = "CANCELLED"

    def _keep_logs(self, step: Any, code: int) -> None:
        folder = self.shop.folder / self.id / step.id
        with (folder / "controller").open("a", encoding="utf-8") as controller:
            controller.write(f"INFO Step {step.id} ended with exit code {code}\n")
        if not self.log_uri:
            return
        for name in ("controller", "stdout", "stderr"):
            uri = f"{self.log_uri.rstrip('/')}/{self.id}/steps/{step.id}/{name}.gz"
            self.shop.keep_log(folder / name, uri, "aws:emr.logs-lost")

    def cancel(self, ids: Sequence[str]) -> list[dict[str, str]]:
        told = []
        with self._lock:
            for step in [s for s in self.steps if s.id in ids]:
                if step.state not in _ACTIVE:
                    reason = f"Step is in {step.state} state and cannot be cancelled."
                    told.append({"StepId": step.id, "Status": "FAILED", "Reason": reason})
                    continue
                self._halt(step)
                told.append({"StepId": step.id, "Status": "SUBMITTED"})
        return told

    def _halt(self, step: Any) -> None:
        running = self._running.pop(step.id, None)
        step.state = "CANCELLED"
        if running is not None:
            step.end_date_time = utcnow()
            running.stop()
            self._keep_logs(step, running.poll() or 0)

    def finish(self, code: str, message: str, final: str = "TERMINATED") -> None:
        with self._lock:
            if self._over.is_set():
                return
            self._why = {"Code": code, "Message": message}
            self._final = final
            self.state = "TERMINATING"
            for step in self.steps:
                if step.state in _ACTIVE and (step.state == "PENDING" or step.id in self._running):
                    self._halt(step)
            self._over.set()

    def join(self) -> None:
        self._thread.join()
