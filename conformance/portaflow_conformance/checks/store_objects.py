"""L1, store: what is written is what is read, whole or not at all."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from portaflow import data
from portaflow.backend import Capability
from portaflow.errors import BackendError
from portaflow.plan import Action

from ..subject import Subject, expect

_PART = 5 * 2**20  # bytes: the smallest part of a multipart upload
_TYPED = (OSError, ValueError, BackendError)


def put_get_sizes(subject: Subject) -> None:
    """Nothing, one byte, around a part, and 64 MiB come back as they went."""
    fs, prefix = subject.fs, subject.prefix()
    for size in (0, 1, _PART - 1, _PART, _PART + 1, 64 * 2**20):
        sent = _pattern(size)
        fs.pipe_file(f"{prefix}/{size}", sent)
        _same(fs.cat_file(f"{prefix}/{size}"), sent, f"{size} bytes")


def empty_object(subject: Subject) -> None:
    """An empty object exists, is listed, and has no bytes."""
    fs, prefix = subject.fs, subject.prefix()
    fs.pipe_file(f"{prefix}/empty", b"")
    with fs.open(f"{prefix}/written", "wb"):
        pass
    for key in ("empty", "written"):
        expect(fs.exists(f"{prefix}/{key}"), f"an empty object ({key}) does not exist")
        expect(fs.cat_file(f"{prefix}/{key}") == b"", f"an empty object ({key}) has bytes")
    expect(len(fs.find(prefix)) == 2, f"two empty objects are listed as {fs.find(prefix)}")


def overwrite_shorter(subject: Subject) -> None:
    """No tail of the old object is left."""
    fs, key = subject.fs, subject.prefix() + "/k"
    fs.pipe_file(key, b"a long value that was there before")
    fs.pipe_file(key, b"short")
    expect(fs.cat_file(key) == b"short", f"'short' was written, {fs.cat_file(key)!r} is read")
    expect(fs.size(key) == 5, f"5 bytes were written, the size is {fs.size(key)}")


def overwrite_atomic(subject: Subject) -> None:
    """Readers see the old object or the new one, never a part or nothing."""
    fs, key = subject.fs, subject.prefix() + "/k"
    values = [bytes([n]) * (2**20 + n) for n in (1, 2)]
    fs.pipe_file(key, values[0])
    over = threading.Event()

    def read() -> set[bytes]:
        seen: set[bytes] = set()
        while not over.is_set():
            seen.add(fs.cat_file(key))
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for n in range(60):
                fs.pipe_file(key, values[n % 2])
        finally:
            over.set()
        seen = set().union(*(r.result() for r in readers))
    torn = [len(s) for s in seen - set(values)]
    expect(not torn, f"readers saw objects of {torn} bytes while one was overwritten")


def concurrent_writers(subject: Subject) -> None:
    """Of many writers of one key one wins whole."""
    key = subject.prefix() + "/k"
    values = [bytes([n]) * (300_000 + n) for n in range(8)]
    writers = [subject.other_fs() for _ in values]
    _together(lambda n: writers[n].pipe_file(key, values[n]), range(8))
    expect(subject.fs.cat_file(key) in values, "the object is a mixture of what several wrote")


def read_after_write_new_client(subject: Subject) -> None:
    """Another client reads at once what was written, and what was written over it."""
    key = subject.prefix() + "/k"
    for value in (b"first", b"second"):
        subject.fs.pipe_file(key, value)
        seen = subject.other_fs().cat_file(key)
        expect(seen == value, f"{value!r} was written, another client reads {seen!r}")


def external_write_visible(subject: Subject) -> None:
    """A client that has listed sees what another process writes later."""
    fs, prefix = subject.fs, subject.prefix()
    fs.pipe_file(f"{prefix}/mine", b"1")
    fs.find(prefix)
    fs.ls(prefix)
    fs.exists(f"{prefix}/theirs")
    subject.elsewhere("put", url=f"{prefix}/theirs", data=b"2")
    expect(fs.exists(f"{prefix}/theirs"), "what another process wrote does not exist")
    expect(len(fs.find(prefix)) == 2, "what another process wrote is not listed")
    expect(fs.cat_file(f"{prefix}/theirs") == b"2", "what another process wrote is not read")


def range_read(subject: Subject) -> None:
    """Ranges are bytes from start to before end, from the end when negative."""
    fs, key = subject.fs, subject.prefix() + "/k"
    value = _pattern(100_000)
    fs.pipe_file(key, value)
    for start, end in ((0, 1), (0, 100), (99_999, 100_000), (500, 90_000), (-10, None), (7, None)):
        _same(fs.cat_file(key, start=start, end=end), value[start:end], f"range {start}:{end}")
    with fs.open(key, "rb") as stream:
        stream.seek(50_000)
        _same(stream.read(10), value[50_000:50_010], "a read after a seek")


def range_invalid_typed(subject: Subject) -> None:
    """A range beyond the end is no bytes or an error; never other bytes."""
    fs, key = subject.fs, subject.prefix() + "/k"
    fs.pipe_file(key, b"0123456789")
    with suppress(*_TYPED):
        seen = fs.cat_file(key, start=10, end=20)
        expect(seen == b"", f"bytes 10:20 of ten bytes are {seen!r}")
    with suppress(*_TYPED):
        seen = fs.cat_file(key, start=5, end=20)
        expect(seen == b"56789", f"bytes 5:20 of ten bytes are {seen!r}")


def multipart_roundtrip(subject: Subject) -> None:
    """A large object written piece by piece is whole."""
    fs, key = subject.fs, subject.prefix() + "/k"
    value = _pattern(2 * _PART + 12_345)
    with fs.open(key, "wb", block_size=_PART) as stream:
        for at in range(0, len(value), 777_777):
            stream.write(value[at : at + 777_777])
    _same(fs.cat_file(key), value, "an object written in pieces")


def multipart_abort_invisible(subject: Subject) -> None:
    """An upload that is given up leaves nothing that can be seen."""
    fs, prefix = subject.fs, subject.prefix()
    stream = fs.open(f"{prefix}/k", "wb", block_size=_PART)
    stream.write(_pattern(_PART + 1))
    stream.discard()
    _nothing(fs, prefix, "an upload that was given up")


def multipart_over_existing(subject: Subject) -> None:
    """The old object is read until the new one is complete."""
    fs, key = subject.fs, subject.prefix() + "/k"
    fs.pipe_file(key, b"old")
    value = _pattern(_PART + 1)
    with fs.open(key, "wb", block_size=_PART) as stream:
        stream.write(value)
        stream.flush()
        seen = fs.cat_file(key)
        expect(seen == b"old", f"while it is overwritten the object has {len(seen)} other bytes")
    _same(fs.cat_file(key), value, "an object written over another")


def writer_exception_publishes_nothing(subject: Subject) -> None:
    """A block that raises publishes nothing, however much it has written."""
    fs, prefix = subject.fs, subject.prefix()
    for size in (10, _PART + 1):
        with suppress(ZeroDivisionError), fs.open(f"{prefix}/k", "wb", block_size=_PART) as stream:
            stream.write(_pattern(size))
            raise ZeroDivisionError
        _nothing(fs, prefix, "a block that raised")


def checksum_mismatch_detected(subject: Subject) -> None:
    """An output that was changed after its commit is no longer intact, even at equal size."""
    fs, home = subject.fs, subject.prefix()
    action = Action(
        id="t", verb="start", kind="container", subject="t", home=home,
        outputs={"out": f"{home}/out"},
    )  # fmt: skip
    fs.pipe_file(f"{home}/out/part", b"right")
    data.commit(fs, action, 1)
    expect(data.intact(fs, action), "an output that nobody changed is not intact")
    fs.pipe_file(f"{home}/out/part", b"wrong")
    expect(not data.intact(fs, action), "an output with other bytes of the same size is intact")


def gzip_encoding_bytes_identical(subject: Subject) -> None:
    """Compressed bytes are bytes: nobody unpacks them on the way."""
    fs, key = subject.fs, subject.prefix() + "/data.json.gz"
    value = gzip.compress(b'{"a": 1}' * 100, mtime=0)
    fs.pipe_file(key, value)
    _same(fs.cat_file(key), value, "gzip data")
    with fs.open(key, "rb") as stream:
        _same(stream.read(), value, "gzip data read as a stream")


def threads_safe(subject: Subject) -> None:
    """One filesystem serves many threads."""
    fs, prefix = subject.fs, subject.prefix()

    def work(n: int) -> None:
        for turn in range(20):
            key, value = f"{prefix}/{n}/{turn}", f"{n} {turn}".encode() * 100
            fs.pipe_file(key, value)
            _same(fs.cat_file(key), value, f"thread {n}")
            fs.find(f"{prefix}/{n}")
            if turn % 2:
                fs.rm_file(key)

    _together(work, range(8))
    expect(
        len(fs.find(prefix)) == 80, f"8 threads left 80 objects, {len(fs.find(prefix))} are seen"
    )


def create_if_absent_race(subject: Subject) -> None:
    """Of sixteen that create one key exactly one wins, and the object is the winner's."""
    with subject.declared("store", Capability.CREATE_IF_ABSENT):
        for turn in range(5):
            key = subject.prefix() + "/k"
            clients = [subject.other_fs() for _ in range(16)]

            def create(n: int, key: str = key, clients: list[Any] = clients) -> bool:
                try:
                    clients[n].pipe_file(key, f"writer {n}".encode(), mode="create")
                except FileExistsError:
                    return False
                return True

            winners = [n for n, won in enumerate(_together(create, range(16))) if won]
            expect(len(winners) == 1, f"race {turn}: {len(winners)} of 16 have created one key")
            seen = subject.fs.cat_file(key)
            expect(seen == f"writer {winners[0]}".encode(), f"{winners} won, but it is {seen!r}")


