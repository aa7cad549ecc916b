"""One PySpark script counts 100 MB of words on each Spark of both clouds, with one result."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from collections import Counter
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.spark import Connector, Spark

pytest.importorskip("boto3")
pytest.importorskip("google.cloud.dataproc_v1")
pytest.importorskip("google.cloud.storage")
pytest.importorskip("pyspark")
pytestmark = pytest.mark.spark

_SIZE = 100 * 2**20
_SCRIPT = """
import sys
from pyspark.sql import SparkSession, functions as f
spark = SparkSession.builder.getOrCreate()
words = spark.read.text(sys.argv[1]).select(f.explode(f.split("value", " ")).alias("word"))
counts = words.groupBy("word").count().select(f.format_string("%s %d", "word", "count"))
counts.write.text(sys.argv[2])
"""

_BEGIN = """
import hashlib, os, time
def until(ask, *ended):
    deadline = time.monotonic() + 150
    while (state := ask()) not in ended:
        assert time.monotonic() < deadline, state
        time.sleep(0.1)
    return state
def digest(parts):
    lines = sorted(line for part in parts for line in part.split(b"\\n") if line)
    return f"{len(lines)} {hashlib.sha256(b' '.join(lines)).hexdigest()}"
"""
_AWS = (
    _BEGIN
    + """
import boto3
s3, emr, serverless = (boto3.client(name) for name in ("s3", "emr", "emr-serverless"))
s3.create_bucket(Bucket="data")
s3.upload_file(os.environ["TEXT"], "data", "in/text")
s3.upload_file(os.environ["SCRIPT"], "data", "words.py")
def counted(out):
    listed = s3.list_objects_v2(Bucket="data", Prefix=f"{out}/part-")["Contents"]
    return digest(s3.get_object(Bucket="data", Key=o["Key"])["Body"].read() for o in listed)
step = {"Name": "count", "ActionOnFailure": "CONTINUE", "HadoopJarStep": {
    "Jar": "command-runner.jar", "Args": ["spark-submit", "--deploy-mode", "cluster",
                                          "s3://data/words.py", "s3://data/in/", "s3://data/emr"]}}
flow = emr.run_job_flow(
    Name="words", ReleaseLabel="emr-7.1.0", ServiceRole="EMR_DefaultRole",
    JobFlowRole="EMR_EC2_DefaultRole",
    Instances={"KeepJobFlowAliveWhenNoSteps": True, "MasterInstanceType": "m5.xlarge"},
    Steps=[step])["JobFlowId"]
(step,) = emr.list_steps(ClusterId=flow)["Steps"]
state = lambda: emr.describe_step(ClusterId=flow, StepId=step["Id"])["Step"]["Status"]["State"]
print("emr", until(state, "COMPLETED", "FAILED", "CANCELLED"), counted("emr"))
app = serverless.create_application(releaseLabel="emr-7.1.0", type="SPARK")["applicationId"]
run = serverless.start_job_run(
    applicationId=app, executionRoleArn="arn:aws:iam::123456789012:role/job",
    jobDriver={"sparkSubmit": {"entryPoint": "s3://data/words.py", "entryPointArguments": [
        "s3://data/in/", "s3://data/serverless"]}})["jobRunId"]
state = lambda: serverless.get_job_run(applicationId=app, jobRunId=run)["jobRun"]["state"]
print("serverless", until(state, "SUCCESS", "FAILED", "CANCELLED"), counted("serverless"))
"""
)
_GCP = (
    _BEGIN
    + """
from google.cloud import dataproc_v1 as dataproc, storage
data = storage.Client().create_bucket("data")
data.blob("in/text").upload_from_filename(os.environ["TEXT"])
data.blob("words.py").upload_from_filename(os.environ["SCRIPT"])
def counted(out):
    return digest(b.download_as_bytes() for b in data.list_blobs(prefix=f"{out}/part-"))
def work(out):
    return {"main_python_file_uri": "gs://data/words.py",
            "args": ["gs://data/in/", f"gs://data/{out}"]}
where = {"project_id": "portaflow-local", "region": "us-central1"}
options = {"api_endpoint": "us-central1-dataproc.googleapis.com:443"}
clusters = dataproc.ClusterControllerClient(client_options=options)
clusters.create_cluster({**where, "cluster": {"cluster_name": "words"}}).result(timeout=60)
jobs = dataproc.JobControllerClient(client_options=options)
job = {"placement": {"cluster_name": "words"}, "pyspark_job": work("job")}
job = jobs.submit_job({**where, "job": job}).reference.job_id
state = lambda: jobs.get_job(**where, job_id=job).status.state.name
print("job", until(state, "DONE", "ERROR", "CANCELLED"), counted("job"))
batches = dataproc.BatchControllerClient(client_options=options)
batch = batches.create_batch(parent="projects/portaflow-local/locations/us-central1",
                             batch={"pyspark_batch": work("batch")}, batch_id="words")
print("batch", batch.result(timeout=150).state.name, counted("batch"))
"""
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 MB of words, of which some are frequent and most are rare, as in a language."""
    dice = random.Random(7)
    letters = "abcdefghijklmnopqrstuvwxyzäß"
    known = ["".join(dice.choices(letters, k=dice.randint(4, 16))) for _ in range(20_000)]
    shares = list(accumulate(1 / rank for rank in range(1, len(known) + 1)))
    path = tmp_path_factory.mktemp("text") / "text"
    with path.open("wb") as file:
        while file.tell() < _SIZE:
            words = dice.choices(known, cum_weights=shares, k=100_000)
            lines = (" ".join(words[at : at + 50]) for at in range(0, len(words), 50))
            file.write(("\n".join(lines) + "\n").encode())
    return path


@pytest.fixture(scope="module")
def expected(text: Path) -> str:
    """What plain Python counts."""
    counts: Counter[bytes] = Counter()
    with text.open("rb") as file:
        for line in file:
            counts.update(line.split())
    lines = sorted(b"%s %d" % pair for pair in counts.items())
    return f"{len(lines)} {hashlib.sha256(b' '.join(lines)).hexdigest()}"


def _client(cloud: str, connector: Connector, code: str, **files: Path) -> list[str]:
    """What a client says, in a process of its own with the environment of that cloud."""
    Spark(connector).prepare()  # may have to fetch the connector: not while a job is awaited
    with emulate(cloud, pace=0.05) as clouds:
        env: dict[str, Any] = {**clouds.environ(), **files}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "words.py"
    path.write_text(_SCRIPT, "utf-8")
    return path


def test_words_are_counted_on_emr_and_emr_serverless(
    text: Path, script: Path, expected: str
) -> None:
    from portaflow_conformance.emulators.aws.shop import S3A

    said = _client("aws", S3A, _AWS, TEXT=text, SCRIPT=script)
    assert said == [f"emr COMPLETED {expected}", f"serverless SUCCESS {expected}"]


def test_words_are_counted_by_a_job_and_by_a_batch_of_dataproc(
    text: Path, script: Path, expected: str
) -> None:
    from portaflow_conformance.emulators.gcp.driver import GCS

    said = _client("gcp", GCS, _GCP, TEXT=text, SCRIPT=script)
    assert said == [f"job DONE {expected}", f"batch SUCCEEDED {expected}"]
