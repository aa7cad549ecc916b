"""Secrets of jobs and batches on Dataproc: their driver has them, and nothing else holds one."""

from __future__ import annotations

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault
from portaflow_gcp import launcher
from portaflow_gcp.dataproc import Config, Dataproc

from portaflow.backend import Cause, JobSpec, Verdict
from portaflow.errors import RejectedError
from portaflow.load import load
from portaflow.plan import Run
from portaflow.session import Session
from portaflow.state import Phase
from portaflow.target import load_target

from .field import REGION, batches

PIPELINE = """
name: vault
clusters: [{name: a}]
tasks:
  - {id: proves, kind: spark, cluster: a, main: job.py, args: [a b, ""], secrets: {TOKEN: NAME}}
  - {id: lacks, kind: spark, cluster: a, main: job.py, secrets: {TOKEN: nonesuch}}
"""
JOB = """
import hashlib, os, sys
from pyspark.sql import SparkSession
SparkSession.builder.getOrCreate()
print("proof", hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest(), sys.argv[1:],
    os.environ.get("OF_THE_DEVELOPER"))
"""
TARGETS = """
[targets.dataproc]
store = {backend = "gcs", root = "gs://BUCKET/x"}
compute = {backend = "dataproc", region = "europe-west1", staging_bucket = "BUCKET"}
[targets.dataproc-serverless]
store = {backend = "gcs", root = "gs://BUCKET/x"}
[targets.dataproc-serverless.compute]
backend = "dataproc-serverless"
region = "europe-west1"
staging_bucket = "BUCKET"
"""
NOT_THERE = "SecretError: secret 'nonesuch' for TOKEN cannot be read: "


def secret(*values: bytes) -> str:
    """The name of a secret that is made for one test, with a version for each value."""
    from google.cloud import secretmanager

    client, name = secretmanager.SecretManagerServiceClient(), f"of-{uuid4().hex[:8]}"
    project = f"projects/{os.environ['GOOGLE_CLOUD_PROJECT']}"
    asked = {"parent": project, "secret_id": name, "secret": {"replication": {"automatic": {}}}}
    made = client.create_secret(request=asked)
    for value in values:
        client.add_secret_version(request={"parent": made.name, "payload": {"data": value}})
    return name


@pytest.fixture
def bucket(cloud: Clouds) -> Any:
    from google.cloud import storage

    return storage.Client().create_bucket(f"vault-{uuid4().hex[:8]}")


@pytest.mark.spark
@pytest.mark.parametrize("target", ["dataproc", "dataproc-serverless"])
def test_a_driver_has_its_secret_and_nothing_else_holds_it(
    cloud: Clouds, bucket: Any, tmp_path: Path, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_DEVELOPER", "of no machine of the cloud")
    token = uuid4().hex
    value = f"{token} é 'x' \"$HOME\"\n"
    (tmp_path / "pipeline.yaml").write_text(PIPELINE.replace("NAME", secret(value.encode())))
    (tmp_path / "job.py").write_text(JOB)
    (tmp_path / "portaflow.toml").write_text(TARGETS.replace("BUCKET", bucket.name))
    session = Session(load_target(target, file=tmp_path / "portaflow.toml"))
    engine = session.start(load(tmp_path / "pipeline.yaml"), Run(id="r"))
    state = engine.run()
    assert state["proves"].phase is Phase.DONE, state.of
    notes = [n.fit for n in engine.plan.notes if n.field == "secrets"]
    assert {(f.verdict, "no executor" in f.reason) for f in notes} == {(Verdict.APPROXIMATED, True)}
    objects = [blob.download_as_bytes() for blob in bucket.list_blobs()]
    proof = f"proof {hashlib.sha256(value.encode()).hexdigest()} ['a b', ''] None"
    assert sum(proof.encode() in body for body in objects) == 1, "it is in the output alone"
    assert not any(token.encode() in body for body in objects)
    told = [engine.plan, engine.plan.to_json(), state.of, *cloud.control.seen()]
    assert token not in "\n".join(map(repr, told))
    assert sum(NOT_THERE.encode() in body for body in objects) >= 1, "the log says why"
    lacks = state["lacks"]
    if target == "dataproc":  # where the driver runs on YARN, and its words are not Dataproc's
        assert (lacks.phase, lacks.cause) == (Phase.FAILED, Cause.USER)
        assert (
            "tells of a SecretError: Secret Manager must have its secrets ('nonesu" in lacks.reason
        )
    else:
        assert (lacks.phase, lacks.cause) == (Phase.FAILED, Cause.DENIED)
        assert NOT_THERE in lacks.reason
        assert "`gcloud secrets create`" in lacks.reason


# -- the launcher, which needs no Spark


MAIN = """
import os, sys
token = os.environ.pop("TOKEN", None)
print(sys.argv, __name__, token, sys.path[0], sorted(os.environ))
if "raise" in sys.argv:
    raise ValueError("as it is")
sys.exit(7)
"""


@pytest.fixture
def main(cloud: Clouds, tmp_path: Path) -> Path:
    """A main file below what can be imported, where Spark puts it."""
    file = tmp_path / "__pyfiles__" / "main.py"
    file.parent.mkdir()
    file.write_text(MAIN)
    return file


def run(main: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(main.parent)}
    return subprocess.run([sys.executable, *words], env=env, capture_output=True, text=True)


def launch(main: Path, name: str, *args: str) -> subprocess.CompletedProcess[str]:
    return run(main, launcher.__file__, f"TOKEN={name}", "--", "gs://b/c/main.py", *args)


@pytest.mark.parametrize("args", [("a b", ""), ("raise", "--")])
def test_a_main_file_runs_as_it_does_by_itself(main: Path, args: tuple[str, ...]) -> None:
    alone, done = run(main, str(main), *args), launch(main, secret(b"of one test"), *args)
    assert done.returncode == alone.returncode == (1 if "raise" in args else 7)
    assert done.stderr == alone.stderr
    assert done.stdout == alone.stdout.replace("None", "of one test")


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("{name}", "new"),
        ("{name}/versions/1", "old"),
        ("projects/{project}/secrets/{name}", "new"),
        ("projects/{project}/secrets/{name}/versions/1", "old"),
    ],
)
def test_a_secret_is_the_latest_version_unless_another_is_named(
    main: Path, form: str, value: str
) -> None:
    project = os.environ["GOOGLE_CLOUD_PROJECT"]
    name = form.format(name=secret(b"old", b"new"), project=project)
    assert f" __main__ {value} " in launch(main, name).stdout


