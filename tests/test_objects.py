"""The filesystem over obstore, where a cloud would answer otherwise or something goes wrong.

The laws of a store are checked by the conformance suite, on each plugin's own.
"""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.exceptions import GenericError, PermissionDeniedError, UnauthenticatedError
from obstore.store import MemoryStore

from portaflow.bucket import Advice, Bucket
from portaflow.errors import BackendError, RejectedError, TargetError, UnavailableError
from portaflow.objects import ObjectFileSystem
from portaflow.refusals import refused

ADVICE = Advice(
    credentials="log in",
    rights="give rights",
    missing="make {bucket}",
    region="set the region",
    unreachable="look at the network",
)


@dataclass(frozen=True, kw_only=True)
class Config:
    root: str = "mem://bucket/prefix"


class Memory(Bucket):
    name = "memory"
    scheme = "mem"
    advice = ADVICE
    Config = Config

    def __init__(self, config: Config, make: Callable[[str], Any] | None = None) -> None:
        super().__init__(config)
        self._kept: dict[str, Any] = {}
        self._make = make or (lambda bucket: MemoryStore())

    def store(self, bucket: str) -> Any:
        return self._kept.setdefault(bucket, self._make(bucket))


@pytest.fixture
def bucket() -> Memory:
    return Memory(Config())


@pytest.fixture
def fs(bucket: Memory) -> ObjectFileSystem:
    return bucket.filesystem()


@pytest.mark.parametrize("key", ["a//b", "a/./b", "a/../b", "/a", "a/", ""])
def test_a_key_that_would_become_another_is_refused(fs: ObjectFileSystem, key: str) -> None:
    with pytest.raises(ValueError, match="a key has no"):
        fs.pipe_file(f"mem://bucket/{key}", b"1")
    with pytest.raises(ValueError, match="a key has no"):
        fs.open(f"mem://bucket/{key}", "wb")
    assert fs.find("mem://bucket") == []


def test_what_a_glob_would_take_for_a_pattern_is_a_key(fs: ObjectFileSystem) -> None:
    for key in ("a[1]*?", "a1x", "mem:x"):
        fs.pipe_file(f"mem://bucket/{key}", key.encode())
    fs.rm("mem://bucket/a[1]*?")
    assert fs.find("mem://bucket") == ["bucket/a1x", "bucket/mem:x"]
    assert fs.cat_file("bucket/mem:x") == b"mem:x"
    assert fs.unstrip_protocol("bucket/a1x") == "mem://bucket/a1x"


def test_the_marker_of_a_folder_is_not_listed_in_it(bucket: Memory, fs: ObjectFileSystem) -> None:
    fs.pipe_file("mem://bucket/out", b"")  # so obstore shows `out/`, which Spark may write
    fs.pipe_file("mem://bucket/out/part", b"1")
    found = fs.find("mem://bucket/out", detail=True)
    assert {name: one["size"] for name, one in found.items()} == {"bucket/out/part": 1}
    assert fs.ls("mem://bucket/out", detail=False) == ["bucket/out/part"]


@pytest.mark.parametrize("key", ["NoSuchBucket", "NoSuchUpload"])
def test_a_key_that_is_named_like_an_error_is_missing_like_others(
    fs: ObjectFileSystem, key: str
) -> None:
    with pytest.raises(FileNotFoundError, match=f"mem://bucket/{key}"):
        fs.cat_file(f"mem://bucket/{key}")


def test_an_object_alone_is_found_under_its_own_name(fs: ObjectFileSystem) -> None:
    fs.pipe_file("mem://bucket/a", b"12")
    assert fs.find("mem://bucket/a") == ["bucket/a"]
    assert fs.ls("mem://bucket/a")[0]["size"] == 2
    assert fs.isfile("mem://bucket/a")
    assert not fs.isdir("mem://bucket/a")
    assert fs.info("mem://bucket")["type"] == "directory"


def test_a_reader_sees_one_version_or_says_so(fs: ObjectFileSystem) -> None:
    fs.pipe_file("mem://bucket/a", b"0123456789")
    with fs.open("mem://bucket/a", "rb", block_size=4) as stream:
        assert stream.read(4) == b"0123"
        stream.seek(-2, 2)
        assert (stream.read(), stream.tell(), stream.read()) == (b"89", 10, b"")
    with pytest.raises(FileNotFoundError, match="mem://bucket/none"):
        fs.open("mem://bucket/none", "rb")
    with fs.open("mem://bucket/a", "rb", block_size=4) as stream:
        assert stream.read(2) == b"01"
        stream.seek(7)
        fs.pipe_file("mem://bucket/a", b"abcdefghij")
        with pytest.raises(BackendError, match="mem://bucket/a"):
            stream.read(2)


class Counting(MemoryStore):  # type: ignore[misc]
    """Counts the requests for contents."""

    got = 0

    def get(self, path: str, **more: Any) -> Any:
        self.got += 1
        return obstore.get(self, path, **more)


