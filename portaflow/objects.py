"""A bucket of any cloud as an fsspec filesystem, for the stores of plugins: S3, GCS.

The work is done by obstore, which is imported by the first call. It is a client of every
object store alike and no cloud's SDK; whose bucket it is, and with which credentials, the
plugin says. A key is kept as it is written, or refused; nothing is cached.
"""

from __future__ import annotations

import io
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from .errors import BackendError, UnavailableError
from .refusals import Advice, code_of, refused

_BLOCK = 2**20  # bytes that a reader takes at once
_PART = 10 * 2**20  # bytes of a part of an upload, which has at most 10,000
_LEAST_PART = 5 * 2**20
_PARTS = 4  # of an upload that are under way, and in memory, at once, if nothing else is said
_PAGE = 1000


class ObjectFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """The buckets of one account. `store` makes obstore's store of one, `region_of` tells where
    one is; paths are `bucket/key`, with or without the scheme."""

    cachable = False  # what another process writes is seen

    def __init__(
        self, scheme: str, store: Callable[[str], Any], advice: Advice,
        region_of: Callable[[str], str],
    ) -> None:  # fmt: skip
        super().__init__()
        self.protocol = scheme
        self._make, self._advice, self._region_of = store, advice, region_of
        self._stores: dict[str, Any] = {}
        self._lock = threading.Lock()

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """Take the scheme away and nothing else: what follows is the bucket and the key."""
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        return re.sub(r"^[a-z0-9]+://", "", str(path))

    def unstrip_protocol(self, name: str) -> str:
        return f"{self.protocol}://{self._strip_protocol(name)}"

    def _at(self, path: str) -> tuple[Any, str]:
        """The store and the key of a path; the key is "" for the bucket."""
        bucket, _, key = self._strip_protocol(path).partition("/")
        with self._lock:
            if bucket not in self._stores:
                self._stores[bucket] = self._make(bucket)
            return self._stores[bucket], key

    def _new(self, path: str) -> tuple[Any, str]:
        """The same for a key that is written. What obstore would take for another is refused."""
        store, key = self._at(path)
        if not {"", ".", ".."}.isdisjoint(key.split("/")):
            raise ValueError(f"{path}: a key has no empty part, no . and no ..")
        return store, key

    @contextmanager
    def _told(self, path: str) -> Iterator[None]:
        """Turn obstore's errors into those that a store promises."""
        try:
            yield
        except FileNotFoundError as error:
            if code_of(str(error)) in ("NoSuchBucket", "NoSuchUpload"):
                raise self._refused(path, error) from error
            raise FileNotFoundError(self.unstrip_protocol(path)) from error
        except (OSError, ValueError, BackendError):
            raise
        except Exception as error:
            from obstore.exceptions import BaseError

            if not isinstance(error, BaseError):
                raise
            raise self._refused(path, error) from error

    def _refused(self, path: str, error: Exception) -> Exception:
        return refused(self.unstrip_protocol(path), error, self._advice, self._region_of)

    # -- contents

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Write an object; with `mode="create"` only if there is none."""
        store, key = self._new(path)
        with self._told(path):
            if mode == "create":
                store.put(key, value, mode="create", use_multipart=False)
            else:
                store.put(key, value, chunk_size=_PART)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        store, key = self._at(path)
        with self._told(path):
            if start is None and end is None:
                return bytes(store.get(key).bytes())
            start, stop, _ = slice(start, end).indices(int(store.head(key)["size"]))
            return bytes(store.get_range(key, start=start, end=stop)) if start < stop else b""

    def _open(
        self, path: str, mode: str = "rb", block_size: Any = None, max_concurrency: int = _PARTS,
        **kwargs: Any,
    ) -> Any:  # fmt: skip
        if mode == "rb":
            block = block_size or _BLOCK
            return io.BufferedReader(_Reader(self, path, block), block)
        if mode != "wb":
            raise ValueError(f"{path}: an object is written whole; mode {mode!r} is not possible")
        return _Writer(self, path, max(block_size or _PART, _LEAST_PART), max_concurrency)

    def put_file(self, lpath: Any, rpath: str, callback: Any = None, **kwargs: Any) -> None:
        if Path(lpath).is_dir():
            return  # a folder is nothing by itself
        store, key = self._new(rpath)
        with self._told(rpath):
            store.put(key, Path(lpath), chunk_size=_PART)

    def get_file(self, rpath: str, lpath: Any, callback: Any = None, **kwargs: Any) -> None:
        with self.open(rpath, "rb") as source:
            if hasattr(lpath, "write"):
                shutil.copyfileobj(source, lpath, _BLOCK)
                return
            Path(lpath).absolute().parent.mkdir(parents=True, exist_ok=True)
            with open(lpath, "wb") as file:
                shutil.copyfileobj(source, file, _BLOCK)

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        (source, key), (sink, new) = self._at(path1), self._new(path2)
        if source is sink:
            with self._told(path1):
                source.copy(key, new)
            return
        with self.open(path1, "rb") as one, self.open(path2, "wb") as other:
            shutil.copyfileobj(one, other, _BLOCK)

    def sign(self, path: str, expiration: int = 100, **kwargs: Any) -> str:
        """A URL that reads the object without credentials, for as many seconds."""
        import obstore

        store, key = self._at(path)
        with self._told(path):
            return str(obstore.sign(store, "GET", key, timedelta(seconds=expiration)))

    # -- what is there

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        if found := self._object(path):
            return found
        if next(self._below(path, 1), None) is None:
            raise FileNotFoundError(self.unstrip_protocol(path))
        name = self._strip_protocol(path).rstrip("/")
        return {"name": name, "size": 0, "type": "directory"}

    def _object(self, path: str) -> dict[str, Any] | None:
        """What is said of the object of that name, if there is one."""
        store, key = self._at(path)
        if not key or key.endswith("/"):
            return None
        try:
            with self._told(path):
                return _file(self._strip_protocol(path), store.head(key))
        except FileNotFoundError:
            return None

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Only what is not there does not exist: fsspec's own takes every error for that."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def isfile(self, path: str) -> bool:
        return self._object(path) is not None

    def isdir(self, path: str) -> bool:
        return next(self._below(path, 1), None) is not None

    def modified(self, path: str) -> datetime:
        moment: datetime = self.info(path)["last_modified"]
        return moment

    created = modified

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
        store, key = self._at(path)
        bucket = self._strip_protocol(path).partition("/")[0]
        with self._told(path):
            found = store.list_with_delimiter(key.rstrip("/") or None)
        folders = [
            {"name": f"{bucket}/{prefix.rstrip('/')}", "size": 0, "type": "directory"}
            for prefix in found["common_prefixes"]
        ]
        below = f"{bucket}/{key.rstrip('/')}".rstrip("/") + "/"
        files = [_file(f"{bucket}/{one['path']}", one) for one in found["objects"]]
        entries = [*folders, *(f for f in files if f["name"].startswith(below))]
        if not entries and (itself := self._object(path)):
            entries = [itself]
        entries.sort(key=lambda entry: entry["name"])
        return entries if detail else [entry["name"] for entry in entries]

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False,
        detail: bool = False, **kwargs: Any,
    ) -> Any:  # fmt: skip
        if maxdepth is not None or withdirs:
            return super().find(path, maxdepth, withdirs, detail, **kwargs)
        found = {one["name"]: one for one in self._below(path)}
        if not found and (itself := self._object(path)):
            found = {itself["name"]: itself}
        ordered = dict(sorted(found.items()))
        return ordered if detail else list(ordered)

    def _below(self, path: str, most: int = _PAGE) -> Iterator[dict[str, Any]]:
        """All objects under a prefix, page by page."""
        store, key = self._at(path)
        bucket = self._strip_protocol(path).partition("/")[0]
        prefix = key.rstrip("/")
        with self._told(path):
            for page in store.list(prefix or None, chunk_size=most):
                for one in page:
                    # A marker of the folder itself, which Spark may make, looks like its name.
                    if one["path"] != prefix:
                        yield _file(f"{bucket}/{one['path']}", one)

    # -- removal

    def rm_file(self, path: str) -> None:
        """Remove an object, silent when it is not there."""
        store, key = self._at(path)
        try:
            with self._told(path):
                store.delete(key)
        except FileNotFoundError:
            return

    _rm = rm_file

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        for one in [path] if isinstance(path, str) else path:
            if recursive:
                self._rm_below(one)
            self.rm_file(one)

    def _rm_below(self, path: str) -> None:
        store, _ = self._at(path)
        bucket, before = self._strip_protocol(path).partition("/")[0], list[str]()
        while keys := [one["name"].partition("/")[2] for one in self._below(path)]:
            try:
                with self._told(path):
                    store.delete(keys)
            except FileNotFoundError:
                if keys != before:
                    before = keys  # somebody removes them, too
                    continue
                for key in keys:  # one is `folder/` of another client: obstore asks for `folder`
                    self.rm_file(f"{bucket}/{key}")
            return

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Do nothing: a key needs no folder to be made."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: a key needs no folder to be made."""

    def rmdir(self, path: str) -> None:
        """Do nothing: there are no folders."""


