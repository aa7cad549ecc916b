"""What a user gets wrong, or may not do: an error that names it and what helps, soon, and nothing
is left. Each refusal is the clouds' own: they look at keys, names and rights as providers do.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from kubernetes import client
from kubernetes.config import load_kube_config

from .field import Field

Settings = dict[str, str]
Env = dict[str, str | None]


@dataclass(frozen=True)
class Row:
    """`wrong` and `helps` are what the error must say."""

    target: str
    wrong: str
    helps: str
    cause: str = ""  # of the task or cluster that failed; "" when no run began
    _: KW_ONLY
    sets: Settings = field(default_factory=dict)  # of the target
    env: Env = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    cluster: dict[str, Any] = field(default_factory=dict)
    denied: str = ""  # the call that is not allowed
    code: int = 1


_S3 = {
    "store.backend": "s3",
    "store.root": "s3://portaflow/store",
    "store.key_provider": "jceks://gs@portaflow/keys",
}
"""A store of the other cloud, whose credentials are right."""

_WRONG_AWS: Env = {
    "AWS_ACCESS_KEY_ID": "AKIAWRONGWRONGWRONG0", "AWS_SECRET_ACCESS_KEY": "wrong",
}  # fmt: skip
_NO_AWS: Env = dict.fromkeys(_WRONG_AWS)
_WRONG_GCP: Env = {"GOOGLE_APPLICATION_CREDENTIALS": "wrong-key.json"}
_NO_GCP: Env = {"GOOGLE_APPLICATION_CREDENTIALS": None}
_PROFILE: Env = {"AWS_SHARED_CREDENTIALS_FILE": "wrong-profile"}
_LOGIN, _WHO = "gcloud auth application-default login", "aws sts get-caller-identity"
_UNKNOWN = "Request had invalid authentication credentials"
_KUBECONFIG = "kubectl config view"


def _credentials() -> Iterator[tuple[str, Row]]:
    yield "s3", Row("emr", "InvalidAccessKeyId", _WHO, env=_WRONG_AWS)
    yield "s3, none", Row("emr", "there are no credentials", _WHO, env=_NO_AWS)
    yield "gcs", Row("batches", "invalid_grant", _LOGIN, env=_WRONG_GCP)
    yield "gcs, none", Row("batches", "were not found", _LOGIN, env=_NO_GCP)
    for name, kind in (("emr", "compute"), ("serverless", "compute"), ("eks", "container")):
        profile = {f"{kind}.profile": "wrong"}
        told = ("security token included", _WHO, "denied")
        yield name, Row(name, *told, sets=profile, env=_PROFILE)
    for name in ("dataproc", "batches", "gke"):
        yield name, Row(name, _UNKNOWN, _LOGIN, "denied", sets=_S3, env=_WRONG_GCP)
    sets = {"compute.profile": "nonesuch"}
    yield "profile", Row("emr", "nonesuch", "correct `profile` in the target", "denied", sets=sets)
    for name, wrong, file in (
        ("kubernetes", "does not know who we are", "wrong-kubeconfig"),
        ("kubernetes, none", "/nonesuch", "/nonesuch"),
    ):
        yield name, Row("kubernetes", wrong, _KUBECONFIG, "denied", env={"KUBECONFIG": file})


def _permissions() -> Iterator[tuple[str, Row]]:
    put = "aws:s3.PutObject", "gcp:storage.objects.insert"
    helps = "allow s3:ListBucket on the bucket", "roles/storage.objectUser"
    yield "s3", Row("emr", "AccessDenied", helps[0], denied=put[0])
    yield "gcs", Row("batches", "AccessDenied", helps[1], denied=put[1])
    for name, target, call, right in (
        ("emr", "emr", "emr.RunJobFlow", "elasticmapreduce:RunJobFlow"),
        ("emr, to look", "emr", "emr.ListClusters", "elasticmapreduce:ListClusters"),
        ("step", "emr", "emr.AddJobFlowSteps", "elasticmapreduce:AddJobFlowSteps"),
        ("run", "serverless", "emr-serverless.StartJobRun", "emr-serverless:StartJobRun"),
        ("eks", "eks", "eks.DescribeCluster", "eks:DescribeCluster"),
    ):
        fix = "give its role or user the right"
        yield name, Row(target, right, fix, "denied", denied=f"aws:{call}")
    right, call = "elasticmapreduce:TerminateJobFlows", "aws:emr.TerminateJobFlows"
    yield "emr, to end it", Row("emr", right, fix, denied=call, code=3)
    for name, target, call, what in (
        ("dataproc", "dataproc", "dataproc.CreateCluster", "cluster 'pf-p-c-"),
        ("dataproc, to look", "dataproc", "dataproc.GetCluster", "cluster 'pf-p-c-"),
        ("job", "dataproc", "dataproc.SubmitJob", "job 'pf-p-t-"),
        ("batch", "batches", "dataproc.CreateBatch", "job 'pf-p-t-"),
        ("gke", "gke", "container.GetCluster", "cluster 'portaflow'"),
    ):
        yield name, Row(target, what, "give the account a role", "denied", denied=f"gcp:{call}")
    call, what = "gcp:dataproc.DeleteCluster", "cluster 'c' may still be there"
    yield "dataproc, to end it", Row("dataproc", what, "account a role", denied=call, code=3)
    told = 'cannot create resource "jobs"', "kubectl auth can-i --list", "denied"
    yield "kubernetes", Row("kubernetes", *told, sets={"container.context": "viewer"})


def _regions() -> Iterator[tuple[str, Row]]:
    none = "s3.eu-nowhere-9.amazonaws.com", "whether the target's `region` is one of AWS"
    yield "s3", Row("emr", *none, sets={"store.region": "eu-nowhere-9"})
    other = "its bucket is in another region, eu-west-1", "set the `region` of the target's store"
    yield "s3, another", Row("emr", *other, sets={"store.root": "s3://far/store"})
    for name, kind in (("emr", "compute"), ("serverless", "compute"), ("eks", "container")):
        told = "'eu-nowhere-9' is no region", "set `region` in the target", "user"
        yield name, Row(name, *told, sets={f"{kind}.region": "eu-nowhere-9"})
    for name in ("dataproc", "batches"):
        told = "for region 'europe-nowhere9'", "correct `region` in the target", "user"
        yield name, Row(name, *told, sets={"compute.region": "europe-nowhere9"})
    told = "'locations/europe-nowhere9' (or it may not exist)", "`location` in the", "user"
    yield "gke", Row("gke", *told, sets={"container.location": "europe-nowhere9"})


def _missing() -> Iterator[tuple[str, Row]]:
    told: tuple[str, ...]
    for target, scheme, make in (
        ("emr", "s3", "aws s3 mb"),
        ("batches", "gs", "gcloud storage buckets create"),
    ):
        uri = f"{scheme}://nonesuch"
        told = f"{uri}/store", f"make it with `{make} {uri}`"
        yield f"bucket of {scheme}", Row(target, *told, sets={"store.root": f"{uri}/store"})
    for target in ("dataproc", "batches"):
        told = "bucket does not exist 'nonesuch'", "correct `staging_bucket`", "user"
        sets = {"compute.staging_bucket": "nonesuch"}
        yield f"staging bucket of {target}", Row(target, *told, sets=sets)
    for target in ("kubernetes", "eks", "gke"):
        image = "registry.example.com/nonesuch:1"
        told = f"'{image}' cannot be had", "see its name, the registry", "user"
        yield f"image of {target}", Row(target, *told, task={"image": image})
    for target, key, value, wrong in (
        ("emr", "release", "emr-9.9.9", "emr-9.9.9"),
        ("serverless", "release", "emr-9.9.9", "emr-9.9.9"),
        ("dataproc", "image_version", "9.9-debian99", "9.9-debian99"),
        ("batches", "runtime_version", "'9.9'", "Runtime version '9.9'"),
    ):
        helps, sets = f"correct `{key}` in the target", {f"compute.{key}": value}
        yield f"release of {target}", Row(target, wrong, helps, "user", sets=sets)
    for target in ("eks", "gke"):
        wrong, sets = "no cluster 'nonesuch'", {"container.cluster": "nonesuch"}
        yield f"cluster of {target}", Row(target, wrong, "correct `cluster`", "user", sets=sets)
    told = 'namespaces "nonesuch" not found', "kubectl create namespace nonesuch", "user"
    yield "namespace", Row("kubernetes", *told, sets={"container.namespace": "nonesuch"})
    told = 'serviceaccount "nonesuch" not found', "its pod cannot be made", "denied"
    sets = {"container.service_account": "nonesuch"}
    yield "account of pods", Row("kubernetes", *told, sets=sets)
    told = 'secret "nonesuch" not found', "make what is missing, in the namespace", "user"
    task = {"secrets": {"TOKEN": "nonesuch"}}
    yield "secret of kubernetes", Row("kubernetes", *told, task=task)


def _machines() -> Iterator[tuple[str, Row]]:
    types, one = {"compute.instance_types": '["m9.huge"]'}, {"compute.machine_type": "n9-huge-1"}
    emr, dataproc = "'m9.huge' is not supported", "'n9-huge-1' does not exist"
    yield "emr", Row("emr", emr, "correct `instance_types`", "user", sets=types)
    yield "dataproc", Row("dataproc", dataproc, "correct `machine_type`", "user", sets=one)
    for target in ("emr", "dataproc"):
        told, large = "no known machine type has 4000 cores", {"size": {"cpu": 4000}}
        helps = "make the size smaller"
        yield f"{target}, too large", Row(target, told, helps, cluster=large, code=2)
    told, large = "t: backend 'emr-serverless'", {"size": {"cpu": 64}}
    yield "serverless, too large", Row("serverless", told, "at most 16 and 120", task=large, code=2)


def _quotas() -> Iterator[tuple[str, Row]]:
    told = "more vCPU capacity than your current vCPU limit of 2000", "ec2-request", "capacity"
    yield "emr", Row("emr", *told, cluster={"workers": 600})
    cpus, helps = "Insufficient 'CPUS' quota", "wait for what runs to end, or ask Google for more"
    yield "dataproc", Row("dataproc", cpus, helps, "capacity", cluster={"workers": 1200})
    many = {"conf": {"spark.executor.instances": "2500"}}
    yield "batches", Row("batches", cpus, helps, "capacity", task=many)
    told = "reached the service limit on the maximum vCPU", "ask AWS for a larger quota", "capacity"
    yield "serverless", Row("serverless", *told, task=many)
    for target in ("kubernetes", "gke"):
        told = "exceeded quota: none, requested: pods=1", "ask for a larger quota", "user"
        yield target, Row(target, *told, sets={"container.namespace": "full"})
    told = "exceeded quota: none, requested: count/jobs.batch=1", "ask for a larger", "capacity"
    yield "kubernetes, jobs", Row("kubernetes", *told, sets={"container.namespace": "shut"})
    for target in ("kubernetes", "eks"):
        large, helps = {"timeout": 4, "size": {"cpu": 4000}}, "make its size smaller"
        yield f"{target}, no node", Row(target, "no node takes it", helps, "capacity", task=large)


_TABLES = {
    "credentials": _credentials,
    "permission": _permissions,
    "region": _regions,
    "missing": _missing,
    "machine": _machines,
    "quota": _quotas,
}
ROWS = [
    pytest.param(row, id=f"{table}-{name}")
    for table, rows in _TABLES.items()
    for name, row in rows()
]


@pytest.fixture(scope="module", autouse=True)
def wrong(everywhere: Field) -> None:
    """Keys of nobody, a bucket that is far, an image that is gone, and namespaces that are full."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    clouds, folder = everywhere.clouds, everywhere.folder
    account = json.loads(Path(clouds.env["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    (folder / "wrong-key.json").write_text(json.dumps({**account, "private_key": pem.decode()}))
    (folder / "wrong-profile").write_text(
        "[wrong]\naws_access_key_id = AKIAWRONGWRONGWRONG0\naws_secret_access_key = wrong\n"
    )
    kubeconfig = Path(clouds.env["KUBECONFIG"]).read_text()
    unknown = re.sub(r'"token": "[^"]+"', '"token": "wrong"', kubeconfig)
    assert unknown != kubeconfig
    (folder / "wrong-kubeconfig").write_text(unknown)
    emulator: Any = clouds.emulators["kubernetes"]
    emulator.images.remove("registry.example.com/nonesuch")
    code = "import boto3; boto3.client('s3').create_bucket(Bucket='far', CreateBucketConfiguration="
    code += "{'LocationConstraint': 'eu-west-1'})"
    subprocess.run([sys.executable, "-c", code], env=clouds.environ(), check=True)
    config = client.Configuration()
    load_kube_config(clouds.env["KUBECONFIG"], client_configuration=config)
    core = client.CoreV1Api(client.ApiClient(config))
    for name, what in (("full", "pods"), ("shut", "count/jobs.batch")):
        core.create_namespace({"metadata": {"name": name}})
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {what: "0"}}}
        core.create_namespaced_resource_quota(name, quota)


@pytest.mark.parametrize("row", ROWS)
def test_a_refusal_says_what_is_wrong_and_what_helps(field: Field, row: Row) -> None:
    if row.denied:
        field.fault("deny", row.denied, times=-1)
    sets = (word for path, value in row.sets.items() for word in ("--set", f"{path}={value}"))
    done = field.run(row.target, *sets, env=row.env, task=row.task, cluster=row.cluster)
    assert done.code == row.code, done.text
    assert "Traceback" not in done.text
    error = done.err[done.err.index("error: ") :]
    assert row.wrong in error
    assert row.helps in error
    if row.cause:
        ends = [*done.run["tasks"], *done.run["clusters"]]
        (failed,) = (end for end in ends if end["state"] == "failed")
        assert failed["cause"] == row.cause
        assert failed["attempt"] == 1 or row.cause == "capacity"  # nobody waits for what stays
        assert row.wrong in failed["reason"]
    if row.code == 3:  # it is told what may still be there, and goes when it may
        field.control.clear()
        assert field.portaflow("reap", "--target", row.target, "--yes").code == 0
    field.nothing_left(row.target)
