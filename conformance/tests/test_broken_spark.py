"""Every check of Spark clusters fails on a backend that breaks just that promise.

The reference runs a job as a plain Python process with a stand-in for pyspark, so that a
check costs milliseconds; the real Spark is checked in test_command.py.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from portaflow_conformance.checks import implemented
from portaflow_conformance.manifest import MANIFEST
from portaflow_conformance.subject import Subject
from portaflow_local.process import ProcessDriver, Processes, _held

from portaflow.backend import (
    SUPPORTED,
    Capability,
    Cause,
    ClusterSpec,
    ComputeCluster,
    Handle,
    JobSpec,
    LogChunk,
    Request,
    State,
    Status,
)
from portaflow.errors import ConflictError, NotFoundError, RejectedError

CHECKS = [c.id for c in MANIFEST if c.area == "spark" and not c.planned]

PYSPARK = """
import json, os, types

GIVEN = json.loads(os.environ["FAKE_SPARK"])

class Data(list):
    def map(self, function):
        return Data(function(x) for x in self)
    def collect(self):
        return self
    def saveAsTextFile(self, uri):
        folder = uri.removeprefix("file://")
        os.makedirs(folder)
        with open(folder + "/part-00000", "w") as part:
            part.writelines(line + "\\n" for line in self)

class Loader:
    def getResource(self, name):
        return name if GIVEN["jars"] else None

def here(value):
    return lambda: value

thread = types.SimpleNamespace(getContextClassLoader=here(Loader()))
lang = types.SimpleNamespace(Thread=types.SimpleNamespace(currentThread=here(thread)))

class Context:
    _jvm = types.SimpleNamespace(java=types.SimpleNamespace(lang=lang))
    def getConf(self):
        return types.SimpleNamespace(getAll=GIVEN["conf"].items)
    def parallelize(self, values, parts):
        return Data(values)
    def stop(self):
        pass

class SparkSession:
    sparkContext = Context()
    class builder:
        getOrCreate = staticmethod(lambda: SparkSession)
