"""What is of S3 alone, on the local AWS: keys, regions. The laws: tests/test_bucket_stores.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("trustme")

from portaflow_conformance.emulators.clouds import Clouds

from tests.beside import Run, beside

_START = """
from portaflow_aws.s3 import S3, Config
def fs(root="s3://mine/p", **settings):
    return S3(Config(root=root, **settings)).filesystem()
"""


@pytest.fixture(scope="module")
def clouds(local_aws: Clouds) -> Clouds:
    code = "import boto3; boto3.client('s3', region_name='us-east-1').create_bucket(Bucket='mine')"
    subprocess.run([sys.executable, "-c", code], env=local_aws.environ(), check=True)
    return local_aws


@pytest.fixture
def run(clouds: Clouds) -> Iterator[Run]:
    yield beside(clouds, _START)
    clouds.control.clear()


def test_keys_that_are_refused_say_what_to_do(run: Run) -> None:
    told = run(
        """
one = fs()
calls = (one.cat_file, one.ls, one.rm_file, lambda p: one.pipe_file(p, b""))
told += [said(call, "s3://mine/p/x") for call in calls]
""",
        AWS_SECRET_ACCESS_KEY="of-somebody-else",
    )
    for kind, text, _ in told:
        assert kind == "PermissionError"
        assert text.startswith("s3://mine/p/x: SignatureDoesNotMatch: ")
        assert "set AWS_PROFILE" in text
        assert "of-somebody-else" not in text


def test_without_credentials_it_says_how_to_get_them(run: Run) -> None:
    told = run("""
del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
told += [said(fs().cat_file, "s3://mine/p/x"), said(fs(profile="nobody").ls, "s3://mine/p")]
told += [said(fs(connection="mine").ls, "s3://mine/p")]
""")
    kinds = [one[0] for one in told]
    assert kinds == ["DeniedError", "DeniedError", "RejectedError"]
    assert "s3://mine: there are no credentials; name a `profile`" in told[0][1]
    assert "nobody" in told[1][1]
    assert "correct `profile` in the target" in told[1][1]
    assert "pip install apache-airflow-providers-amazon" in told[2][1]


def test_a_region_that_is_none_is_named(run: Run) -> None:
    told = run("""
told += [said(fs(region="no region").ls, "s3://mine/p")]
told += [said(fs(region="mars-1").ls, "s3://mine/p")]
""")
    assert told[0][0] == "RejectedError"
    assert "'no region'" in told[0][1]
    assert (told[1][0], told[1][2]) == ("UnavailableError", True)
    assert "mars-1" in told[1][1]
    assert "whether the target's `region` is one of AWS" in told[1][1]


def test_the_region_of_a_bucket_is_told_when_it_is_another(run: Run) -> None:
    told = run("""
import boto3
there = {"LocationConstraint": "eu-west-1"}
boto3.client("s3").create_bucket(Bucket="far", CreateBucketConfiguration=there)
one, at = fs("s3://far/p"), "s3://far/p/x"
for call in (one.cat_file, one.ls, one.rm_file, lambda p: one.pipe_file(p, b"1"), one.exists):
    told += [said(call, at)]
told += [said(fs("s3://far/p", region="eu-west-1").pipe_file, at, b"2")]
os.environ["AWS_SECRET_ACCESS_KEY"] = "of-somebody-else"
told += [said(fs("s3://far/p").ls, at)]
""")
    wrong = "s3://far/p/x: its bucket is in another region, eu-west-1; set the `region` of"
    for kind, text, again in [*told[:5], told[6]]:
        assert (kind, again) == ("RejectedError", False)
        assert text.startswith(wrong)
    assert told[5] == []


def test_settings_are_for_jobs_and_hold_no_secret() -> None:
    from portaflow_aws.s3 import S3, Config

    store = S3(Config(root="s3://mine/p", region="eu-west-1", profile="mine"))
    assert store.url("a/b") == "s3://mine/p/a/b"
    assert store.spark_conf() == {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.AbstractFileSystem.s3.impl": "org.apache.hadoop.fs.s3a.S3A",
        "spark.hadoop.fs.s3a.endpoint.region": "eu-west-1",
    }
    assert store.container_env() == {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}
