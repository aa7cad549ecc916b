"""Who has no permission is told so in the words of each provider, by order."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("boto3")
pytest.importorskip("grpc")
pytest.importorskip("kubernetes")
pytest.importorskip("google.cloud.dataproc_v1")
pytest.importorskip("google.cloud.storage")

from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.control import Fault

_CLIENT = """
import boto3, kubernetes
from botocore.exceptions import ClientError
from google.api_core.exceptions import Forbidden, PermissionDenied
from google.cloud import dataproc_v1, storage
def aws(name, operation, **params):
    try:
        getattr(boto3.client(name), operation)(**params)
    except ClientError as error:
        told = error.response
        return told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"]
    return "done"
def google(call, *args):
    try:
        call(*args)
    except (Forbidden, PermissionDenied) as error:
        return type(error).__name__
    return "done"
print(aws("s3", "create_bucket", Bucket="data"), aws("s3", "list_buckets"))
print(aws("emr", "list_clusters"), aws("emr-serverless", "list_applications"))
print(google(storage.Client().create_bucket, "data"))
options = {"api_endpoint": "us-central1-dataproc.googleapis.com:443"}
clusters = dataproc_v1.ClusterControllerClient(client_options=options)
where = {"project_id": "portaflow-local", "region": "us-central1"}
print(google(clusters.list_clusters, where))
kubernetes.config.load_kube_config()
core = kubernetes.client.CoreV1Api()
try:
    core.list_namespaced_pod("default")
except kubernetes.client.ApiException as error:
    print(error.status, error.reason, '"reason":"Forbidden"' in error.body)
print(len(core.list_namespace().items) > 0)
"""


def test_who_may_not_is_refused_as_each_provider_refuses() -> None:
    with emulate("aws", "gcp", "kubernetes", pace=0) as clouds:
        for operation in (
            *("aws:s3.CreateBucket", "aws:emr.*", "aws:emr-serverless.*"),
            *("gcp:storage.buckets.insert", "gcp:dataproc.*", "kubernetes:*pods*"),
        ):
            clouds.control.order(Fault(effect="deny", operation=operation, times=-1))
        done = subprocess.run(
            [sys.executable, "-c", _CLIENT],
            env=clouds.environ(), capture_output=True, text=True, timeout=100,
        )  # fmt: skip
        assert done.stdout.splitlines() == [
            "('AccessDenied', 403) done",
            "('AccessDeniedException', 400) ('AccessDeniedException', 403)",
            "Forbidden",
            "PermissionDenied",
            "403 Forbidden True",
            "True",
        ], (done.stderr, [call.operation for call in clouds.control.seen()])


def test_a_principal_is_refused_and_another_is_not() -> None:
    with emulate("aws", pace=0) as clouds:
        deny = Fault(effect="deny", operation="aws:s3.*", principal="AKIASOMEBODYELSE", times=-1)
        clouds.control.order(deny)
        script = "import boto3; boto3.client('s3').create_bucket(Bucket='data')"
        command = [sys.executable, "-c", script]
        subprocess.run(command, env=clouds.environ(), check=True, timeout=60)
        other = {**clouds.environ(), "AWS_ACCESS_KEY_ID": "AKIASOMEBODYELSE"}
        done = subprocess.run(command, env=other, capture_output=True, text=True, timeout=60)
        assert "(AccessDenied)" in done.stderr
        assert deny.hit == 1