"""


class Clusters(ProcessDriver[ClusterSpec]):
    def __init__(self, root: Path) -> None:
        super().__init__(root, "cluster")

    def request(self, name: str, spec: ClusterSpec, parent: str = "") -> Request:
        return {
            **json.loads(json.dumps(asdict(spec))),
            "name": name,
            "command": ["sh", "-c", "while :; do sleep 0.2; done"],
            "env": {},
        }

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        if request["spark_version"]:
            raise RejectedError(f"there is no Spark {request['spark_version']}")
        return super().start(request, parent)


class Jobs(ProcessDriver[JobSpec]):
    def __init__(self, root: Path) -> None:
        super().__init__(root, "job")
        self.root = root

    def request(self, name: str, spec: JobSpec, parent: str = "") -> Request:
        return {**json.loads(json.dumps(asdict(spec))), "name": name, "cluster": parent}

    def launch(self, request: Request, home: Path, parent: Handle | None) -> Any:
        if not self.runs(request["cluster"]):
            raise NotFoundError(f"cluster {request['cluster']!r} is not running")
        given = {"conf": request["conf"], "jars": request["jars"]}
        stand_in = self.root / "stand-in"
        folders = [stand_in, *(Path(u.removeprefix("file://")).parent for u in request["py_files"])]
        (stand_in / "pyspark").mkdir(parents=True, exist_ok=True)
        (stand_in / "pyspark" / "__init__.py").touch()
        draft = stand_in / uuid4().hex
        draft.write_text(PYSPARK)
        draft.replace(stand_in / "pyspark" / "sql.py")
        env = {
            "PYTHONPATH": ":".join(map(str, folders)),
            "FAKE_SPARK": json.dumps(given),
            **request["env"],
        }
        command = [*self.python(request), *request["args"]]
        return super().launch({"command": command, "env": env}, home, parent)

    def runs(self, cluster: str) -> bool:
        return _held(self.root / "clusters" / cluster)

    def python(self, request: Request) -> list[str]:
        if request["main_class"]:
            return [sys.executable, "-c", "print('Hadoop')"]
        return [sys.executable, request["main"].removeprefix("file://")]


class FakeSpark(ComputeCluster):
    name = "fake-spark"
    Config = Processes.Config
    capabilities = {Capability.JAR: SUPPORTED, Capability.CONCURRENT_JOBS: SUPPORTED}
    makes: tuple[type[Clusters], type[Jobs]] = (Clusters, Jobs)

    @property
    def clusters(self) -> Clusters:
        return self.makes[0](self.config.root)

    @property
    def jobs(self) -> Jobs:
        return self.makes[1](self.config.root)


def compute(
    clusters: type[Clusters] = Clusters, jobs: type[Jobs] = Jobs, **capabilities: Any
) -> type[FakeSpark]:
    return type("Broken", (FakeSpark,), {"makes": (clusters, jobs), **capabilities})


def asking(change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> type[Jobs]:
    class Asking(Jobs):
        def request(self, name: str, spec: JobSpec, parent: str = "") -> Request:
            request = dict(super().request(name, spec, parent))
            return {**request, **change(request)}

    return Asking


def cut_at_commas(request: dict[str, Any]) -> Mapping[str, Any]:
    return {"conf": {key: value.split(",")[0] for key, value in request["conf"].items()}}


def of(driver: type[Any], breakage: type[Any]) -> type[Any]:
    return type("Broken", (breakage, driver), {})


Base: Any = object  # mixed into Clusters or Jobs by `of`


class ManyIds(Base):
    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        return Handle(name=super().start(request, parent).name, id=uuid4().hex)


class TakesAnything(Base):
    def start(self, request: Request, parent: Handle | None = None) -> Any:
        try:
            return super().start(request, parent)
        except ConflictError:
            return self._handle(request["name"])


class Forgets(Base):
    def find(self, name: str, parent: Handle | None = None) -> Any:
        return super().find(name, parent) if name in self._children else None


class StartsThenRefuses(Clusters):
    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        handle = ProcessDriver.start(self, request, parent)
        if request["spark_version"]:
            raise RejectedError(f"there is no Spark {request['spark_version']}")
        return handle


class ForeverPending(Clusters):
    def _status(self, name: str) -> Status | NotFoundError:
        status = super()._status(name)
        if isinstance(status, Status) and status.state is State.STOPPED:
            return Status(state=State.PENDING)
        return status


class DeafToTheYoung(Clusters):
    def stop(self, handle: Handle) -> None:
        if handle.name not in self._children:
            super().stop(handle)


class NoLimit(Clusters):
    def request(self, name: str, spec: ClusterSpec, parent: str = "") -> Request:
        return {**super().request(name, spec, parent), "ttl": 9999}


class EverybodysOwn(Clusters):
    def owned(self, owner: str = "") -> Iterable[Handle]:
        return super().owned()


class StopsOnlyWhatIs(Base):
    def stop(self, handle: Handle) -> None:
        if handle.name not in [h.name for h in self.owned()]:
            raise NotFoundError(f"{handle.name} is not there any more")
        super().stop(handle)


class Invents(Base):
    def poll(self, handles: Sequence[Handle]) -> Any:
        failed = Status(state=State.FAILED, cause=Cause.INFRA)
        answer = super().poll(handles)
        return {n: failed if isinstance(s, NotFoundError) else s for n, s in answer.items()}


def telling(seen: State, told: State) -> type[Jobs]:
    class Telling(Jobs):
        def _status(self, name: str) -> Status | NotFoundError:
            status = super()._status(name)
            if isinstance(status, Status) and status.state is seen:
                return Status(state=told, reason=status.reason, exit_code=status.exit_code)
            return status

    return Telling


class NoClasses(Jobs):
    def python(self, request: Request) -> list[str]:
        return ["false"] if request["main_class"] else super().python(request)


class NoLogOfFailures(Jobs):
    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        status = self._status(handle.name)
        if isinstance(status, Status) and status.state is State.FAILED:
            return LogChunk(data=b"", cursor="", end=True)
        return super().logs(handle, cursor)


class LogsGoWithTheCluster(Jobs):
    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        request = json.loads((self.folder / handle.name / "request.json").read_bytes())
        if not self.runs(request["cluster"]):
            return LogChunk(data=b"", cursor="", end=True)
        return super().logs(handle, cursor)


class TakesDeadClusters(Jobs):
    def runs(self, cluster: str) -> bool:
        return True


class OneAtATime(Jobs):
    """The second waits for the first, though it says that they run side by side."""

    def python(self, request: Request) -> list[str]:
        wait = (
            "import fcntl,os,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,fcntl.LOCK_EX);"
            "os.set_inheritable(f.fileno(),True); os.execvp(sys.argv[2],sys.argv[2:])"
        )
        lock = str(self.root / "one")
        return [sys.executable, "-c", wait, lock, *super().python(request)]


BROKEN: dict[str, tuple[type[FakeSpark], str]] = {
    "create_same_id_idempotent": (compute(of(Clusters, ManyIds)), "created again, .* become"),
    "create_spec_conflict_typed": (compute(of(Clusters, TakesAnything)), "taken is accepted"),
    "create_race_one_cluster": (compute(of(Clusters, ManyIds)), "one name have 6 clusters"),
    "adopt_after_crash_mid_create": (
        compute(of(Clusters, Forgets)), "what a killed process has created is not found",
    ),
    "failed_create_leaves_nothing": (compute(StartsThenRefuses), "not at an end|is alive"),
    "deleted_during_create": (compute(ForeverPending), "is not at an end"),
    "terminate_while_creating": (compute(DeafToTheYoung), "is not at an end"),
    "server_side_ttl_set": (compute(NoLimit), "is not at an end"),
    "ownership_tags_set": (compute(EverybodysOwn), "owned.'.*x'. lists"),
    "job_success": (
        compute(jobs=telling(State.SUCCEEDED, State.FAILED)), "ended well is told as",
    ),
    "job_args_verbatim": (
        compute(jobs=asking(lambda r: {"args": [a for a in r["args"] if a]})),
        "arguments were sent, 14 arrived",
    ),
    "conf_values_spaces_commas": (
        compute(jobs=asking(cut_at_commas)),
        "a comma' has arrived as 'two  words'",
    ),
    "env_reaches_driver_executors": (
        compute(jobs=asking(lambda r: {"env": {}})), "is None in the driver",
    ),
    "dependencies_shipped": (
        compute(jobs=asking(lambda r: {"jars": []})), "jars are not on the class path",
    ),
    "jar_job": (compute(jobs=NoClasses), "it should be succeeded"),
    "job_failure_every_deploy_mode": (
        compute(jobs=telling(State.FAILED, State.SUCCEEDED)), "ends with raise is told as",
    ),
    "driver_logs_on_failure": (compute(jobs=NoLogOfFailures), "why the job failed is not in"),
    "cancel_idempotent": (compute(jobs=of(Jobs, StopsOnlyWhatIs)), "is not there any more"),
    "cancelled_not_success": (
        compute(jobs=telling(State.STOPPED, State.SUCCEEDED)), "that was stopped is told as",
    ),
    "job_timeout_cancels": (
        compute(jobs=asking(lambda r: {"ttl": 9999})), "is not at an end",
    ),
    "reattach_running_job": (
        compute(jobs=of(Jobs, Forgets)), "another process has started is not found",
    ),
    "poll_never_invents": (compute(jobs=of(Jobs, Invents)), "a job that never was is told as"),
    "concurrent_jobs": (compute(jobs=OneAtATime), "the log of job .* has no end"),
    "terminate_idempotent": (
        compute(of(Clusters, StopsOnlyWhatIs)), "is not there any more",
    ),
    "logs_after_terminate": (compute(jobs=LogsGoWithTheCluster), "after the cluster's end"),
    "job_on_dead_cluster_typed": (compute(jobs=TakesDeadClusters), "ended is accepted"),
}  # fmt: skip

IMPATIENT = {
    "failed_create_leaves_nothing", "deleted_during_create", "terminate_while_creating",
    "server_side_ttl_set", "job_timeout_cancels", "concurrent_jobs",
}  # fmt: skip


def test_there_is_a_broken_backend_for_every_check() -> None:
    assert {f"spark.{name}" for name in BROKEN} == set(CHECKS)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_fails_on_a_backend_that_breaks_its_promise(
    name: str, make: Callable[..., Subject]
) -> None:
    broken, says = BROKEN[name]
    subject = make(compute=broken, patience=4.0 if name in IMPATIENT else 30.0)
    with pytest.raises((AssertionError, NotFoundError), match=says):
        implemented()[f"spark.{name}"](subject)


@pytest.mark.parametrize("id", CHECKS)
def test_a_check_passes_on_the_reference(id: str, make: Callable[..., Subject]) -> None:
    subject = make(compute=FakeSpark)
    implemented()[id](subject)
    implemented()["end-to-end.leak_audit_zero"](subject)


def test_jobs_one_after_the_other_pass_where_nothing_else_is_declared(
    make: Callable[..., Subject],
) -> None:
    class Queues(OneAtATime):
        def _status(self, name: str) -> Status | NotFoundError:
            status = super()._status(name)
            log = self.folder / name / "log"
            waits = not log.exists() or not os.stat(log).st_size
            if isinstance(status, Status) and status.state is State.RUNNING and waits:
                return Status(state=State.PENDING, reason="another job runs")
            return status

    capabilities = {Capability.JAR: SUPPORTED}
    subject = make(compute=compute(jobs=Queues, capabilities=capabilities))
    implemented()["spark.concurrent_jobs"](subject)


def test_what_several_checks_share_is_started_once(make: Callable[..., Subject]) -> None:
    subject = make(compute=FakeSpark)
    for name in ("job_success", "job_args_verbatim", "dependencies_shipped"):
        implemented()[f"spark.{name}"](subject)
        subject.clean()
    root = Path(str(subject.here.compute.config.root))
    assert len(list((root / "jobs").iterdir())) == 1
    assert len(list((root / "clusters").iterdir())) == 1