def test_a_read_that_failed_may_be_tried_again(fs: ObjectFileSystem) -> None:
    whole = bytes(range(256)) * 2**10

    def breaks() -> Iterator[bytes]:
        yield whole[:40_000]
        raise ConnectionResetError

    fs.pipe_file("mem://bucket/o", whole)
    with fs.open("mem://bucket/o", "rb", block_size=2**16) as file:
        file.raw._stream = breaks()
        with pytest.raises(ConnectionResetError):
            file.read(2**16)
        assert file.read() == whole


def test_who_reads_an_object_gets_it_by_one_request() -> None:
    store = Counting()
    fs = Memory(Config(), lambda bucket: store).filesystem()
    whole = bytes(range(256)) * 400
    fs.pipe_file("mem://bucket/a", whole)
    with fs.open("mem://bucket/a", "rb", block_size=1000) as stream:
        assert b"".join(iter(lambda: stream.read(300), b"")) == whole
        assert store.got == 1
        for at in (90_000, 5, 50_000):  # and who jumps to and fro gets what he asks for
            stream.seek(at)
            assert stream.read(10) == whole[at : at + 10]
        assert store.got == 4
        assert stream.read() == whole[50_010:]
        assert store.got == 5
    with fs.open("mem://bucket/a", "rb") as stream:
        assert stream.read() == whole
    assert store.got == 6


@pytest.mark.parametrize("size", [3, 12 * 2**20])
def test_a_writer_that_is_let_go_of_writes_nothing(fs: ObjectFileSystem, size: int) -> None:
    stream = fs.open("mem://bucket/a", "wb")
    stream.write(b"x" * size)
    del stream
    assert fs.find("mem://bucket") == []


def test_a_buffer_may_be_used_again_as_soon_as_it_is_written(fs: ObjectFileSystem) -> None:
    """`io.BufferedWriter` hands out views of a buffer of its own."""
    whole = bytes(range(256)) * 4 * 2**10
    with io.BufferedWriter(fs.open("mem://bucket/o", "wb"), 2**16) as file:
        for start in range(0, len(whole), 1000):
            file.write(whole[start : start + 1000])
    assert fs.cat_file("mem://bucket/o") == whole


