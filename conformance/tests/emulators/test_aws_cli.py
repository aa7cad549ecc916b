"""The local AWS as the unmodified AWS CLI sees it; Spark starts once."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate

from .aws_client import WORDS, make_ready
from .frame import until

AWS = Path(sys.executable).parent / "aws"  # of the distribution awscli, which `make` installs


class Cli:
    """`aws` in the environment of the local clouds, as a process of its own each time."""

    def __init__(self, clouds: Clouds) -> None:
        self._env = clouds.environ()

    def __call__(self, *words: str) -> str:
        done = self.ended(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--output", "json"))

    def ended(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(AWS), *words]
        return subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=200)


@pytest.mark.spark
def test_the_aws_cli_runs_a_word_count_on_a_cluster(tmp_path: Path) -> None:
    make_ready()
    (tmp_path / "words.py").write_text(WORDS, "utf-8")
    (tmp_path / "a.txt").write_text("a b a\nb a c\n", "utf-8")
    with emulate("aws", pace=0) as clouds:
        aws = Cli(clouds)
        aws("s3", "mb", "s3://data")
        aws("s3", "cp", str(tmp_path / "words.py"), "s3://data/jobs/words.py")
        aws("s3", "cp", str(tmp_path / "a.txt"), "s3://data/in/a.txt")
        flow = aws.json(
            *("emr", "create-cluster", "--name", "words", "--release-label", "emr-7.1.0"),
            *("--use-default-roles", "--instance-type", "m5.xlarge", "--instance-count", "3"),
            *("--applications", "Name=Spark", "--log-uri", "s3://data/logs/"),
            *("--tags", "team=data", "--ec2-attributes", "SubnetId=subnet-0a1b2c3d"),
        )["ClusterId"]
        until(lambda: _state(aws, flow) == "WAITING", "the cluster waits", 60)
        aws("emr", "wait", "cluster-running", "--cluster-id", flow)
        step = "Type=Spark,Name=count,ActionOnFailure=CONTINUE,Args=[s3://data/jobs/words.py,"
        step += "s3://data/in/,s3://data/out]"
        (count,) = aws.json("emr", "add-steps", "--cluster-id", flow, "--steps", step)["StepIds"]
        ids = ("--cluster-id", flow, "--step-id", count)
        until(lambda: aws.json("emr", "describe-step", *ids)["Step"]["Status"]["State"] in (
            "COMPLETED", "FAILED"), "the step ends", 180)  # fmt: skip
        aws("emr", "wait", "step-complete", *ids)
        (listed,) = aws.json("emr", "list-steps", "--cluster-id", flow)["Steps"]
        assert (listed["Name"], listed["Status"]["State"]) == ("count", "COMPLETED")
        assert listed["Config"]["Jar"] == "command-runner.jar"
        told = aws.json("emr", "describe-cluster", "--cluster-id", flow)["Cluster"]
        assert told["Tags"] == [{"Key": "team", "Value": "data"}]
        assert told["Ec2InstanceAttributes"]["Ec2SubnetId"] == "subnet-0a1b2c3d"
        assert [group["RunningInstanceCount"] for group in told["InstanceGroups"]] == [1, 2]
        aws("emr", "terminate-clusters", "--cluster-ids", flow)
        until(lambda: _state(aws, flow) == "TERMINATED", "the cluster ends", 60)
        aws("emr", "wait", "cluster-terminated", "--cluster-id", flow)

        log = f"s3://data/logs/{flow}/steps/{count}/stdout.gz"
        aws("s3", "cp", log, str(tmp_path / "stdout.gz"))
        assert gzip.decompress((tmp_path / "stdout.gz").read_bytes()) == b"counted 3\n"
        counted = aws("s3", "cp", "s3://data/out/part-00000", "-")
        assert sorted(counted.splitlines()) == ["a 3", "b 2", "c 1"]


def test_the_aws_cli_tells_of_failures_as_of_those_of_aws(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        aws = Cli(clouds)
        made = ("emr", "create-cluster", "--use-default-roles", "--instance-count", "1")
        wrong = aws.ended(*made, "--release-label", "emr-7.1.0", "--instance-type", "m9.huge")
        assert wrong.returncode == 255
        assert "(ValidationException)" in wrong.stderr
        assert "'m9.huge'" in wrong.stderr
        step = "Type=CUSTOM_JAR,Jar=command-runner.jar,ActionOnFailure=TERMINATE_CLUSTER,"
        flow = aws.json(
            *(*made, "--release-label", "emr-7.1.0", "--instance-type", "m5.xlarge"),
            *("--steps", f"{step}Args=[bash,-c,exit 3]"),
        )["ClusterId"]
        until(lambda: _state(aws, flow).startswith("TERMINATED"), "the cluster ends", 60)
        (count,) = aws.json("emr", "list-steps", "--cluster-id", flow)["Steps"]
        waited = aws.ended(
            *("emr", "wait", "step-complete", "--cluster-id", flow, "--step-id", count["Id"])
        )
        assert waited.returncode == 255
        assert "terminal failure state" in waited.stderr
        listed = aws.json("emr", "list-clusters", "--failed")["Clusters"]
        assert [one["Id"] for one in listed] == [flow]


def _state(aws: Cli, flow: str) -> str:
    told = aws.json("emr", "describe-cluster", "--cluster-id", flow)["Cluster"]
    return str(told["Status"]["State"])