class _Reader(io.RawIOBase):
    """Reads one version of an object: what is written over it meanwhile is an error.

    All of it comes by one request, as a stream. Who jumps gets what he asks for, and again a
    stream when he reads on from there.
    """

    def __init__(self, fs: ObjectFileSystem, path: str, block: int) -> None:
        super().__init__()
        self._fs, self._path, self._at, self._seen, self._block = fs, path, 0, -1, block
        self._rest = memoryview(b"")  # has come by the stream, and is not read yet
        self._store, self._key = fs._at(path)
        with fs._told(path):
            got = self._store.get(self._key)
            self._head = got.meta
            self._stream: Iterator[bytes] | None = iter(got.stream(block))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._head["size"]}[whence]
        if start + offset < 0:
            raise ValueError(f"{self._path}: seek to {start + offset}")
        if start + offset != self._at:
            self._stream, self._rest = None, memoryview(b"")
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._head["size"])
        if end <= self._at:
            return 0
        with self._fs._told(self._path):
            if self._stream is None and self._at == self._seen:
                self._stream = iter(self._get(self._head["size"]).stream(self._block))
            if self._stream is None:
                data = memoryview(self._get(end).bytes())
                buffer[: len(data)] = data
                count = len(data)
            else:
                stream, self._stream = self._stream, None  # which is not read on when it fails
                count = self._fill(buffer, end - self._at, stream)
                self._stream = stream
        if not count:
            raise UnavailableError(f"{self._path}: ends before its {self._head['size']} bytes")
        self._at = self._seen = self._at + count
        return count

    def _fill(self, buffer: Any, wanted: int, stream: Iterator[bytes]) -> int:
        """Fill all of it: `BufferedReader` reads twice what follows less than it asked for."""
        count = 0
        while count < wanted:
            self._rest = self._rest or memoryview(next(stream, b""))
            if not self._rest:
                break
            data, self._rest = self._rest[: wanted - count], self._rest[wanted - count :]
            buffer[count : count + len(data)] = data
            count += len(data)
        return count

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(self._block), b""))

    def _get(self, end: int) -> Any:
        options = {"range": (self._at, end), "if_match": self._head["e_tag"]}
        return self._store.get(self._key, options=options)