def missing_key_typed(subject: Subject) -> None:
    """A key that is not there is FileNotFoundError, whatever is asked of it."""
    fs, key = subject.fs, subject.prefix() + "/missing"
    other = subject.prefix() + "/k"
    asked: dict[str, Callable[[], Any]] = {
        "cat_file": lambda: fs.cat_file(key),
        "info": lambda: fs.info(key),
        "open": lambda: fs.open(key, "rb").read(),
        "cp_file": lambda: fs.cp_file(key, other),
    }
    for name, call in asked.items():
        try:
            seen = call()
        except FileNotFoundError:
            continue
        except Exception as error:
            raise AssertionError(f"{name} of a missing key raises {error!r}") from error
        raise AssertionError(f"{name} of a missing key returns {seen!r}")
    expect(fs.exists(key) is False, "a missing key exists")


def stat_size_utc_mtime(subject: Subject) -> None:
    """Sizes are exact; times have a time zone and are of now."""
    fs, key = subject.fs, subject.prefix() + "/k"
    fs.pipe_file(key, b"12345")
    info = fs.info(key)
    expect(info["size"] == 5 and info["type"] == "file", f"the info of five bytes is {info}")
    modified = fs.modified(key)
    expect(modified.utcoffset() == timedelta(0), f"the time {modified!r} is not in UTC")
    away = abs(datetime.now(UTC) - modified)
    expect(away < timedelta(minutes=5), f"an object written now was modified {away} from now")


