"""Every check of a store fails on a store that breaks just that promise."""

from __future__ import annotations

import gzip
import os
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote, unquote

import pytest
from portaflow_conformance.checks import implemented
from portaflow_conformance.manifest import MANIFEST
from portaflow_conformance.subject import Subject
from portaflow_local.folder import Folder, FolderFileSystem, _Upload

from portaflow.backend import SUPPORTED, Capability

CHECKS = [c.id for c in MANIFEST if c.area == "store" and not c.planned]


def store(fs: type[FolderFileSystem], *claims: Capability) -> type[Folder]:
    def filesystem(self: Folder) -> FolderFileSystem:
        return fs(root=str(self.config.root), skip_instance_cache=True)

    capabilities = {**Folder.capabilities, **dict.fromkeys(claims, SUPPORTED)}
    return type("Broken", (Folder,), {"filesystem": filesystem, "capabilities": capabilities})


def renaming(change: Callable[[str], str]) -> type[FolderFileSystem]:
    """A filesystem that takes every key for another one."""

    class Renaming(FolderFileSystem):
        @classmethod
        def _strip_protocol(cls, path: Any) -> Any:
            stripped = FolderFileSystem._strip_protocol(path)
            if isinstance(stripped, list):
                return stripped
            head, mark, tail = stripped.partition("/conformance/")
            return head + mark + change(tail)

        def _new(self, path: str) -> str:
            return str(self._strip_protocol(path))

    return Renaming


class CutsAtAPart(FolderFileSystem):
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value[: 5 * 2**20], mode)


class SkipsEmpty(FolderFileSystem):
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if value:
            super().pipe_file(path, value, mode)


