"""S3 as an unmodified boto3 sees it: streamed, logged, struck by faults, listed late."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("boto3")

from portaflow_conformance.emulators.aws.seaweed import Seaweed
from portaflow_conformance.emulators.aws.shop import S3A, Shop, Store
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.emulators.spark import Spark

from .aws_client import make_ready, python
from .frame import Left, Start, until

_CLIENT = """
import hashlib, io
from botocore.config import Config
from boto3.s3.transfer import TransferConfig
s3 = boto3.client("s3")
s3.create_bucket(Bucket="data")
def keys(**params):
    told = s3.list_objects_v2(Bucket="data", **params)
    found = [o["Key"] for o in told.get("Contents", [])]
    assert len(found) == told["KeyCount"], told
    return found
"""

_READ = """
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
print(len(spark.read.text("s3://data/in").collect()[0][0]))
"""


def test_calls_are_logged_by_name_and_large_bodies_are_whole(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{_CLIENT}
import os, requests, urllib.request
whole = os.urandom(2**20) * 24
parts = TransferConfig(multipart_threshold=8 * 2**20, multipart_chunksize=8 * 2**20)
s3.upload_fileobj(io.BytesIO(whole), "data", "gröss er/a+b", Config=parts)
back = io.BytesIO()
s3.download_fileobj("data", "gröss er/a+b", back, Config=parts)
print(hashlib.sha256(back.getvalue()).digest() == hashlib.sha256(whole).digest())
s3.put_object(Bucket="data", Key="one", Body=whole[:5])
s3.copy_object(Bucket="data", Key="two", CopySource="data/one")
print(s3.get_object(Bucket="data", Key="two", Range="bytes=1-3")["Body"].read() == whole[1:4])
print(code(s3.put_object, Bucket="data", Key="one", Body=b"no", IfNoneMatch="*"))
print(code(s3.get_object, Bucket="data", Key="none"), code(s3.head_object, Bucket="data", Key="n"))
print(code(boto3.client("s3", aws_secret_access_key="wrong",
           aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"]).put_object,
           Bucket="data", Key="no", Body=whole))
v4 = boto3.client("s3", config=Config(signature_version="s3v4"))
url = v4.generate_presigned_url("get_object", Params={{"Bucket": "data", "Key": "one"}})
print(urllib.request.urlopen(url).read() == whole[:5])
bad = boto3.client("s3", aws_secret_access_key="wrong", config=v4.meta.config,
                   aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"])
bad = bad.generate_presigned_url("put_object", Params={{"Bucket": "data", "Key": "no"}})
print([requests.put(bad, data=whole).status_code for _ in range(3)])
told = s3.delete_objects(Bucket="data", Delete={{"Objects": [{{"Key": "one"}}, {{"Key": "two"}}]}})
print(len(told["Deleted"]), keys())
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "True",
            "True",
            "PreconditionFailed",
            "NoSuchKey 404",
            "SignatureDoesNotMatch",
            "True",
            "[403, 403, 403]",
            "2 ['gröss er/a+b']",
        ]
        count = clouds.control.count
        assert count("aws:s3.UploadPart") == 3
        for name in ("CreateMultipartUpload", "CompleteMultipartUpload", "CopyObject"):
            assert count(f"aws:s3.{name}") == 1, name
        for name in ("CreateBucket", "DeleteObjects", "ListObjectsV2"):
            assert count(f"aws:s3.{name}") == 1, name
        (made,) = clouds.control.seen("aws:s3.CreateMultipartUpload")
        assert made.params["Key"] == "gröss er/a+b"
        assert {call.principal for call in clouds.control.seen("aws:s3.*")} == {
            clouds.env["AWS_ACCESS_KEY_ID"]
        }


def test_faults_strike_and_a_lost_answer_has_had_its_effect(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        order = clouds.control.order
        faults = [
            order(Fault(effect="throttle", operation="aws:s3.PutObject")),
            order(Fault(effect="error", operation="aws:s3.GetObject", status=503)),
            order(Fault(effect="reset-before", operation="aws:s3.HeadObject")),
            order(Fault(effect="latency", operation="aws:s3.ListObjectsV2", seconds=0.5)),
        ]
        lost = order(Fault(effect="reset-after", operation="aws:s3.PutObject"))
        out = python(
            f"""{_CLIENT}
print(code(s3.put_object, Bucket="data", Key="one", Body=b"1" * 2**20, IfNoneMatch="*"))
print(s3.head_object(Bucket="data", Key="one")["ContentLength"])
print(len(s3.get_object(Bucket="data", Key="one")["Body"].read()))
begin = time.monotonic()
print(keys(), time.monotonic() - begin > 0.5)
""",
            clouds.environ(),
            tmp_path,
        )
        # The client has written, lost the answer, asked again, and been told that it is there.
        assert out.splitlines() == ["PreconditionFailed", "1048576", "1048576", "['one'] True"]
        assert [fault.hit for fault in (*faults, lost)] == [1, 1, 1, 1, 1]
        assert clouds.control.count("aws:s3.PutObject") == 3


def test_a_new_object_can_be_listed_late(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        hide = Fault(effect="hide", operation="aws:s3.PutObject", skip=1, times=1, seconds=2)
        clouds.control.order(hide)
        out = python(
            f"""{_CLIENT}
