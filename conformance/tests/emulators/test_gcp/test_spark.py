"""Dataproc's jobs and batches really run. Two of them start Spark; all of them a JVM, at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.emulators.gcp.driver import GCS
from portaflow_conformance.emulators.spark import Spark

from .clients import DATAPROC

pytest.importorskip("google.cloud.dataproc_v1")
pytest.importorskip("pyspark")
pytestmark = pytest.mark.spark

Client = Callable[..., Any]

_BEGIN = (
    DATAPROC
    + """
import os, time
from google.api_core import exceptions
from google.cloud import storage
store = storage.Client()
def output(uri):
    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    names = [b.name for b in store.list_blobs(bucket, prefix=prefix + ".")]
    # By name: a blob that was listed is read in its generation, and this one grows.
    return "".join(store.bucket(bucket).blob(name).download_as_text() for name in names)
def submit(name, cluster="spark", **work):
    job = {"reference": {"job_id": name}, "placement": {"cluster_name": cluster}, **work}
    return jobs.submit_job({**where, "job": job})
def got(name):
    return jobs.get_job(**where, job_id=name)
def until(ask, good):
    while not good(found := ask()):
        time.sleep(0.05)
    return found
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
def ended(name):
    return until(lambda: got(name), lambda job: job.done)
"""
)
_COPY = """
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.*;
public class Copy {
    public static void main(String[] args) throws Exception {
        Configuration conf = new Configuration();
        Path from = new Path(args[0]);
        FileSystem store = from.getFileSystem(conf);
        FileUtil.copy(store, from, store, new Path(args[1]), false, conf);
    }
}
"""
_SETUP = (
    _BEGIN
    + '''
data = store.create_bucket("data")
data.blob("words.py").upload_from_string("""
import sys
from helper import words
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
lines = spark.sparkContext.textFile(sys.argv[1])
pairs = lines.flatMap(words).map(lambda w: (w, 1)).reduceByKey(lambda a, b: a + b)
pairs.map(lambda p: f"{p[0]} {p[1]}").coalesce(1).saveAsTextFile(sys.argv[2])
conf = [spark.conf.get(key, "-") for key in ("spark.of.job", "spark.of.cluster")]
print("counted", pairs.count(), *conf)
sys.exit(int(sys.argv[3]))
""")
data.blob("helper.py").upload_from_string("words = str.split")
data.blob("wait.py").upload_from_string("""
import os, time, urllib.request
from google.cloud import storage
try:
    urllib.request.urlopen("https://example.com")
except OSError as error:
    print("outside:", error)
names = [b.name for b in storage.Client().list_blobs("data", prefix="in/")]
print("inside:", names, "pid:", os.getpid(), flush=True)
time.sleep(300)
""")
data.blob("in/a.txt").upload_from_string("a b a\\na b c\\n")
properties = {"spark:spark.of.cluster": "yes"}
clusters.create_cluster({**where, "cluster": {"cluster_name": "spark", "config": {
    "software_config": {"properties": properties}}}}).result(timeout=60)
'''
)
_COUNT = (
    _BEGIN
    + """
data = store.bucket("data")
def count(out, code):
    return {"main_python_file_uri": "gs://data/words.py",
            "python_file_uris": ["gs://data/helper.py"],
            "args": ["gs://data/in/", f"gs://data/{out}", str(code)]}
def counted(out):
    (part,) = [b for b in store.list_blobs("data", prefix=f"{out}/part")]
    return sorted(part.download_as_text().split("\\n"))
"""
)


@pytest.fixture(scope="module", autouse=True)
def ready(python: Client) -> None:
    """A cluster, and what the jobs need in a bucket."""
    Spark(GCS).prepare()  # may have to fetch the connector: not while a test waits for a job
    python(_SETUP)


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A jar whose main class asks Hadoop for gs://, without Spark."""
    javac = shutil.which("javac")
    if javac is None:
        pytest.skip("no javac to make a jar with")
    folder = tmp_path_factory.mktemp("jar")
    (folder / "Copy.java").write_text(_COPY, "utf-8")
    path = f"{Spark(GCS).home}/jars/*"
    subprocess.run([javac, "--release", "17", "-cp", path, "Copy.java"], cwd=folder, check=True)
    with zipfile.ZipFile(folder / "copy.jar", "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", "Manifest-Version: 1.0\nMain-Class: Copy\n")
        archive.write(folder / "Copy.class", "Copy.class")
    return folder / "copy.jar"


