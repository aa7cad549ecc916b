"""The store in S3, on the local AWS: the laws, and what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trustme")
pytest.importorskip("moto")

from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.manifest import MANIFEST

Run = Callable[..., Any]

_START = """
import json, os, time
from portaflow_aws.s3 import S3, Config
told = []
def said(call, *args, **kwargs):
    began = time.monotonic()
    try:
        call(*args, **kwargs)
    except Exception as error:
        assert time.monotonic() - began < 20, error
        return [type(error).__name__, str(error), getattr(error, "retryable", None)]
    return []
def fs(root="s3://mine/p", **settings):
    return S3(Config(root=root, **settings)).filesystem()
"""
_END = """
print("\\n" + json.dumps(told))
"""


@pytest.fixture(scope="module")
def clouds(local_aws: Clouds) -> Clouds:
    code = "import boto3; boto3.client('s3', region_name='us-east-1').create_bucket(Bucket='mine')"
    subprocess.run([sys.executable, "-c", code], env=local_aws.environ(), check=True)
    return local_aws


@pytest.fixture
def run(clouds: Clouds) -> Iterator[Run]:
    """Run code in a process with the cloud's environment; what it leaves in `told`."""

    def python(code: str, **env: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", _START + code + _END],
            env={**clouds.environ(), **env},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    yield python
    clouds.control.clear()


@pytest.mark.timeout(900)
def test_the_store_conforms(clouds: Clouds, tmp_path: Path) -> None:
    text = '[targets.t]\nstore = {backend = "s3", root = "s3://mine/conformance"}\n'
    (tmp_path / "portaflow.toml").write_text(text)
    command = [
        sys.executable, "-m", "pytest", "-p", "portaflow_conformance", "-p", "no:cacheprovider",
        "--target", "t", "--target-kind", "emulator", "--level", "L1", "--report", "reports",
    ]  # fmt: skip
    env = {k: v for k, v in clouds.environ().items() if not k.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    mine = {r["id"]: r["outcome"] for r in report["results"] if r["backend"] == "s3"}
    ours = [c for c in MANIFEST if c.area in ("plugin", "store") and not c.planned]
    assert mine.keys() >= {c.id for c in ours if c.level in ("L0", "L1")}
    assert set(mine.values()) == {"passed"}
    assert report["verdict"] == "conformant"


def test_a_bucket_that_is_not_there_is_named_with_the_way_to_make_it(run: Run) -> None:
    told = run("""
none = fs("s3://none/p")
told += [said(none.pipe_file, "s3://none/p/x", b""), said(none.ls, "s3://none/p")]
told += [said(none.cat_file, "s3://none/p/x")]
with_doctor = S3(Config(root="s3://none/p")).check()
told += [[one.ok, one.detail, one.fix] for one in with_doctor]
""")
    for kind, text, _ in told[:3]:
        assert kind == "RejectedError"
        assert text.startswith("s3://none/p")
        assert "NoSuchBucket" in text
        assert "aws s3 mb s3://none" in text
    ((ok, detail, fix),) = told[3:]
    assert not ok
    assert "NoSuchBucket" in detail
    assert fix.startswith("make it with `aws s3 mb s3://none`")


def test_who_may_not_do_it_is_told_which_right_is_missing(run: Run, clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="error", status=403, times=-1, operation="aws:s3.*"))
    told = run("""
one = fs()
calls = (one.cat_file, one.exists, one.ls, one.find, one.rm_file, lambda p: one.pipe_file(p, b""))
told += [said(call, "s3://mine/p/x") for call in calls]
""")
    for kind, text, _ in told:
        assert kind == "PermissionError"
        assert text.startswith("s3://mine/p/x: ")
        assert "s3:GetObject" in text


def test_what_is_throttled_for_long_may_be_asked_again_later(run: Run, clouds: Clouds) -> None:
    pattern = "aws:s3.GetObject"
    few = clouds.control.order(Fault(effect="throttle", times=2, operation=pattern))
    code = """
one = fs()
one.pipe_file("s3://mine/p/throttled", b"1")
told += [said(one.cat_file, "s3://mine/p/throttled")]
"""
    assert run(code) == [[]]
    assert few.hit == 2
    clouds.control.order(Fault(effect="throttle", times=-1, operation=pattern))
    ((kind, text, retryable),) = run(code)
    assert (kind, retryable) == ("UnavailableError", True)
    assert text.startswith("s3://mine/p/throttled: ")


def test_an_upload_whose_answers_are_lost_is_whole(run: Run, clouds: Clouds) -> None:
    lost = [
        clouds.control.order(Fault(effect=effect, operation=operation))
        for effect, operation in (
            ("reset-after", "aws:s3.UploadPart"),
            ("reset-before", "aws:s3.UploadPart"),
            ("reset-before", "aws:s3.GetObject"),
        )
    ]
    told = run("""
one, whole = fs(), os.urandom(21 * 2**20)
with one.open("s3://mine/p/lost", "wb", block_size=5 * 2**20) as stream:
    for at in range(0, len(whole), 10**6):
        stream.write(whole[at:at + 10**6])
told += [one.cat_file("s3://mine/p/lost") == whole]
with one.open("s3://mine/p/lost", "rb") as stream:
    told += [stream.read() == whole]
""")
    assert told == [True, True]
    assert [fault.hit for fault in lost] == [1] * len(lost)


def test_a_create_whose_answer_is_lost_is_not_taken_for_somebody_elses(
    run: Run, clouds: Clouds
) -> None:
    clouds.control.order(Fault(effect="reset-after", operation="aws:s3.PutObject"))
    told = run("""
one = fs()
path = "s3://mine/p/created"
told += [said(one.pipe_file, path, b"1", mode="create"), one.cat_file(path).decode()]
told += [said(one.pipe_file, path, b"2", mode="create"), one.cat_file(path).decode()]
""")
    assert (told[0][0], told[0][2], told[1]) == ("UnavailableError", True, "1")
    assert (told[2][0], told[3]) == ("FileExistsError", "1")


def test_an_upload_that_is_given_up_leaves_no_parts(run: Run, clouds: Clouds) -> None:
    before = clouds.control.count("aws:s3.AbortMultipartUpload")
    told = run("""
one = fs()
try:
    with one.open("s3://mine/p/given-up", "wb", block_size=5 * 2**20) as stream:
        stream.write(os.urandom(12 * 2**20))
        raise ZeroDivisionError
except ZeroDivisionError:
    told += [one.exists("s3://mine/p/given-up")]
""")
    assert told == [False]
    assert clouds.control.count("aws:s3.AbortMultipartUpload") == before + 1


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