class _Writer(io.RawIOBase):
    """Uploads in parts as it is written; the object is there when it is closed without an error."""

    def __init__(self, fs: ObjectFileSystem, path: str, part: int, parts: int) -> None:
        super().__init__()
        import obstore

        self._fs, self._path, self._failed, self._size = fs, path, False, 0
        store, key = fs._new(path)
        self._upload = obstore.open_writer(store, key, buffer_size=part, max_concurrency=parts)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        kept = bytes(data)  # obstore reads it later, when a buffer may hold something else
        with self._fs._told(self._path):
            self._size += len(kept)
            return int(self._upload.write(kept))

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._failed = kind is not None
        self.close()

    def __del__(self) -> None:
        """Whoever let go of it without closing it was interrupted."""
        self._failed = True
        super().__del__()

    def discard(self) -> None:
        """Close without an object; fsspec's name for it."""
        self._failed = True
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        try:
            with self._fs._told(self._path):
                if self._failed:  # obstore gives an upload up when its block raises
                    self._upload.__exit__(InterruptedError, InterruptedError(), None)
                else:
                    self._upload.close()
        finally:
            super().close()


def _file(name: str, meta: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "size": meta["size"],
        "type": "file",
        "e_tag": meta["e_tag"],
        "last_modified": meta["last_modified"],
    }
