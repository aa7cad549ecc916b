"""What the tests of the local AWS share: a Spark that is ready, and clients as processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from portaflow_conformance.emulators.aws.shop import S3A
from portaflow_conformance.emulators.spark import Spark

# A client of EMR: clusters with a role, a machine and logs; steps; their states and logs.
EMR = """
emr, s3, serverless = (boto3.client(name) for name in ("emr", "s3", "emr-serverless"))
nodes = {"MasterInstanceType": "m5.xlarge", "KeepJobFlowAliveWhenNoSteps": True}
quick = {"Delay": 1, "MaxAttempts": 240}
def asked(**params):
    return {"Name": "words", "ReleaseLabel": "emr-7.1.0", "LogUri": "s3://logs/emr/",
            "ServiceRole": "EMR_DefaultRole", "JobFlowRole": "EMR_EC2_DefaultRole",
            "Instances": nodes, **params}
def start(**params):
    return emr.run_job_flow(**asked(**params))["JobFlowId"]
def step(*args, fail="CONTINUE", jar="command-runner.jar", **more):
    return {"Name": " ".join(args)[:250], "ActionOnFailure": fail,
            "HadoopJarStep": {"Jar": jar, "Args": list(args), **more}}
def status(flow):
    return emr.describe_cluster(ClusterId=flow)["Cluster"]["Status"]
def state(flow, step=None):
    if step is None:
        return status(flow)["State"]
    return emr.describe_step(ClusterId=flow, StepId=step)["Step"]["Status"]["State"]
def read(key, bucket="logs"):
    return gzip.decompress(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).decode()
def log(flow, step, name):
    return read(f"emr/{flow}/steps/{step}/{name}.gz")
"""

READY = """
from portaflow_conformance.emulators.aws.shop import S3A
from portaflow_conformance.emulators.spark import Spark
Spark(S3A).prepare()
"""

WORDS = """
import sys
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
lines = spark.sparkContext.textFile(sys.argv[1])
pairs = lines.flatMap(str.split).map(lambda w: (w, 1)).reduceByKey(lambda a, b: a + b)
pairs.map(lambda p: f"{p[0]} {p[1]}").coalesce(1).saveAsTextFile(sys.argv[2])
print("counted", pairs.count())
"""

_PRELUDE = """
import boto3, gzip, json, sys, time
from botocore.exceptions import ClientError
def code(call, **params):
    try:
        call(**params)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "none"
def until(ask, *wanted):
    end = time.monotonic() + 100
    while (state := ask()) not in wanted:
        assert time.monotonic() < end, state
        time.sleep(0.05)
    return state
"""


def make_ready() -> None:
    """Fetch and make what Spark starts with, so that no test's own patience pays for it."""
    subprocess.run([sys.executable, "-c", READY], check=True, timeout=600)


def python(code: str, env: dict[str, str], tmp_path: Path) -> str:
    """What an unmodified client in that environment prints."""
    script = tmp_path / "client.py"
    script.write_text(_PRELUDE + code, "utf-8")
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make_jar(jar: Path) -> None:
    """Compile `Words.scala` by the compiler that Spark brings: no JDK is needed."""
    spark = Spark(S3A)
    words = ["-cp", f"{spark.home}/jars/*", "scala.tools.nsc.Main", "-usejavacp", "-d", str(jar)]
    source = Path(__file__).with_name("Words.scala")
    subprocess.run([str(spark.java), *words, str(source)], check=True, timeout=200)
