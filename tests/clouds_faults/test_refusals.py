"""What a user gets wrong, or may not do: an error that names it and what helps, soon, and nothing
is left. Each refusal is the clouds' own: they look at keys, names and rights as providers do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from kubernetes import client
from kubernetes.config import load_kube_config

from .field import Field

_S3 = (
    *("--set", "store.backend=s3", "--set", "store.root=s3://portaflow/store"),
    *("--set", "store.key_provider=jceks://gs@portaflow/keys"),
)
"""A store of the other cloud, whose credentials are right."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """`words` is what the error must say: what is wrong, then what helps."""

    target: str
    sets: tuple[str, ...] = ()
    env: dict[str, str | None] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    cluster: dict[str, Any] = field(default_factory=dict)
    denied: str = ""  # the call that is not allowed
    words: tuple[str, str]
    cause: str = ""  # of the task or cluster that failed; "" when no run began
    code: int = 1


def _set(path: str, value: str) -> tuple[str, str]:
    return "--set", f"{path}={value}"


_WRONG_AWS: dict[str, str | None] = {
    "AWS_ACCESS_KEY_ID": "AKIAWRONGWRONGWRONG0", "AWS_SECRET_ACCESS_KEY": "wrong",
}  # fmt: skip
_NO_AWS: dict[str, str | None] = dict.fromkeys(_WRONG_AWS)
_WRONG_GCP: dict[str, str | None] = {"GOOGLE_APPLICATION_CREDENTIALS": "wrong-key.json"}
_NO_GCP: dict[str, str | None] = {"GOOGLE_APPLICATION_CREDENTIALS": None}
_PROFILE: dict[str, str | None] = {"AWS_SHARED_CREDENTIALS_FILE": "wrong-profile"}
_LOGIN, _INVALID = "gcloud auth application-default login", "security token included"
_UNKNOWN = "Request had invalid authentication credentials"
_WHO, _RIGHT = "aws sts get-caller-identity", "give its role or user the right"
_ROLE = "give the account a role"

CREDENTIALS = {
    "s3": Row(target="emr", env=_WRONG_AWS, words=("InvalidAccessKeyId", _WHO)),
    "s3, none": Row(target="emr", env=_NO_AWS, words=("there are no credentials", _WHO)),
    "gcs": Row(target="batches", env=_WRONG_GCP, words=("invalid_grant", _LOGIN)),
    "gcs, none": Row(target="batches", env=_NO_GCP, words=("were not found", _LOGIN)),
    "emr": Row(
        target="emr", sets=_set("compute.profile", "wrong"), env=_PROFILE,
        words=(_INVALID, _WHO), cause="denied",
    ),
    "emr-serverless": Row(
        target="serverless", sets=_set("compute.profile", "wrong"), env=_PROFILE,
        words=(_INVALID, _WHO), cause="denied",
    ),
    "eks": Row(
        target="eks", sets=_set("container.profile", "wrong"), env=_PROFILE,
        words=(_INVALID, _WHO), cause="denied",
    ),
    "profile": Row(
        target="emr", sets=_set("compute.profile", "nonesuch"),
        words=("nonesuch", "correct `profile` in the target"), cause="denied",
    ),
    "dataproc": Row(
        target="dataproc", sets=_S3, env=_WRONG_GCP, words=(_UNKNOWN, _LOGIN),
        cause="denied",
    ),
    "dataproc-serverless": Row(
        target="batches", sets=_S3, env=_WRONG_GCP, words=(_UNKNOWN, _LOGIN),
        cause="denied",
    ),
    "gke": Row(
        target="gke", sets=_S3, env=_WRONG_GCP, words=(_UNKNOWN, _LOGIN), cause="denied"
    ),
    "kubernetes": Row(
        target="kubernetes", env={"KUBECONFIG": "wrong-kubeconfig"},
        words=("does not know who we are", "kubectl config view"), cause="denied",
    ),
    "kubernetes, none": Row(
        target="kubernetes", env={"KUBECONFIG": "/nonesuch"},
        words=("/nonesuch", "kubectl config view"), cause="denied",
    ),
}  # fmt: skip

PERMISSIONS = {
    "s3": Row(
        target="emr", denied="aws:s3.PutObject",
        words=("AccessDenied", "allow s3:ListBucket on the bucket"),
    ),
    "gcs": Row(
        target="batches", denied="gcp:storage.objects.insert",
        words=("AccessDenied", "roles/storage.objectUser"),
    ),
    **{
        name: Row(target=target, denied=f"aws:{call}", words=(right, _RIGHT), cause="denied")
        for name, target, call, right in (
            ("emr", "emr", "emr.RunJobFlow", "elasticmapreduce:RunJobFlow"),
            ("emr, to look", "emr", "emr.ListClusters", "elasticmapreduce:ListClusters"),
            ("step", "emr", "emr.AddJobFlowSteps", "elasticmapreduce:AddJobFlowSteps"),
            ("run", "serverless", "emr-serverless.StartJobRun", "emr-serverless:StartJobRun"),
            ("eks", "eks", "eks.DescribeCluster", "eks:DescribeCluster"),
        )
    },
    **{
        name: Row(target=target, denied=f"gcp:{call}", words=(what, _ROLE), cause="denied")
        for name, target, call, what in (
            ("dataproc", "dataproc", "dataproc.CreateCluster", "cluster 'pf-p-c-"),
            ("dataproc, to look", "dataproc", "dataproc.GetCluster", "cluster 'pf-p-c-"),
            ("job", "dataproc", "dataproc.SubmitJob", "job 'pf-p-t-"),
            ("batch", "batches", "dataproc.CreateBatch", "job 'pf-p-t-"),
            ("gke", "gke", "container.GetCluster", "cluster 'portaflow'"),
        )
    },
    "kubernetes": Row(
        target="kubernetes", sets=_set("container.context", "viewer"), cause="denied",
        words=('cannot create resource "jobs"', "kubectl auth can-i --list"),
    ),
}  # fmt: skip

REGIONS = {
    "s3": Row(
        target="emr", sets=_set("store.region", "eu-nowhere-9"),
        words=("s3.eu-nowhere-9.amazonaws.com", "whether the target's `region` is one of AWS"),
    ),
    **{
        name: Row(
            target=name, sets=_set(f"{kind}.region", "eu-nowhere-9"), cause="user",
            words=("'eu-nowhere-9' is no region", "set `region` in the target"),
        )
        for name, kind in (("emr", "compute"), ("serverless", "compute"), ("eks", "container"))
    },
    **{
        name: Row(
            target=name, sets=_set("compute.region", "nowhere"), cause="user",
            words=("Region 'nowhere' is invalid", "correct `region` in the target"),
        )
        for name in ("dataproc", "batches")
    },
    "gke": Row(
        target="gke", sets=_set("container.location", "europe-nowhere9"), cause="user",
        words=("no cluster 'portaflow' in europe-nowhere9", "correct `cluster`, `location`"),
    ),
}  # fmt: skip

MISSING = {
    "bucket of s3": Row(
        target="emr", sets=_set("store.root", "s3://nonesuch/store"),
        words=("s3://nonesuch/store", "make it with `aws s3 mb s3://nonesuch`"),
    ),
    "bucket of gcs": Row(
        target="batches", sets=_set("store.root", "gs://nonesuch/store"),
        words=("gs://nonesuch/store", "make it with `gcloud storage buckets create gs://nonesuch`"),
    ),
    **{
        f"staging bucket of {name}": Row(
            target=name, sets=_set("compute.staging_bucket", "nonesuch"), cause="user",
            words=("bucket does not exist 'nonesuch'", "correct `staging_bucket`"),
        )
        for name in ("dataproc", "batches")
    },
    **{
        f"image of {name}": Row(
            target=name, task={"image": "registry.example.com/nonesuch:1"}, cause="user",
            words=("'registry.example.com/nonesuch:1' cannot be had", "see its name, the registry"),
        )
        for name in ("kubernetes", "eks", "gke")
    },
    **{
        f"release of {name}": Row(
            target=name, sets=_set("compute.release", "emr-9.9.9"), cause="user",
            words=("emr-9.9.9", "correct `release` in the target"),
        )
        for name in ("emr", "serverless")
    },
    "image of dataproc": Row(
        target="dataproc", sets=_set("compute.image_version", "9.9-debian99"), cause="user",
        words=("9.9-debian99", "correct `image_version` in the target"),
    ),
    "runtime of batches": Row(
        target="batches", sets=_set("compute.runtime_version", "'9.9'"), cause="user",
        words=("Runtime version '9.9'", "correct `runtime_version` in the target"),
    ),
    **{
        f"cluster of {name}": Row(
            target=name, sets=_set("container.cluster", "nonesuch"), cause="user",
            words=("no cluster 'nonesuch'", "correct `cluster`"),
        )
        for name in ("eks", "gke")
    },
    "namespace": Row(
        target="kubernetes", sets=_set("container.namespace", "nonesuch"), cause="user",
        words=('namespaces "nonesuch" not found', "kubectl create namespace nonesuch"),
    ),
    "account of pods": Row(
        target="kubernetes", sets=_set("container.service_account", "nonesuch"), cause="denied",
        words=("its pod cannot be made", 'serviceaccount "nonesuch" not found'),
    ),
    "secret of kubernetes": Row(
        target="kubernetes", task={"secrets": {"TOKEN": "nonesuch"}}, cause="user",
        words=('secret "nonesuch" not found', "make what is missing, in the namespace"),
    ),
}  # fmt: skip

TYPES = {
    "emr": Row(
        target="emr", sets=_set("compute.instance_types", '["m9.huge"]'), cause="user",
        words=("'m9.huge' is not supported", "correct `instance_types`"),
    ),
    "dataproc": Row(
        target="dataproc", sets=_set("compute.machine_type", "n9-huge-1"), cause="user",
        words=("'n9-huge-1' does not exist", "correct `machine_type`"),
    ),
    "emr, too large": Row(
        target="emr", cluster={"size": {"cpu": 4000}}, code=2,
        words=("no known machine type has 4000 cores", "make the size smaller"),
    ),
    "dataproc, too large": Row(
        target="dataproc", cluster={"size": {"cpu": 4000}}, code=2,
        words=("no known machine type has 4000 cores", "make the size smaller"),
    ),
    "serverless, too large": Row(
        target="serverless", task={"size": {"cpu": 64}}, code=2,
        words=("t: backend 'emr-serverless'", "at most 16 and 120"),
    ),
}  # fmt: skip


QUOTAS = {
    "emr": Row(
        target="emr",
        cluster={"workers": 600},
        cause="capacity",
        words=("more vCPU capacity than your current vCPU limit of 2000", "ec2-request"),
    ),
    "dataproc": Row(
        target="dataproc",
        cluster={"workers": 1200},
        cause="capacity",
        words=("Insufficient 'CPUS' quota", "wait for what runs to end, or ask Google for more"),
    ),
    "kubernetes": Row(
        target="kubernetes",
        task={"timeout": 4},
        cause="user",
        sets=_set("container.namespace", "full"),
        words=("timed out after 4 s", "exceeded quota: none, requested: pods=1"),
    ),
}


@pytest.fixture(scope="module")
def wrong(everywhere: Field) -> Field:
    """Keys of nobody, beside the field's own files."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    env, folder = everywhere.clouds.env, everywhere.folder
    account = json.loads(Path(env["GOOGLE_APPLICATION_CREDENTIALS"]).read_text())
    (folder / "wrong-key.json").write_text(json.dumps({**account, "private_key": pem.decode()}))
    (folder / "wrong-profile").write_text(
        "[wrong]\naws_access_key_id = AKIAWRONGWRONGWRONG0\naws_secret_access_key = wrong\n"
    )
    kubeconfig = Path(env["KUBECONFIG"]).read_text()
    unknown = re.sub(r'"token": "[^"]+"', '"token": "wrong"', kubeconfig)
    assert unknown != kubeconfig
    (folder / "wrong-kubeconfig").write_text(unknown)
    emulator: Any = everywhere.clouds.emulators["kubernetes"]
    emulator.images.remove("registry.example.com/nonesuch")
    return everywhere


