"""Where the local S3, EKS and IAM are known to differ: a test fails when one no longer does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("boto3")
pytest.importorskip("aiohttp")

from portaflow_conformance.emulators.clouds import emulate

from .aws_client import python

_CLIENT = """
import os, requests
from botocore.config import Config
s3, sts = boto3.client("s3"), boto3.client("sts")
def bucket(name):
    s3.create_bucket(Bucket=name)
    return name
def keys(name):
    return [one["Key"] for one in s3.list_objects_v2(Bucket=name).get("Contents", [])]
def given(account="123456789012"):
    role = f"arn:aws:iam::{account}:role/nobody-made-it"
    return sts.assume_role(RoleArn=role, RoleSessionName="some")["Credentials"]
def as_role(**more):
    keys = given(**more)
    return boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
"""
Client = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder: Path = tmp_path_factory.mktemp("client")
    with emulate("aws", "kubernetes", pace=0) as clouds:
        yield lambda code: python(_CLIENT + code, clouds.environ(), folder).splitlines()


def test_deviation_s3_order(client: Client) -> None:
    put = 's3.put_object(Bucket=name, Key=key, Body=b"")'
    told = client(f'name = bucket("order")\nfor key in ("a-b", "a/b"): {put}\nprint(keys(name))')
    assert told == ["['a/b', 'a-b']"]


def test_deviation_s3_keys(client: Client) -> None:
    for number, key in enumerate(("a//b", "./a", "x/../a")):
        told = client(
            f'name = bucket("keys-{number}")\n'
            f'print(code(s3.put_object, Bucket=name, Key="{key}", Body=b""), keys(name))'
        )
        assert told != [f"none ['{key}']"]


def test_deviation_s3_version_2(client: Client) -> None:
    told = client("""
name = bucket("two")
s3.put_object(Bucket=name, Key="one", Body=b"x")
for version in ("s3v4", "s3"):
    signs = boto3.client("s3", config=Config(signature_version=version))
    url = signs.generate_presigned_url("get_object", Params={"Bucket": name, "Key": "one"})
    print("AWSAccessKeyId=" in url, requests.get(url).status_code)
""")
    assert told == ["False 200", "True 403"]


def test_deviation_s3_chunks(client: Client) -> None:
    told = client("""
from portaflow_conformance.emulators.aws.signing import sign
keys, name = given(), bucket("chunks")
moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
chunks, scope = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", (moment[:8], "us-east-1", "s3")
headers = {"host": "s3.us-east-1.amazonaws.com", "x-amz-content-sha256": chunks,
           "x-amz-date": moment, "x-amz-security-token": keys["SessionToken"]}
code = sign(keys["SecretAccessKey"], moment, scope, "PUT", f"/{name}/one", (), headers,
            list(headers), chunks)
where = f"{keys['AccessKeyId']}/{'/'.join(scope)}/aws4_request"
headers["authorization"] = (f"AWS4-HMAC-SHA256 Credential={where}, "
                            f"SignedHeaders={';'.join(list(headers))}, Signature={code}")
told = requests.put(f"https://{headers['host']}/{name}/one", headers=headers, data=b"")
print(told.status_code, "NotImplemented" in told.text)
""")
    assert told == ["501 True"]


def test_deviation_eks_one(client: Client) -> None:
    told = client("""
eks = boto3.client("eks")
vpc = {"subnetIds": ["subnet-0a1b2c3d"]}
role = "arn:aws:iam::123456789012:role/eks"
print(eks.list_clusters()["clusters"])
print(code(eks.create_cluster, name="mine", roleArn=role, resourcesVpcConfig=vpc))
print(code(eks.list_access_entries, clusterName="portaflow"))
""")
    assert told == ["['portaflow']", "NotImplemented", "NotImplemented"]


def test_deviation_iam_policies(client: Client) -> None:
    told = client("""
print(code(as_role().client("s3").create_bucket, Bucket="anybody"))
print(code(as_role().client("emr").list_clusters), code(boto3.client("iam").list_roles))
""")
    assert told == ["none", "none NotImplemented"]


def test_deviation_aws_one_account(client: Client) -> None:
    told = client("""
bucket("ours")
other = as_role(account="999999999999")
print(other.client("sts").get_caller_identity()["Arn"].split(":")[4])
print("ours" in [one["Name"] for one in other.client("s3").list_buckets()["Buckets"]])
""")
    assert told == ["999999999999", "True"]
