"""A job run of EMR Serverless: one Spark process, its states, its logs."""

from __future__ import annotations

import secrets
import shlex
import shutil
import threading
import time
from typing import Any, Protocol

from ..control import Fault
from ..running import Running
from ..spark import Spark, SparkMissingError, cores, properties
from .rest import ACCOUNT
from .shop import S3A, Shop, own

ENDED = ("SUCCESS", "FAILED", "CANCELLED")
_TICK = 0.05
_LOGS_EVERY = 2.0  # seconds
_LOGS = "applications/{}/jobs/{}/SPARK_DRIVER"
_FAILED = "Job failed, please check complete logs in configured logging destination. ExitCode: {}."
_QUOTA = (
    "Job failed as account has reached the service limit on the maximum vCPU it can use "
    "concurrently."
)
_CORES = 2000  # that an account may have at one time
_EXECUTORS = 3  # of a job that names no number
_SECRET = "EMR.secret@"  # what a property begins with that names one
_DRIVER = "spark.emr-serverless.driverEnv."


class Runs(Protocol):
    """What a job run needs of its application."""

    id: str
    arn: str
    region: str
    state: str
    given: dict[str, Any]


class JobRun:
    """Moves in a thread of its own: to fetch a connector, or to keep logs, may take long."""

    def __init__(
        self, shop: Shop, application: Runs, given: dict[str, Any], fault: Fault | None
    ) -> None:
        self.id = "00" + secrets.token_hex(7)
        self.arn = f"{application.arn}/jobruns/{self.id}"
        self.state, self.why = "SUBMITTED", ""
        self._shop, self._application = shop, application
        self._release = application.given["releaseLabel"]
        self.given, self._fault = given, fault
        self._folder = shop.folder / application.id / self.id
        self._running: Running | None = None
        self.created = self._updated = time.time()
        self._began: float | None = None
        self._ended: float | None = None
        self._deadline = 0.0
        self._kept = time.monotonic()  # when its logs were put into the store
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._drive, name=f"run-{self.id}", daemon=True)
        self._thread.start()

    def told(self) -> dict[str, Any]:
        given = dict(self.given)
        role = given.pop("executionRoleArn")
        end = self._ended or time.time()
        times = {"startedAt": self._began, "endedAt": self._ended}
        return {
            "mode": "BATCH",
            "attempt": 1,
            **given,
            "executionRole": role,
            "applicationId": self._application.id,
            "jobRunId": self.id,
            "arn": self.arn,
            "state": self.state,
            "stateDetails": self.why,
            "releaseLabel": self._release,
            "createdAt": self.created,
            "updatedAt": self._updated,
            "attemptCreatedAt": self.created,
            "attemptUpdatedAt": self._updated,
            **{key: value for key, value in times.items() if value is not None},
            "totalExecutionDurationSeconds": int(end - self._began) if self._began else 0,
        }

    def hidden(self) -> bool:
        return hidden(self._fault, self.created)

    def cancel(self) -> None:
        """Ask it to end; nothing when it has."""
        with self._lock:
            if self.state not in ENDED:
                self.state, self._updated = "CANCELLING", time.time()
                self._cancelled.set()

    def join(self) -> None:
        self._thread.join()

    def _drive(self) -> None:
        while self.state not in ENDED:
            self._move()
            self._cancelled.wait(_TICK)

    def _move(self) -> None:
        effect = self._fault.effect if self._fault else ""
        if self._cancelled.is_set():
            self._end("CANCELLED")
        elif self._application.state == "TERMINATED":
            self._end("FAILED", "The application was terminated")
        elif self.state == "SUBMITTED":
            self._become("PENDING")
        elif self.state == "PENDING":
            if self._application.state == "STARTED" and effect != "hang":
                self._become("SCHEDULED")
        elif self.state == "SCHEDULED":
            if effect == "fail":
                self._end("FAILED", "a fault on order")
            else:
                self._launch()
        elif self.state == "RUNNING":
            self._watch(effect)

    def _launch(self) -> None:
        self._folder.mkdir(parents=True)
        try:
            words = self._words()
            conf, env = self._settings(words)
            if cores({**conf, **properties(words)}, _EXECUTORS) > _CORES:
                raise ValueError(_QUOTA)
            self._running = Spark(S3A).run(
                words,
                self._folder,
                conf={**self._shop.spark_conf(), **conf},
                env={**self._shop.env, **env},
                stdout=self._folder / "stdout",
                stderr=self._folder / "stderr",
            )
        except (SparkMissingError, ValueError) as error:
            (self._folder / "stderr").write_text(f"{error}\n", "utf-8")
            self._end("FAILED", str(error))
            return
        self._began = time.time()
        minutes = self.given["executionTimeoutMinutes"]
        limit = 60 * float(minutes) if minutes else float("inf")
        self._deadline = self._shop.control.now() + limit
        self._become("RUNNING")

    def _words(self) -> list[str]:
        """What would follow "spark-submit"."""
        driver = self.given["jobDriver"]["sparkSubmit"]
        options = shlex.split(driver.get("sparkSubmitParameters") or "")
        return [*options, driver["entryPoint"], *driver.get("entryPointArguments", ())]

    def _settings(self, words: list[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Spark's properties by configuration, and the variables that they give the driver."""
        conf: dict[str, str] = {}
        overrides = self.given.get("configurationOverrides") or {}
        for one in overrides.get("applicationConfiguration") or ():
            if one.get("classification") == "spark-defaults":
                conf |= one.get("properties") or {}
        conf = {key: self._revealed(value) for key, value in conf.items()}
        given = {**conf, **properties(words)}
        env = {k.removeprefix(_DRIVER): v for k, v in given.items() if k.startswith(_DRIVER)}
        return conf, own(env)

    def _revealed(self, value: str) -> str:
        """A property, or the secret that it names. Raises ValueError when that is not there."""
        if not value.startswith(_SECRET):
            return value
        from moto.core.exceptions import JsonRESTError
        from moto.secretsmanager.models import secretsmanager_backends

        region, name = self._application.region, value.removeprefix(_SECRET)
        try:
            told = secretsmanager_backends[ACCOUNT][region].get_secret_value(name, "", "AWSCURRENT")
        except JsonRESTError:
            raise ValueError(f"Secrets Manager can't find the secret {name}.") from None
        return str(told["SecretString"])

    def _watch(self, effect: str) -> None:
        assert self._running is not None
        if time.monotonic() > self._kept + _LOGS_EVERY:
            self._keep_logs()
            self._kept = time.monotonic()
        if effect == "die":
            self._end("FAILED", "a fault on order")
        elif (code := self._running.poll()) is not None:
            self._end("FAILED" if code else "SUCCESS", _FAILED.format(code) if code else "")
        elif self._shop.control.now() > self._deadline:
            self._end("FAILED", "Job run exceeded executionTimeoutMinutes")

    def _end(self, state: str, why: str = "") -> None:
        """End its process, if there is one, and tell how it ended."""
        if self._running is not None:
            self._running.stop()
        self._ended = time.time()
        self._keep_logs()  # they are there before the state says that the run has ended
        shutil.rmtree(self._folder, ignore_errors=True)
        with self._lock:
            self.state, self.why, self._updated = state, why, self._ended

    def _become(self, state: str) -> None:
        with self._lock:
            if not self._cancelled.is_set():
                self.state, self._updated = state, time.time()

    def _keep_logs(self) -> None:
        overrides = self.given.get("configurationOverrides") or {}
        monitoring = overrides.get("monitoringConfiguration") or {}
        uri = (monitoring.get("s3MonitoringConfiguration") or {}).get("logUri")
        if not uri or not self._folder.exists():
            return
        where = f"{uri.rstrip('/')}/{_LOGS.format(self._application.id, self.id)}"
        for name in ("stdout", "stderr"):
            uri = f"{where}/{name}.gz"
            self._shop.keep_log(self._folder / name, uri, "aws:emr-serverless.logs-lost")


def hidden(fault: Fault | None, created: float) -> bool:
    """Whether lists do not have a thing yet: they are behind, on order."""
    late = fault.seconds if fault and fault.effect == "hide" else 0.0
    return time.time() < created + late