@pytest.mark.parametrize(
    ("value", "fault", "said"),
    [
        (b"", "", ("not found", "`gcloud secrets create`")),
        (b"x", "deny", ("roles/secretmanager.secretAccessor", "cloud-platform")),
        (b"\xff", "", ("it is binary",)),
        (b"a\0b", "", ("it has a NUL",)),
    ],
)
def test_a_secret_that_cannot_be_read_is_named_with_what_helps(
    cloud: Clouds, main: Path, value: bytes, fault: Any, said: tuple[str, ...]
) -> None:
    name = secret(value) if value else "nonesuch"
    if fault:
        operation = "gcp:secretmanager.AccessSecretVersion"
        cloud.control.order(Fault(effect=fault, operation=operation))
    done = launch(main, name)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"SecretError: secret {name!r} for TOKEN cannot be read: ")
    assert [words for words in said if words not in line] == []


@pytest.mark.parametrize("operation", ["metadata.token", "secretmanager.AccessSecretVersion"])
def test_trouble_that_passes_is_no_end(cloud: Clouds, main: Path, operation: str) -> None:
    name = secret(b"of one test")
    cloud.control.order(Fault(effect="throttle", operation=f"gcp:{operation}"))
    done = launch(main, name)
    assert (done.returncode, "of one test" in done.stdout) == (7, True)


# -- requests: they are pure, and need no cloud


def test_a_request_names_secrets_and_refuses_what_cannot_be() -> None:
    jobs = Dataproc(Config(region=REGION)).jobs
    for driver in (jobs, batches()):
        spec = JobSpec(
            main="gs://b/main.py", args=("a", "--"), py_files=("gs://b/x.py",),
            secrets={"T": "token", "DB": "projects/p/secrets/db/versions/3"},
            files={"portaflow_launcher.py": "gs://b/_staged/1/portaflow_launcher.py"},
        )  # fmt: skip
        assert set(driver.files(spec)) == set(spec.files)
        assert driver.files(JobSpec(main="gs://b/main.py")) == {}
        said = driver.request("pf-j-1", spec, "pf-c-1")
        work = said["job"]["pyspark_job"] if "job" in said else said["batch"]["pyspark_batch"]
        assert work["main_python_file_uri"] == "gs://b/_staged/1/portaflow_launcher.py"
        assert work["python_file_uris"] == ["gs://b/main.py", "gs://b/x.py"]
        assert work["args"] == [
            *("T=token", "DB=projects/p/secrets/db/versions/3", "--"),
            *("gs://b/main.py", "a", "--"),
        ]
        jar = JobSpec(main="gs://b/m.jar", secrets={"T": "token"})
        assert driver.fit(jar)["secrets"].verdict is Verdict.REFUSED
        assert driver.files(jar) == {}
        with pytest.raises(RejectedError, match="a jar cannot be launched"):
            driver.request("pf-j-1", jar)
        for name in ("", "a b", "projects/p/secrets", "a/../b"):
            bad = JobSpec(main="gs://b/main.py", secrets={"T": name}, files=spec.files)
            with pytest.raises(RejectedError, match="say the name of a secret"):
                driver.request("pf-j-1", bad)


def test_a_job_without_secrets_that_fails_is_told_nothing_of_them() -> None:
    from portaflow_gcp.secret import advice

    assert advice(SimpleNamespace(main_python_file_uri="gs://b/main.py")) == ""


def test_the_launcher_is_for_the_oldest_python_of_dataproc() -> None:
    ast.parse(Path(launcher.__file__).read_text(), feature_version=(3, 8))
