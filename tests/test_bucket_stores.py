"""The stores in buckets, each on its local cloud: the laws, and what they say when they cannot."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trustme")

from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Fault

from tests.beside import Run, beside
from tests.suite import outcomes


@dataclass(frozen=True)
class Kind:
    """A store, and what its provider calls things."""

    cloud: str
    backend: str
    scheme: str
    imports: str  # Store and Config
    make: str  # makes the bucket "mine"
    all: str
    get: str
    put: str
    lost: tuple[tuple[Any, str], ...]  # effects and operations of an upload and its reading
    ended: str
    given_up: str
    buckets_are_made: str
    right: str


S3 = Kind(
    cloud="aws",
    backend="s3",
    scheme="s3",
    imports="from portaflow_aws.s3 import S3 as Store, Config",
    make="import boto3; boto3.client('s3', region_name='us-east-1').create_bucket(Bucket='mine')",
    all="aws:s3.*",
    get="aws:s3.GetObject",
    put="aws:s3.PutObject",
    lost=(
        ("reset-after", "aws:s3.UploadPart"),
        ("reset-before", "aws:s3.UploadPart"),
        ("reset-before", "aws:s3.GetObject"),
    ),
    ended="aws:s3.CompleteMultipartUpload",
    given_up="aws:s3.AbortMultipartUpload",
    buckets_are_made="aws s3 mb s3://none",
    right="s3:GetObject",
)
GCS = Kind(
    cloud="gcp",
    backend="gcs",
    scheme="gs",
    imports="from portaflow_gcp.gcs import Gcs as Store, Config",
    make="from google.cloud import storage; storage.Client().create_bucket('mine')",
    all="gcp:storage.*",
    get="gcp:storage.objects.get",
    put="gcp:storage.objects.insert",
    lost=(
        ("reset-after", "gcp:storage.multipart.part"),
        ("die", "gcp:storage.multipart.part"),
        ("die", "gcp:storage.objects.get"),
    ),
    ended="gcp:storage.multipart.complete",
    given_up="gcp:storage.multipart.abort",
    buckets_are_made="gcloud storage buckets create gs://none",
    right="roles/storage.objectUser",
)

_START = """
{imports}
def fs(root="{scheme}://mine/p", **settings):
    return Store(Config(root=root, **settings)).filesystem()
one, mine = fs(), "{scheme}://mine/p"
"""


@pytest.fixture(scope="module", params=[S3, GCS], ids=lambda kind: kind.backend)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def clouds(kind: Kind) -> Iterator[Clouds]:
    with emulate(kind.cloud, pace=0.05) as clouds:
        subprocess.run([sys.executable, "-c", kind.make], env=clouds.environ(), check=True)
        yield clouds


@pytest.fixture
def run(kind: Kind, clouds: Clouds) -> Iterator[Run]:
    yield beside(clouds, _START.format(imports=kind.imports, scheme=kind.scheme))
    clouds.control.clear()


@pytest.mark.timeout(900)
def test_the_store_conforms(kind: Kind, clouds: Clouds, tmp_path: Path) -> None:
    root = f"{kind.scheme}://mine/conformance"
    text = f'[targets.t]\nstore = {{backend = "{kind.backend}", root = "{root}"}}\n'
    (tmp_path / "portaflow.toml").write_text(text)
    seen = outcomes(
        tmp_path, "t", kind.backend, "store", env=clouds.environ(), verdict="conformant"
    )
    assert set(seen.values()) == {"passed"}


def test_a_bucket_that_is_not_there_is_named_with_the_way_to_make_it(kind: Kind, run: Run) -> None:
    root = f"{kind.scheme}://none/p"
    told = run(f"""
none = fs("{root}")
told += [said(none.pipe_file, "{root}/x", b""), said(none.ls, "{root}")]
told += [said(none.cat_file, "{root}/x")]
told += [[one.ok, one.detail, one.fix] for one in Store(Config(root="{root}")).check()]
""")
    for error, text, _ in told[:3]:
        assert error == "RejectedError"
        assert text.startswith(root)
        assert "NoSuchBucket" in text
        assert kind.buckets_are_made in text
    ((ok, detail, fix),) = told[3:]
    assert not ok
    assert "NoSuchBucket" in detail
    assert fix.startswith(f"make it with `{kind.buckets_are_made}`")


def test_who_may_not_do_it_is_told_which_right_is_missing(
    kind: Kind, run: Run, clouds: Clouds
) -> None:
    clouds.control.order(Fault(effect="error", status=403, times=-1, operation=kind.all))
    told = run("""
