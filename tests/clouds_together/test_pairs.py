"""Spark and containers of one cloud with the store of another, and by reference its credentials."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("moto")

from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.spark import Spark

from .field import Engines

Start = Callable[[], Engines]

_BOOTSTRAP = """#!/usr/bin/env python
# What `aws secretsmanager get-secret-value` does in docs/targets.md, where there is no AWS CLI.
import boto3, pathlib
told = boto3.client("secretsmanager").get_secret_value(SecretId="gcs-key")
pathlib.Path({path!r}).write_text(told["SecretString"])
"""


@pytest.fixture(scope="module")
def key_file(clouds: Clouds, looker: Engines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a script puts Google's key on the machines of EMR."""
    path = tmp_path_factory.mktemp("machine") / "gcs-key.json"
    key = Path(clouds.env["GOOGLE_APPLICATION_CREDENTIALS"]).read_text()
    looker.answer("secret", name="gcs-key", text=key)
    script = _BOOTSTRAP.format(path=str(path))
    looker.answer("put", uri="s3://portaflow/gcs-key.py", text=script)
    return path


@pytest.fixture(scope="module")
def credentials(clouds: Clouds, looker: Engines, tmp_path_factory: pytest.TempPathFactory) -> None:
    """AWS's keys in a file that Hadoop can read, in a bucket of GCS."""
    spark, file = Spark(), tmp_path_factory.mktemp("keys") / "s3.jceks"
    for name, variable in (
        ("fs.s3a.access.key", "AWS_ACCESS_KEY_ID"),
        ("fs.s3a.secret.key", "AWS_SECRET_ACCESS_KEY"),
    ):
        shell = [str(spark.java), "-cp", f"{spark.home}/jars/*"]
        shell += ["org.apache.hadoop.security.alias.CredentialShell", "create", name]
        shell += ["-value", clouds.env[variable], "-provider", f"localjceks://file{file}"]
        subprocess.run(shell, check=True, capture_output=True)
    looker.answer("put", uri="gs://portaflow/s3.jceks", path=str(file))


def run(start: Start, target: str, pipeline: str, *sets: str) -> list[str]:
    """The outputs of a run that ends well."""
    engines = start()
    order = {"target": target, "pipeline": pipeline, "run": target, "params": {}}
    engines.ask("run", **order, sets=sets)
    told = engines.told()
    assert "answer" in told, told
    assert told["answer"]["succeeded"], told
    return list(told["answer"]["outputs"])


def nobody_told(clouds: Clouds) -> None:
    """No call that a cloud was asked by has a key in it."""
    google = json.loads(Path(clouds.env["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    secrets = [clouds.env["AWS_SECRET_ACCESS_KEY"], google["private_key"], google["private_key_id"]]
    for operation in ("aws:emr.*", "gcp:dataproc.*", "kubernetes:jobs.*"):
        said = json.dumps([c.params for c in clouds.control.seen(operation)], default=str)
        assert not any(json.dumps(secret)[1:-1] in said for secret in secrets)


@pytest.mark.spark
@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", ["gcp-s3", "gcp-serverless-s3"])
def test_dataproc_works_with_s3(
    start: Start, clouds: Clouds, credentials: None, target: str
) -> None:
    _, counted, box = run(start, target, "pair")
    assert "token 1000\n" in counted
    assert box == "from a box"
    nobody_told(clouds)


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_emr_works_with_gcs(start: Start, clouds: Clouds, key_file: Path) -> None:
    _, counted, box = run(start, "aws-gcs", "pair", f"store.key_file={key_file}")
    assert "token 1000\n" in counted
    assert box == "from a box"
    nobody_told(clouds)


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_kubernetes_works_with_gcs(start: Start, clouds: Clouds) -> None:
    """With S3 it does in tests/clouds_together/test_two_engines.py and the demo."""
    _, counted, box = run(start, "kubernetes-gcs", "pair")
    assert "token 1000\n" in counted
    assert box == "from a box"
    nobody_told(clouds)
