"""A cluster that EKS tells of, entered by a token that botocore signs."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("boto3")
pytest.importorskip("aiohttp")
pytest.importorskip("kubernetes")

from portaflow_conformance.emulators.clouds import emulate

from .aws_client import python

# What `aws eks get-token` and the Kubernetes hooks of AWS do.
_TOKEN = """
import base64, tempfile
import kubernetes
from botocore.signers import RequestSigner
session = boto3.Session()
def token(name, region="us-east-1", expires=60, secret=None, session=session):
    keys = session.get_credentials()
    if secret:
        keys = boto3.Session(keys.access_key, secret).get_credentials()
    service = session.client("sts", region_name=region).meta.service_model.service_id
    signer = RequestSigner(service, region, "sts", "v4", keys, session.events)
    url = signer.generate_presigned_url(
        {"method": "GET", "body": {}, "headers": {"x-k8s-aws-id": name}, "context": {},
         "url": f"https://sts.{region}.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15"},
        region_name=region, expires_in=expires, operation_name="")
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")
eks = boto3.client("eks")
(name,) = eks.list_clusters()["clusters"]
eks.get_waiter("cluster_active").wait(name=name)
cluster = eks.describe_cluster(name=name)["cluster"]
trusted = tempfile.NamedTemporaryFile()
trusted.write(base64.b64decode(cluster["certificateAuthority"]["data"]))
trusted.flush()
def spaces(token):
    config = kubernetes.client.Configuration(host=cluster["endpoint"])
    config.ssl_ca_cert, config.proxy = trusted.name, None
    config.api_key = {"authorization": f"Bearer {token}"}
    with kubernetes.client.ApiClient(config) as client:
        try:
            found = kubernetes.client.CoreV1Api(client).list_namespace().items
        except kubernetes.client.ApiException as error:
            return error.status
    return [space.metadata.name for space in found]
"""


def test_the_cluster_of_eks_takes_tokens_that_it_would_take(tmp_path: Path) -> None:
    with emulate("aws", "kubernetes", pace=0) as clouds:
        out = python(
            f"""{_TOKEN}
print("default" in spaces(token(name)), "default" in spaces(token(name, "eu-west-1")))
given = session.client("sts").assume_role(
    RoleArn="arn:aws:iam::123456789012:role/reader", RoleSessionName="x-1")["Credentials"]
role = boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
print("default" in spaces(token(name, session=role)))
print(spaces(token("another")), spaces(token(name, secret="wrong")), spaces(token(name)[:-9]),
      spaces(token(name, expires=3600)))
from portaflow_conformance.emulators.endpoint import RemoteControl
old = token(name)
RemoteControl().jump(16 * 60)
print(spaces(old))
print(code(eks.describe_cluster, name="another"), code(eks.delete_cluster, name=name))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "True True",
            "True",
            "401 401 401 401",
            "401",
            "ResourceNotFoundException NotImplemented",
        ]
        assert clouds.control.count("aws:eks.DescribeCluster") >= 2


def test_without_kubernetes_there_is_no_cluster(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            'print(boto3.client("eks").list_clusters()["clusters"])', clouds.environ(), tmp_path
        )
        assert out == "[]\n"