class InPlace(FolderFileSystem):
    """Writes where the object is, in two steps, and leaves what was longer."""

    truncate = False

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        key = self._strip_protocol(path)
        if not os.path.exists(key):
            super().pipe_file(path, value, mode)
            return
        with open(key, "r+b") as stream:
            if self.truncate:
                stream.truncate()
            stream.write(value[: len(value) // 2])
            stream.flush()
            time.sleep(0.001)
            stream.write(value[len(value) // 2 :])


class TruncatesFirst(InPlace):
    truncate = True


class Appends(FolderFileSystem):
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        key = self._strip_protocol(path)
        os.makedirs(os.path.dirname(key), exist_ok=True)
        with open(key, "ab") as stream:
            stream.write(value)


class WritesBehind(FolderFileSystem):
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        self.__dict__.setdefault("behind", {})[path] = value

    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> Any:
        behind = self.__dict__.get("behind", {})
        return behind[path] if path in behind else super().cat_file(path, start, end)


class ListsOnce(FolderFileSystem):
    def find(self, path: str, **kwargs: Any) -> Any:
        listed = self.__dict__.setdefault("listed", {})
        if path not in listed:
            listed[path] = super().find(path, **kwargs)
        return listed[path]


class InclusiveEnd(FolderFileSystem):
    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> Any:
        return super().cat_file(path, start, end + 1 if end else end)


class WrapsAround(FolderFileSystem):
    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> Any:
        if start is not None and start >= self.size(path):
            start = end = None
        return super().cat_file(path, start, end)


class Uploading(FolderFileSystem):
    upload: type[_Upload]

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        if mode == "rb":
            return super()._open(path, mode)
        return self.upload(self, self._draft(), self._key(path), create=False)


class OnePart(Uploading):
    class upload(_Upload):
        def write(self, data: Any) -> int:
            return super().write(data) if self.tell() < 5 * 2**20 else len(data)


class KeepsAborted(Uploading):
    class upload(_Upload):
        def discard(self) -> None:
            self.close()


class PublishesAlways(Uploading):
    class upload(_Upload):
        def __exit__(self, *rest: object) -> None:
            self.close()


class StreamsInPlace(FolderFileSystem):
    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        return open(self._strip_protocol(path), mode)


class OneTag(FolderFileSystem):
    def find(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        found = super().find(path, detail=True, **kwargs)
        tagged = {name: {**info, "ETag": '"same"'} for name, info in found.items()}
        return tagged if detail else sorted(tagged)


class Unpacks(FolderFileSystem):
    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> Any:
        return gzip.decompress(super().cat_file(path))


class OnePathForAll(FolderFileSystem):
    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> Any:
        self.path = path
        time.sleep(0.0005)
        return super().cat_file(self.path, start, end)


class LooksThenWrites(FolderFileSystem):
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if mode == "create" and self.exists(path):
            raise FileExistsError(path)
        time.sleep(0.01)
        super().pipe_file(path, value)


class EmptyForMissing(FolderFileSystem):
    def cat_file(self, path: str, start: Any = None, end: Any = None, **kwargs: Any) -> Any:
        return super().cat_file(path, start, end) if self.exists(path) else b""


class LocalTime(FolderFileSystem):
    def modified(self, path: str) -> datetime:
        return datetime.fromtimestamp(self.info(path)["mtime"])


class Signs(FolderFileSystem):
    """Signs URLs of a server in this process; `forever` forgets when they expire."""

    forever = False
    address = ""

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        until = 2e9 if self.forever else time.time() + expiration
        return f"{self.address}/{until}{quote(self._strip_protocol(path))}"


class SignsForever(Signs):
    forever = True


class OnePage(FolderFileSystem):
    def find(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        return super().find(path)[:1000]


class LosesLastOfPage(FolderFileSystem):
    def find(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        found = super().find(path)
        return found[:-1] if len(found) % 1000 == 0 else found


class OnePageOfFolders(FolderFileSystem):
    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        return super().ls(path, detail)[:1000]


class PrefixOfText(FolderFileSystem):
    def find(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        stem = self._strip_protocol(path)
        return [n for n in super().find(os.path.dirname(stem)) if n.startswith(stem)]


class MissingPrefixRaises(FolderFileSystem):
    def find(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        if not (found := super().find(path)):
            raise FileNotFoundError(path)
        return found


class StatsAfterwards(FolderFileSystem):
    def find(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        found = super().find(path)
        deadline = time.monotonic() + 1  # until something is gone, if it goes at all
        while all(map(os.path.exists, found)) and time.monotonic() < deadline:
            time.sleep(0.001)
        return [name for name in found if os.stat(name)]

    def rm_file(self, path: str) -> None:
        time.sleep(0.05)  # long enough to be listed
        super().rm_file(path)


class ListsTheDead(FolderFileSystem):
    def find(self, path: str, detail: bool = False, **kwargs: Any) -> Any:
        dead = self.__dict__.setdefault("dead", set())
        dead.update(super().find(path))
        return sorted(dead)


class RemovesOnlyWhatIs(FolderFileSystem):
    def rm_file(self, path: str) -> None:
        if not self.exists(path):
            raise FileNotFoundError(path)
        super().rm_file(path)


class RemovesAThousand(FolderFileSystem):
    def rm(self, path: Any, recursive: bool = False, maxdepth: Any = None) -> None:
        for name in self.find(path)[:1000]:
            self.rm_file(name)


class RemovesByText(FolderFileSystem):
    def rm(self, path: Any, recursive: bool = False, maxdepth: Any = None) -> None:
        stem = self._strip_protocol(path)
        for name in self.find(os.path.dirname(stem)):
            if name.startswith(stem):
                self.rm_file(name)


class CopiesQuoted(FolderFileSystem):
    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        super().cp_file(quote(self._strip_protocol(path1)), path2)


class TakesTheParentsPlace(FolderFileSystem):
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        parent = os.path.dirname(self._strip_protocol(path))
        if os.path.isfile(parent):
            os.unlink(parent)
        super().pipe_file(path, value, mode)


BROKEN: dict[str, tuple[type[Folder], str]] = {
    "put_get_sizes": (store(CutsAtAPart), "sent 5242881 bytes .* read 5242880"),
    "empty_object": (store(SkipsEmpty), "does not exist"),
    "overwrite_shorter": (store(InPlace), "'short' was written, b'short"),
    "overwrite_atomic": (store(TruncatesFirst), "readers saw objects of"),
    "concurrent_writers": (store(Appends), "a mixture"),
    "read_after_write_new_client": (store(WritesBehind), "No such file"),
    "external_write_visible": (store(ListsOnce), "is not listed"),
    "range_read": (store(InclusiveEnd), "range 0:1: sent 1 bytes .* read 2"),
    "range_invalid_typed": (store(WrapsAround), "bytes 10:20 of ten bytes are"),
    "multipart_roundtrip": (store(OnePart), "an object written in pieces: sent"),
    "multipart_abort_invisible": (store(KeepsAborted), "given up has published"),
    "multipart_over_existing": (store(StreamsInPlace), "while it is overwritten"),
    "writer_exception_publishes_nothing": (store(PublishesAlways), "raised has published"),
    "checksum_mismatch_detected": (store(OneTag), "other bytes of the same size is intact"),
    "gzip_encoding_bytes_identical": (store(Unpacks), "gzip data: sent"),
    "threads_safe": (store(OnePathForAll), "thread|No such file"),
    "create_if_absent_race": (store(LooksThenWrites), "of 16 have created one key"),
    "missing_key_typed": (store(EmptyForMissing), "cat_file of a missing key returns b''"),
    "stat_size_utc_mtime": (store(LocalTime), "is not in UTC"),
    "presign_expires": (store(SignsForever, Capability.PRESIGN), "still read long after"),
    "list_2500": (store(OnePage), "2500 objects were written, 1000 are listed"),
    "list_exactly_1000": (store(LosesLastOfPage), "of 1000 objects 999"),
    "list_delimiter_paged": (store(OnePageOfFolders), "listed as 1000 entries"),
    "list_sibling_prefix": (store(PrefixOfText), "there is only 'b/1'"),
    "list_missing_prefix_empty": (store(MissingPrefixRaises), "missing"),
    "list_during_mutation": (store(StatsAfterwards), "No such file"),
    "list_after_write_and_delete": (store(ListsTheDead), "after 1 removals of three"),
    "delete_idempotent": (store(RemovesOnlyWhatIs), "the second removal of a key raises"),
    "delete_1001": (store(RemovesAThousand), "1001 objects were removed, 1 are left"),
    "delete_prefix_scoped": (store(RemovesByText), "left are \\[\\]"),
    "key_reserved_chars": (store(renaming(lambda k: k.replace("+", " "))), "reads b"),
    "key_percent_literal": (store(renaming(unquote)), "reads b"),
    "key_unicode": (store(renaming(lambda k: unicodedata.normalize("NFC", k))), "reads b"),
    "key_length_limit": (store(renaming(lambda k: k[:500])), "reads b"),
    "key_slashes_dots": (store(renaming(os.path.normpath)), "writing '.*a//b' has changed"),
    "key_trailing_slash": (store(renaming(lambda k: k.rstrip("/"))), "writing '.*a/' has"),
    "copy_special_key": (store(CopiesQuoted), "No such file"),
    "key_and_prefix_coexist": (store(TakesTheParentsPlace), "'a' was written and is not there"),
    "key_case_sensitive": (store(renaming(str.lower)), "reads b"),
}


@pytest.fixture
def signing() -> Iterator[None]:
    """A server of what `Signs` has signed, as long as it has not expired."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _, until, path = unquote(self.path).split("/", 2)
            self.send_response(200 if time.time() < float(until) else 403)
            self.end_headers()
            if time.time() < float(until):
                with open(f"/{path}", "rb") as stream:
                    self.wfile.write(stream.read())

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        Signs.address = f"http://127.0.0.1:{server.server_port}"
        yield
        server.shutdown()


@contextmanager
def cleaned(subject: Subject) -> Iterator[Subject]:
    try:
        yield subject
    finally:
        subject.close()


def test_there_is_a_broken_store_for_every_check() -> None:
    assert {f"store.{name}" for name in BROKEN} == set(CHECKS)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_fails_on_a_store_that_breaks_its_promise(
    name: str, make: Callable[..., Subject], signing: None
) -> None:
    broken, says = BROKEN[name]
    subject = make(store=broken, patience=3.0)
    with pytest.raises((AssertionError, OSError), match=says):
        implemented()[f"store.{name}"](subject)


@pytest.mark.parametrize("id", CHECKS)
def test_a_check_passes_on_a_folder(id: str, make: Callable[..., Subject]) -> None:
    with cleaned(make()) as subject:
        implemented()[id](subject)


def test_signed_urls_that_expire_pass(make: Callable[..., Subject], signing: None) -> None:
    implemented()["store.presign_expires"](make(store=store(Signs, Capability.PRESIGN)))


def test_what_works_but_is_not_declared_is_a_finding(
    make: Callable[..., Subject], signing: None
) -> None:
    with pytest.raises(AssertionError, match="'presign' works but is not declared"):
        implemented()["store.presign_expires"](make(store=store(Signs)))


def test_what_is_declared_but_does_not_work_is_a_finding(make: Callable[..., Subject]) -> None:
    claims = store(FolderFileSystem, Capability.KEY_AND_PREFIX)
    with pytest.raises(OSError, match=r"a"):
        implemented()["store.key_and_prefix_coexist"](make(store=claims))