def test_files_of_this_machine_go_and_come(fs: ObjectFileSystem, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1" * 100)
    fs.put_file(tmp_path / "a", "mem://bucket/a")
    fs.put_file(tmp_path, "mem://bucket/folder")
    fs.get_file("mem://bucket/a", tmp_path / "new" / "a")
    with (tmp_path / "b").open("wb") as stream:
        fs.get_file("mem://bucket/a", stream)
    assert (tmp_path / "new" / "a").read_bytes() == (tmp_path / "b").read_bytes() == b"1" * 100
    fs.cp_file("mem://bucket/a", "mem://other/a")
    assert fs.cat_file("mem://other/a") == b"1" * 100
    assert fs.find("mem://bucket") == ["bucket/a"]


class Racing(MemoryStore):  # type: ignore[misc]
    """Says once that a key is gone which was listed, as GCS does when somebody was faster."""

    lost = False

    def delete(self, paths: Any) -> None:
        if not self.lost:
            self.lost = True
            obstore.delete(self, paths[0])
            raise FileNotFoundError(paths[0])
        obstore.delete(self, paths)


def test_a_prefix_is_removed_though_somebody_else_does_it_too() -> None:
    fs = Memory(Config(), lambda bucket: Racing()).filesystem()
    for number in range(5):
        fs.pipe_file(f"mem://bucket/a/{number}", b"")
    fs.rm("mem://bucket/a", recursive=True)
    assert fs.find("mem://bucket") == []


class Shut(MemoryStore):  # type: ignore[misc]
    """Refuses everything."""

    def head(self, path: str, **more: Any) -> Any:
        raise PermissionDeniedError("status code: 403 Forbidden: ")

    put = list = get = head

    def list_with_delimiter(self, prefix: Any) -> Any:
        raise GenericError("404: <Code>NoSuchBucket</Code><Message>no.</Message>")


def test_what_may_not_be_seen_is_not_missing() -> None:
    fs = Memory(Config(), lambda bucket: Shut()).filesystem()
    for ask in (fs.exists, fs.isfile, fs.isdir, fs.find, fs.cat_file):
        with pytest.raises(PermissionError, match=r"mem://bucket/a: 403 Forbidden; give rights"):
            ask("mem://bucket/a")


def test_doctor_does_what_a_run_does_and_leaves_nothing(bucket: Memory) -> None:
    found = {one.what: one.ok for one in bucket.check()}
    assert found == {f"{v} mem://bucket/prefix": True for v in ("list", "write", "read", "delete")}
    assert bucket.filesystem().find("mem://bucket") == []


def test_doctor_names_the_fix() -> None:
    (one,) = Memory(Config(), lambda bucket: Shut()).check()
    assert (one.ok, one.fix) == (False, "make bucket")
    assert (one.what, one.detail) == ("list mem://bucket/prefix", "NoSuchBucket: no.")


@pytest.mark.parametrize(
    "root", ["mem://", "mem://B", "s3://bucket", "bucket/a", "mem://bucket//a"]
)
def test_a_root_that_is_none_is_refused(root: str) -> None:
    with pytest.raises(TargetError, match=r'write it as root = "mem://bucket/prefix"'):
        Memory(Config(root=root))


def test_urls_are_below_the_root() -> None:
    assert Memory(Config(root="mem://bucket/")).url("a/b") == "mem://bucket/a/b"
    assert Memory(Config(root="mem://bucket/p q/")).url("a") == "mem://bucket/p q/a"


SAID = "Error performing GET https://x in 1ms - Server returned non-2xx status code: "


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (
            GenericError(SAID + "404 Not Found: <Code>NoSuchBucket</Code>\n<Message>m</Message>"),
            *(RejectedError, "s3://b/k: NoSuchBucket: m; make b"),
        ),
        (
            GenericError(
                SAID + "400 Bad Request: <Code>AuthorizationHeaderMalformed</Code><Message>"
                "the region 'a' is wrong; expecting 'b'</Message>\n\nDebug source:\nKEY"
            ),
            RejectedError,
            "s3://b/k: AuthorizationHeaderMalformed: the region 'a' is wrong; expecting 'b'; "
            "set the region",
        ),
        (
            GenericError(
                "Received redirect without LOCATION, this normally indicates an incorrectly "
                "configured region"
            ),
            RejectedError,
            "s3://b/k: Received redirect without LOCATION, this normally indicates an incorrectly "
            "configured region; set the region",
        ),
        (
            PermissionDeniedError(
                SAID + "403 Forbidden: <Code>InvalidAccessKeyId</Code><Message>m</Message>"
            ),
            *(PermissionError, "s3://b/k: InvalidAccessKeyId: m; log in"),
        ),
        (
            UnauthenticatedError(
                "lacked valid authentication credentials for path External GCP credential "
                "provider: RefreshError: no\n\nDebug source: KEY"
            ),
            *(PermissionError, "s3://b/k: RefreshError: no; log in"),
        ),
        (
            PermissionDeniedError(SAID + "403 Forbidden: "),
            *(PermissionError, "s3://b/k: 403 Forbidden; give rights"),
        ),
        (
            GenericError(SAID + "403 Forbidden: <Code>AccessDenied</Code><Message>m</Message>"),
            *(PermissionError, "s3://b/k: AccessDenied: m; give rights"),
        ),
        (
            GenericError(SAID + "503 Service Unavailable: "),
            *(UnavailableError, "s3://b/k: 503 Service Unavailable"),
        ),
        (
            GenericError(SAID + "429 Too Many Requests: "),
            *(UnavailableError, "s3://b/k: 429 Too Many Requests"),
        ),
        (
            GenericError("S3: request failed for key a: Access Denied (code: AccessDenied)"),
            PermissionError,
            "s3://b/k: S3: request failed for key a: Access Denied (code: AccessDenied); "
            "give rights",
        ),
        (
            GenericError("S3: request failed for key a: Reduce your rate (code: SlowDown)"),
            *(
                UnavailableError,
                "s3://b/k: S3: request failed for key a: Reduce your rate (code: SlowDown)",
            ),
        ),
        (GenericError(SAID + "400 Bad Request: "), RejectedError, "s3://b/k: 400 Bad Request"),
        (
            GenericError("HTTP error: error sending request"),
            *(UnavailableError, "s3://b/k: HTTP error: error sending request; look at the network"),
        ),
    ],
)
def test_an_error_is_ours_and_says_what_helps(
    error: Exception, kind: type[Exception], told: str
) -> None:
    made = refused("s3://b/k", error, ADVICE, lambda bucket: "")
    assert (type(made), str(made)) == (kind, told)


def test_a_bucket_elsewhere_is_told_with_its_region() -> None:
    error = GenericError("this normally indicates an incorrectly configured region")
    made = refused("s3://b/k", error, ADVICE, lambda bucket: f"the region of {bucket}")
    told = "s3://b/k: its bucket is in another region, the region of b; set the region"
    assert str(made) == told


def test_nothing_is_imported_before_a_store_is_used() -> None:
    code = (
        "import sys; from portaflow.bucket import Bucket\n"
        "class B(Bucket):\n"
        "    scheme, store = 's3', None\n"
        "    advice = None\n"
        "B.__abstractmethods__ = frozenset()\n"
        "B(type('C', (), {'root': 's3://bucket'})).filesystem()\n"
        "sys.exit('obstore' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