def test_words_are_counted_by_a_job_and_by_a_batch_and_jars_run(client: Client, jar: Path) -> None:
    told = client(
        _COUNT
        + """
data.blob("copy.jar").upload_from_filename(os.environ["COPY_JAR"])
submit("count", pyspark_job={**count("by-job", 0), "properties": {"spark.of.job": "1"}})
copy = ["gs://data/in/a.txt", "gs://data/copied"]
submit("jar", spark_job={"main_jar_file_uri": "gs://data/copy.jar",
                         "args": [copy[0], copy[1] + "-1"]})
submit("class", spark_job={"main_class": "Copy", "jar_file_uris": ["gs://data/copy.jar"],
                           "args": [copy[0], copy[1] + "-2"]})
for number, what in ((3, {"main_jar_file_uri": "gs://data/copy.jar"}),
                     (4, {"main_class": "Copy", "jar_file_uris": ["gs://data/copy.jar"]})):
    batches.create_batch(parent=parent, batch_id=f"jar-{number}", batch={
        "spark_batch": {**what, "args": [copy[0], f"{copy[1]}-{number}"]}})
batch = batches.create_batch(parent=parent, batch_id="count", batch={
    "pyspark_batch": count("by-batch", 5), "runtime_config": {"properties": {"spark.of.job": "2"}}})
job = ended("count")
told += [job.status.state.name, [s.state.name for s in job.status_history], counted("by-job")]
said = output(job.driver_output_resource_uri).splitlines()
told += [[line for line in said if line.startswith("counted")]]
told += [job.driver_output_resource_uri == job.driver_control_files_uri + "driveroutput"]
told += [ended("jar").status.state.name, ended("class").status.state.name]
for number in (3, 4):
    name = f"{parent}/batches/jar-{number}"
    done = until(lambda: batches.get_batch(name=name), lambda b: b.state.name in ENDED)
    told += [done.state.name]
told += [data.blob(f"copied-{number}").download_as_text() for number in range(1, 5)]
try:
    batch.result(timeout=200)
except exceptions.Aborted as error:
    told += [error.message.split(". ")[0]]
failed = batches.get_batch(name=f"{parent}/batches/count")
told += [failed.state.name, [s.state.name for s in failed.state_history], counted("by-batch")]
told += ["counted 3 2 -" in output(failed.runtime_info.output_uri)]
""",
        COPY_JAR=str(jar),
    )
    words = ["", "a 3", "b 2", "c 1"]
    assert told == [
        *("DONE", ["PENDING", "SETUP_DONE", "RUNNING"], words, ["counted 3 1 yes"], True),
        *("DONE", "DONE", "SUCCEEDED", "SUCCEEDED", *["a b a\na b c\n"] * 4),
        *("Job failed with exit code 5", "FAILED", ["PENDING", "RUNNING"], words, True),
    ]


def test_jobs_that_run_are_cancelled_killed_and_die_with_their_cluster(
    client: Client, clouds: Clouds
) -> None:
    clouds.control.order(Fault(effect="die", operation="gcp:dataproc.CreateCluster"))
    for call in ("SubmitJob", "CreateBatch"):
        clouds.control.order(Fault(effect="die", operation=f"gcp:dataproc.{call}"))
    told = client(
        _BEGIN
        + """
clusters.create_cluster({**where, "cluster": {"cluster_name": "dies"}}).result(timeout=60)
waits = {"main_python_file_uri": "gs://data/wait.py"}
submit("killed", pyspark_job=waits)
killed = batches.create_batch(parent=parent, batch_id="killed", batch={"pyspark_batch": waits})
submit("waits", pyspark_job=waits)
submit("fails", pyspark_job={"main_python_file_uri": "gs://data/none.py"},
       scheduling={"max_failures_per_hour": 2})
uri = got("waits").driver_output_resource_uri
said = until(lambda: output(uri), lambda text: "pid:" in text)
lines = [line for line in said.splitlines() if line.startswith(("outside:", "inside:"))]
told += [[line.split("pid")[0] for line in lines]]
told += [int(said.split("pid:")[1].split()[0]), got("waits").status.state.name]
jobs.cancel_job(**where, job_id="waits")
told += [ended("waits").status.state.name, [s.state.name for s in ended("waits").status_history]]
told += [ended("killed").status.state.name, ended("killed").status.details]
try:
    killed.result(timeout=200)
except exceptions.Aborted as error:
    told += [error.message]
failed = ended("fails")
told += [failed.status.state.name, [s.state.name for s in failed.status_history]]
told += ["exit code 1" in failed.status.details]
told += ["gs://data/none.py" in output(failed.driver_output_resource_uri)]
submit("on-it", "dies", pyspark_job=waits)
told += [ended("on-it").status.state.name, ended("on-it").status.details]
told += [clusters.get_cluster(**where, cluster_name="dies").status.state.name]
"""
    )
    assert told[0] == [
        "outside: <urlopen error Tunnel connection failed: 403 portaflow emulate refuses "
        "example.com: no stand-in has it>",
        "inside: ['in/a.txt'] ",
    ]
    attempts = ["PENDING", *("SETUP_DONE", "RUNNING", "ATTEMPT_FAILURE", "SETUP_DONE", "RUNNING")]
    died = "The master is unreachable: a fault on order"
    assert told[2:] == [
        *("RUNNING", "CANCELLED"),
        ["PENDING", "SETUP_DONE", "RUNNING", "CANCEL_PENDING", "CANCEL_STARTED"],
        *("ERROR", "The driver was killed: a fault on order"),
        "The driver was killed: a fault on order",
        *("ERROR", attempts, True, True),
        *("ERROR", died, "ERROR"),
    ]
    with pytest.raises(ProcessLookupError):
        os.kill(told[1], 0)
