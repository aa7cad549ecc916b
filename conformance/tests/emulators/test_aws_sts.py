"""Keys for a time, and wrong ones: each service takes the first and refuses the others."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("moto")
pytest.importorskip("boto3")

from portaflow_conformance.emulators.clouds import emulate

from .aws_client import python

_SERVICES = """
import os, requests
from botocore.config import Config
ROLE = "arn:aws:iam::123456789012:role/team/reader"
def session(given):
    return boto3.Session(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"])
def codes(of):
    return [
        code(of.client("s3").list_buckets), code(of.client("sts").get_caller_identity),
        code(of.client("emr").list_clusters), code(of.client("emr-serverless").list_applications),
        code(of.client("eks").list_clusters), code(of.client("secretsmanager").list_secrets),
    ]
"""
_FINE = str(["none"] * 6)


def test_keys_for_a_time_open_every_service_until_they_end(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{_SERVICES}
sts = boto3.client("sts")
print(sts.get_caller_identity()["Arn"])
given = sts.assume_role(RoleArn=ROLE, RoleSessionName="night", DurationSeconds=900)
mine = session(given["Credentials"])
print(codes(mine))
who = mine.client("sts", region_name="eu-west-3").get_caller_identity()
print(who["Arn"] == given["AssumedRoleUser"]["Arn"], who["Arn"])
s3 = mine.client("s3", config=Config(signature_version="s3v4"))
s3.create_bucket(Bucket="data")
s3.put_object(Bucket="data", Key="a b/ü+", Body=b"x" * 2**20)
print(len(s3.get_object(Bucket="data", Key="a b/ü+")["Body"].read()))
print([one["Key"] for one in s3.list_objects_v2(Bucket="data", Prefix="a b/")["Contents"]])
url = s3.generate_presigned_url("get_object", Params={{"Bucket": "data", "Key": "a b/ü+"}})
print(len(requests.get(url).content))
print(code(s3.head_object, Bucket="data", Key="none"))
bearer = dict(RoleArn=ROLE, RoleSessionName="pod", WebIdentityToken="e30.e30.e30")
nobody = boto3.client("sts", config=Config(signature_version=__import__("botocore").UNSIGNED))
print(codes(session(nobody.assume_role_with_web_identity(**bearer)["Credentials"])))
from portaflow_conformance.emulators.endpoint import RemoteControl
RemoteControl().jump(1000)
print(codes(mine))
print(code(sts.assume_role, RoleArn="arn:aws:iam::123456789012:user/reader", RoleSessionName="xx"),
      code(nobody.assume_role_with_web_identity, **{{**bearer, "WebIdentityToken": "no-jwt"}}))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "arn:aws:iam::123456789012:user/portaflow",
            _FINE,
            "True arn:aws:sts::123456789012:assumed-role/reader/night",
            "1048576",
            "['a b/ü+']",
            "1048576",
            "404",
            _FINE,
            str(["ExpiredToken"] * 2 + ["ExpiredTokenException"] * 4),
            "ValidationError InvalidIdentityToken",
        ]
        assert "e30" not in repr(clouds.control.seen())


def test_wrong_keys_are_refused_by_their_codes(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{_SERVICES}
key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
print(codes(boto3.Session(key, "wrong")))
print(codes(boto3.Session("AKIANOBODYHASTHISKEY", secret)))
given = boto3.client("sts").assume_role(RoleArn=ROLE, RoleSessionName="x-1")["Credentials"]
print(codes(session({{**given, "SessionToken": "other"}})))
print(codes(session({{**given, "SecretAccessKey": "wrong"}})))
""",
            clouds.environ(),
            tmp_path,
        )
        signature = ["SignatureDoesNotMatch"] * 2 + ["InvalidSignatureException"] * 4
        unknown = ["InvalidClientTokenId"] + ["UnrecognizedClientException"] * 4
        assert out.splitlines() == [
            str(signature),
            str(["InvalidAccessKeyId", *unknown]),
            str(["InvalidToken", *unknown]),
            str(signature),
        ]