for key in ("a", "b & c/d", "e"):
    s3.put_object(Bucket="data", Key=key, Body=b"x")
print(keys(), s3.get_object(Bucket="data", Key="b & c/d")["Body"].read())
print([o["Key"] for o in s3.list_objects(Bucket="data")["Contents"]])
until(lambda: "b & c/d" in keys(), True)
print(keys())
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "['a', 'e'] b'x'",
            "['a', 'e']",
            "['a', 'b & c/d', 'e']",
        ]


def test_a_bucket_is_at_the_address_of_its_region(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{_CLIENT}
import requests
eu, us = (boto3.client("s3", region_name=name) for name in ("eu-west-1", "us-east-2"))
there = {{"CreateBucketConfiguration": {{"LocationConstraint": "eu-west-1"}}}}
print(code(eu.create_bucket, Bucket="no"), code(us.create_bucket, Bucket="no", **there))
s3.create_bucket(Bucket="far", **there)
told = requests.get("https://far.s3.us-east-2.amazonaws.com/x", allow_redirects=False)
print(told.status_code, told.headers["x-amz-bucket-region"], "Location" in told.headers)
print("<Code>PermanentRedirect</Code>" in told.text,
      "<Endpoint>far.s3.eu-west-1.amazonaws.com</Endpoint>" in told.text)
for one in (us, s3):  # at another address, and at that of all regions: clients find the way
    print(one.put_object(Bucket="far", Key="x", Body=b"12")["ResponseMetadata"]["HTTPStatusCode"],
          one.head_bucket(Bucket="far")["BucketRegion"],
          one.get_bucket_location(Bucket="far")["LocationConstraint"])
print(eu.get_bucket_location(Bucket="data")["LocationConstraint"], code(us.get_object, Bucket="far",
      Key="none"), code(us.list_objects_v2, Bucket="none"))
s3.delete_object(Bucket="far", Key="x")
s3.delete_bucket(Bucket="far")
us = boto3.client("s3", region_name="us-east-2")  # one that has not learnt where it was
us.create_bucket(Bucket="far", CreateBucketConfiguration={{"LocationConstraint": "us-east-2"}})
print(us.head_bucket(Bucket="far")["BucketRegion"])
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            " ".join(["IllegalLocationConstraintException"] * 2),
            "301 eu-west-1 False",
            "True True",
            *["200 eu-west-1 eu-west-1"] * 2,
            "None NoSuchKey NoSuchBucket",
            "us-east-2",
        ]
        assert clouds.control.count("aws:s3.PutObject") == 4  # each is asked for twice


@pytest.mark.spark
def test_what_spark_reads_is_logged_and_struck(tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    make_ready()
    script, out, err = tmp_path / "read.py", tmp_path / "out", tmp_path / "err"
    script.write_text(_READ, "utf-8")
    with emulate("aws", pace=0) as clouds:
        put = 's3.put_object(Bucket="data", Key="in/a.txt", Body=b"x" * 100)'
        python(_CLIENT + put, clouds.environ(), tmp_path)
        slow = clouds.control.order(Fault(effect="throttle", operation="aws:s3.GetObject", times=2))
        conf = Shop(tmp_path, clouds.control, 0, Store(0, "", ""), clouds.env).spark_conf()
        running = Spark(S3A).run(
            [str(script)], tmp_path, conf=conf, env=clouds.env, stdout=out, stderr=err
        )
        assert running.wait(120) == 0, err.read_text()
        assert out.read_text() == "100\n"
        assert slow.hit == 2
        read = [call.params["Key"] for call in clouds.control.seen("aws:s3.GetObject")]
        assert read == ["in/a.txt"] * 3


def test_the_store_starts_in_a_deep_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / "s3"  # a socket's path must have less than 108 bytes
    told: list[Path] = []
    store = Seaweed(folder, ["s3.amazonaws.com"], "key", "secret", told.append)
    try:
        store.wait()
        assert set(_sockets(_weed(folder))) - set(told) == set()
    finally:
        store.stop()
        for path in told:
            path.unlink(missing_ok=True)


def test_a_kill_leaves_no_socket_of_the_store(start: Start, left: Left) -> None:
    one = start("aws", "--json")
    one.environment()
    (weed,) = (
        thing.partition(":")[0]
        for thing in left()
        if "weed mini" in thing and "/bin/sh" not in thing
    )
    sockets = until(
        lambda: len(found := _sockets(weed)) == 5 and found, "all its sockets are there"
    )
    one.child.kill()
    until(lambda: not left(), f"all is gone, of {left()}")
    until(lambda: not [path for path in sockets if path.exists()], "so are the sockets")


def _sockets(pid: str) -> list[Path]:
    """What there is in /tmp that a process listens at."""
    lines = [line.split() for line in Path(f"/proc/{pid}/net/unix").read_text().splitlines()]
    held = set()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            held.add(os.readlink(file))
    found = {Path(line[7]) for line in lines if f"socket:[{line[6]}]" in held and len(line) > 7}
    return [path for path in found if path.parent == Path("/tmp")]


def _weed(folder: Path) -> str:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"-dir={folder}" in path.read_text() and "sh\0-c" not in path.read_text():
                return path.parent.name
    raise AssertionError("weed does not run")
