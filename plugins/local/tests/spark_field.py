"""What tests of Spark on this machine share: clusters, jobs, and looks at their processes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from portaflow_local import archive, java
from portaflow_local.process import ProcessDriver
from portaflow_local.spark import LocalSpark, _spark_home

from portaflow.backend import (
    ClusterSpec,
    Driver,
    Handle,
    JobSpec,
    State,
    Status,
)

JOBS = Path(__file__).with_name("spark_jobs")
LONG = 560.0  # seconds: the first job on a machine records the class archive


def wait(driver: Driver[Any], handle: Handle, done: Callable[[Status], bool]) -> Status:
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline:
        status = driver.poll([handle])[handle.name]
        assert isinstance(status, Status), status
        if done(status):
            return status
        time.sleep(0.02)
    raise AssertionError(f"{handle.name} is {status}\n{log(driver, handle)}")


def ended(driver: Driver[Any], handle: Handle) -> Status:
    return wait(driver, handle, lambda status: status.state.final)


def running(driver: Driver[Any], handle: Handle) -> None:
    wait(driver, handle, lambda status: status.state is State.RUNNING)


def appears(path: Path) -> None:
    deadline = time.monotonic() + LONG
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def log(driver: Driver[Any], handle: Handle) -> str:
    """All that is in the log by now."""
    data = b""
    chunk = driver.logs(handle)
    while chunk.data:
        data += chunk.data
        chunk = driver.logs(handle, chunk.cursor)
    return data.decode()


def group(driver: ProcessDriver[Any], handle: Handle) -> int:
    """The process group of a thing that was started, however lately."""
    lock, deadline = driver.folder / handle.name / "lock", time.monotonic() + 10
    while not (told := lock.read_text().split()):
        assert time.monotonic() < deadline, f"{lock} is empty"
        time.sleep(0.005)
    return int(told[0])


def members(pid: int) -> list[psutil.Process]:
    """What is alive in the session of a shim, also in a group of its own."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def empties(pid: int) -> None:
    deadline = time.monotonic() + 20
    while left := members(pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.02)


def start_cluster(spark: LocalSpark, name: str = "c", **spec: Any) -> Handle:
    driver = spark.clusters
    return driver.start(driver.request(name, ClusterSpec(**spec)))


def start_job(spark: LocalSpark, cluster: Handle, name: str, main: str, **spec: Any) -> Handle:
    driver, uri = spark.jobs, main if "://" in main else f"file://{JOBS / main}"
    return driver.start(driver.request(name, JobSpec(main=uri, **spec), cluster.name), cluster)


def hidden_java(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir()
    for program in ("sh", "sleep", "env"):
        (folder / program).symlink_to(shutil.which(program) or program)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def prepared(cache: Path) -> Path:
    """The folder of what Spark starts with, for the Java and the Spark that are used here."""
    home, found = _spark_home(), java.suitable()
    assert home
    assert found
    return archive.folder(cache, found, home)