@pytest.fixture(scope="module")
def full(everywhere: Field) -> None:
    """A namespace in which no pod may be."""
    config = client.Configuration()
    load_kube_config(everywhere.clouds.env["KUBECONFIG"], client_configuration=config)
    core = client.CoreV1Api(client.ApiClient(config))
    core.create_namespace({"metadata": {"name": "full"}})
    core.create_namespaced_resource_quota(
        "full", {"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}
    )


def _ids(*tables: dict[str, Row]) -> Callable[[Any], Any]:
    rows = [pytest.param(row, id=name) for table in tables for name, row in table.items()]
    return pytest.mark.parametrize("row", rows)


def _refused(field: Field, row: Row) -> None:
    if row.denied:
        field.fault("deny", row.denied, times=-1)
    what = {"task": row.task, "cluster": row.cluster}
    done = field.run(row.target, *row.sets, env=row.env, **what)
    assert done.code == row.code, done.text
    assert "Traceback" not in done.text
    error = done.err[done.err.index("error: ") :]
    assert row.words[0] in error
    assert row.words[1] in error
    if row.cause:
        ends = [*done.run["tasks"], *done.run["clusters"]]
        (failed,) = (end for end in ends if end["state"] == "failed")
        assert failed["cause"] == row.cause
        assert failed["attempt"] == 1 or row.cause == "capacity"  # nobody waits for what stays
        assert row.words[0] in failed["reason"]
    field.nothing_left(row.target)


@_ids(CREDENTIALS)
def test_wrong_credentials(field: Field, wrong: Field, row: Row) -> None:
    _refused(field, row)


@_ids(PERMISSIONS)
def test_no_permission(field: Field, row: Row) -> None:
    _refused(field, row)


@_ids(REGIONS)
def test_wrong_region(field: Field, row: Row) -> None:
    _refused(field, row)


@_ids(MISSING)
def test_what_is_missing(field: Field, wrong: Field, row: Row) -> None:
    _refused(field, row)


@_ids(TYPES)
def test_unknown_machines(field: Field, row: Row) -> None:
    _refused(field, row)


@_ids(QUOTAS)
def test_quotas(field: Field, full: None, row: Row) -> None:
    _refused(field, row)