calls = (one.cat_file, one.exists, one.ls, one.find, one.rm_file, lambda p: one.pipe_file(p, b""))
told += [said(call, f"{mine}/x") for call in calls]
""")
    for error, text, _ in told:
        assert error == "PermissionError"
        assert text.startswith(f"{kind.scheme}://mine/p/x: ")
        assert kind.right in text


def test_what_is_throttled_for_long_may_be_asked_again_later(
    kind: Kind, run: Run, clouds: Clouds
) -> None:
    few = clouds.control.order(Fault(effect="throttle", times=2, operation=kind.get))
    code = """
one.pipe_file(f"{mine}/throttled", b"1")
told += [said(one.cat_file, f"{mine}/throttled")]
"""
    assert run(code) == [[]]
    assert few.hit == 2
    clouds.control.order(Fault(effect="throttle", times=-1, operation=kind.get))
    ((error, text, retryable),) = run(code)
    assert (error, retryable) == ("UnavailableError", True)
    assert text.startswith(f"{kind.scheme}://mine/p/throttled: ")


def test_an_upload_whose_answers_are_lost_is_whole(kind: Kind, run: Run, clouds: Clouds) -> None:
    faults = [Fault(effect=effect, operation=call) for effect, call in kind.lost]
    lost = [clouds.control.order(fault) for fault in faults]
    told = run("""
whole = os.urandom(21 * 2**20)
with one.open(f"{mine}/lost", "wb", block_size=5 * 2**20) as stream:
    for at in range(0, len(whole), 10**6):
        stream.write(whole[at:at + 10**6])
told += [one.cat_file(f"{mine}/lost") == whole]
with one.open(f"{mine}/lost", "rb") as stream:
    told += [stream.read() == whole]
""")
    assert told == [True, True]
    assert [fault.hit for fault in lost] == [1] * len(lost)


def test_an_upload_whose_end_is_not_answered_may_be_written_again(
    kind: Kind, run: Run, clouds: Clouds
) -> None:
    """S3 answers the same again. For GCS the upload is no more, and nobody knows why."""
    lost = [
        clouds.control.order(Fault(effect="reset-after", operation=kind.ended, skip=skip))
        for skip in (0, 1)  # each is asked for once more
    ]
    told = run("""
whole, path = os.urandom(12 * 2**20), f"{mine}/ended"
def streamed():
    with one.open(path, "wb") as stream:
        stream.write(whole)
for write in (streamed, lambda: one.pipe_file(path, whole)):
    told += [said(write), one.cat_file(path) == whole]
write()
""")
    assert [told[1], told[3]] == [True, True]
    for error in (told[0], told[2]):
        if kind is S3:
            assert error == []
        else:
            assert (error[0], error[2]) == ("UnavailableError", True), told
            assert error[1].startswith("gs://mine/p/ended: NoSuchUpload")
    assert [fault.hit for fault in lost] == [1, 1]


def test_a_create_whose_answer_is_lost_is_not_taken_for_somebody_elses(
    kind: Kind, run: Run, clouds: Clouds
) -> None:
    clouds.control.order(Fault(effect="reset-after", operation=kind.put))
    told = run("""
path = f"{mine}/created"
told += [said(one.pipe_file, path, b"1", mode="create"), one.cat_file(path).decode()]
told += [said(one.pipe_file, path, b"2", mode="create"), one.cat_file(path).decode()]
""")
    assert (told[0][0], told[0][2], told[1]) == ("UnavailableError", True, "1")
    assert (told[2][0], told[3]) == ("FileExistsError", "1")


def test_an_upload_that_is_given_up_leaves_no_parts(kind: Kind, run: Run, clouds: Clouds) -> None:
    before = clouds.control.count(kind.given_up)
    told = run("""
try:
    with one.open(f"{mine}/given-up", "wb", block_size=5 * 2**20) as stream:
        stream.write(os.urandom(12 * 2**20))
        raise ZeroDivisionError
except ZeroDivisionError:
    told += [one.exists(f"{mine}/given-up")]
""")
    assert told == [False]
    assert clouds.control.count(kind.given_up) == before + 1
