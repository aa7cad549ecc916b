"""Secrets of a job on EMR: its driver has them, and nothing else ever holds one."""

from __future__ import annotations

import ast
import gzip
import hashlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from portaflow_aws import launcher
from portaflow_aws.connect import Access, connect
from portaflow_conformance.emulators.clouds import Clouds

from portaflow.backend import Cause, JobSpec, State, Verdict
from portaflow.errors import RejectedError
from portaflow.load import load
from portaflow.plan import Run
from portaflow.session import Session
from portaflow.target import load_target

from .field import Field

PIPELINE = """
name: vault
tasks:
  - {id: proves, kind: spark, main: job.py, secrets: {TOKEN: team/token}, env: {PLAIN: a b}}
"""
JOB = """
import hashlib, os
from pyspark.sql import SparkSession
SparkSession.builder.getOrCreate()
print("proof", hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest(), os.environ["PLAIN"],
    os.environ.get("OF_THE_DEVELOPER"))
"""
TARGET = """
[targets.emr]
store = {backend = "s3", root = "s3://vault/x"}
compute = {backend = "emr", log_uri = "s3://vault/logs"}
"""


def secret(**value: Any) -> str:
    """The name of a secret that is made for one test."""
    name = f"of-{uuid4().hex[:8]}"
    connect(Access()).client("secretsmanager").create_secret(Name=name, **value)
    return name


def kept(bucket: str) -> Iterator[bytes]:
    """What is in each object of a bucket."""
    s3 = connect(Access()).client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for found in page["Contents"]:
            body = s3.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
            yield gzip.decompress(body) if found["Key"].endswith(".gz") else body


@pytest.mark.spark
def test_a_driver_has_its_secret_and_nothing_else_holds_it(
    clouds: Clouds, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_DEVELOPER", "of no machine of the cloud")
    token = uuid4().hex
    value = f"{token} é 'x' \"$HOME\"\n"
    name = secret(SecretString=value)
    connect(Access()).client("s3").create_bucket(Bucket="vault")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.replace("team/token", name))
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "portaflow.toml").write_text(TARGET)
    session = Session(load_target("emr", file=tmp_path / "portaflow.toml"))
    engine = session.start(load(tmp_path / "pipeline.yaml"), Run(id="r"))
    state = engine.run()
    assert state.succeeded, state.of
    (job,) = (a for a in engine.plan.actions if a.kind == "job")
    (note,) = (n for n in engine.plan.notes if n.field == "secrets")
    assert (note.fit.verdict, "no executor" in note.fit.reason) == (Verdict.APPROXIMATED, True)
    objects = list(kept("vault"))
    proof = f"proof {hashlib.sha256(value.encode()).hexdigest()} a b None"
    assert sum(proof.encode() in body for body in objects) == 1, "it is in the log alone"
    assert not any(token.encode() in body for body in objects)
    handle = state[job.id].handle
    assert handle is not None
    step = session.backends.driver("job")._described(handle)  # type: ignore[attr-defined]
    told = [engine.plan, engine.plan.to_json(), state.of, step, *clouds.control.seen()]
    assert token not in "\n".join(map(repr, told))
    assert clouds.control.count("aws:secretsmanager.GetSecretValue") == 1


@pytest.mark.parametrize(
    ("value", "fault", "said"),
    [
        ({}, "", ("(ResourceNotFoundException)", "aws secretsmanager create-secret")),
        ({"SecretString": "x"}, "deny", ("(AccessDeniedException)", "secretsmanager:GetSecret")),
        ({"SecretBinary": b"x"}, "", ("it is binary",)),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_with_what_helps(
    field: Field, value: dict[str, Any], fault: str, said: tuple[str, ...]
) -> None:
    name, cluster = secret(**value) if value else "nonesuch", field.cluster()
    if fault:
        field.fault(fault, "secretsmanager.GetSecretValue")
    spec = JobSpec(owner=field.owner, ttl=60, main="s3://nonesuch/x.py", secrets={"TOKEN": name})
    request = field.emr.jobs.request(field.name(), spec, cluster.name)
    seen = field.wait(field.emr.jobs, field.emr.jobs.start(request, cluster))
    assert (seen.state, seen.cause) == (State.FAILED, Cause.DENIED)
    assert seen.reason.startswith(f"SecretError: secret {name!r} for TOKEN cannot be read: ")
    assert [words for words in said if words not in seen.reason] == []


def test_a_request_names_secrets_and_refuses_what_is_no_name(field: Field) -> None:
    arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:team/db-a1B2c3"
    spec = JobSpec(main="s3://b/m.jar", env={"A": "b"}, secrets={"T": "team/token", "DB": arn})
    (step,) = field.emr.jobs.request("pf-j-1", spec, "pf-c-1")["Steps"]
    words = step["HadoopJarStep"]["Args"]
    assert words[3:8] == ["env", "A=b", "python3", "-I", "-c"]
    assert words[9:13] == ["T=team/token", f"DB={arn}", "--", "spark-submit"]
    assert len(words[8]) < 10_280, "as long as a word of a step may be"
    for name in ("", "a b", "file:///etc/passwd", "-x\n"):
        with pytest.raises(RejectedError, match="the name or the ARN"):
            field.emr.jobs.request("pf-j-1", JobSpec(main="m", secrets={"T": name}))


def test_the_region_of_a_secret_is_the_machines_own_where_nothing_else_says_it(
    tmp_path: Path,
) -> None:
    """The first version of the AWS CLI does not find it. This one tells what it is given."""
    machine, cli = tmp_path / "machine.json", tmp_path / "aws"
    machine.write_text('{"region": "eu-north-1"}')
    cli.write_text('#!/bin/sh\necho "\\"$AWS_REGION$AWS_DEFAULT_REGION of $4$5\\""\n')
    cli.chmod(0o755)
    program = Path(launcher.__file__).read_text().replace(launcher._MACHINE, str(machine))
    words = ["T=a=b", "--", "sh", "-c", 'printf %s "$T:$AWS_DEFAULT_REGION"']

    def told(**env: str) -> str:
        env = {"PATH": f"{tmp_path}:/usr/bin:/bin", **env}
        command = [sys.executable, "-I", "-c", program, *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    assert told() == "eu-north-1 of a=b--query:"
    assert told(AWS_REGION="eu-west-1") == "eu-west-1 of a=b--query:"
    machine.unlink()
    assert told() == " of a=b--query:"


def test_the_launcher_is_for_the_oldest_python_of_emr() -> None:
    ast.parse(Path(launcher.__file__).read_text(), feature_version=(3, 7))