def presign_expires(subject: Subject) -> None:
    """A signed URL is read without credentials, until it expires."""
    with subject.declared("store", Capability.PRESIGN):
        fs, key = subject.fs, subject.prefix() + "/k"
        fs.pipe_file(key, b"signed")
        url = fs.sign(key, expiration=2)
        expect(str(url).startswith("http"), f"the signed URL is {url!r}")
        with urllib.request.urlopen(url, timeout=10) as answer:
            expect(answer.read() == b"signed", "a signed URL gives other bytes")
        deadline = time.monotonic() + subject.soon("container")
        while time.monotonic() < deadline:
            time.sleep(0.5)
            try:
                urllib.request.urlopen(url, timeout=10).close()
            except urllib.error.HTTPError:
                return
        raise AssertionError("a URL signed for two seconds is still read long after")


# -- parts


def _pattern(size: int) -> bytes:
    """Bytes that are different at every place, so that no piece can stand for another."""
    block = b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(1024))
    return (block * (size // len(block) + 1))[:size]


def _same(seen: bytes, sent: bytes, what: str) -> None:
    digests = [hashlib.sha256(v).hexdigest()[:12] for v in (sent, seen)]
    expect(
        digests[0] == digests[1],
        f"{what}: sent {len(sent)} bytes ({digests[0]}), read {len(seen)} ({digests[1]})",
    )


def _nothing(fs: Any, prefix: str, what: str) -> None:
    expect(not fs.exists(f"{prefix}/k"), f"{what} has published an object")
    expect(fs.find(prefix) == [], f"{what} has left {fs.find(prefix)}")


def _together(work: Any, each: Iterable[int]) -> list[Any]:
    """Call `work` with each number in its own thread, all at one moment."""
    numbers = list(each)
    gate = threading.Barrier(len(numbers))

    def go(n: int) -> Any:
        gate.wait()
        return work(n)

    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(go, numbers))
