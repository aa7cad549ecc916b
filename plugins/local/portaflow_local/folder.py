"""A bucket as a folder: whole writes, atomic create-if-absent, no folders without a file."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from fsspec.implementations.local import LocalFileSystem

from portaflow.backend import SUPPORTED, Capability, Finding, ObjectStore, Support

from .process import writable

_DRAFTS = ".drafts"


class FolderFileSystem(LocalFileSystem):  # type: ignore[misc]  # fsspec is not typed
    """fsspec's local filesystem, with an object store's promises for all below `root`.

    A write goes to a draft in the same filesystem, which then takes the key's place, or
    for `mode="create"` takes it only if it is free. Nothing outside `root` is changed.
    """

    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(auto_mkdir=True, **options)
        self.root = os.path.realpath(root)
        self._roots = tuple(r.rstrip(os.sep) + os.sep for r in (root, self.root))
        self._drafts = os.path.join(self.root, _DRAFTS)

    def _key(self, path: str) -> str:
        stripped: str = self._strip_protocol(path)
        if not self._inside(stripped):
            raise PermissionError(f"{path} is outside the store's folder {self.root}")
        return stripped

    def _inside(self, path: str) -> bool:
        """Whether a path is that of a key, wherever links and `..` on its way lead."""
        folder = os.path.realpath(os.path.dirname(path)) + os.sep
        return (
            folder.startswith(self.root + os.sep)
            and not folder.startswith(self._drafts + os.sep)
            and os.path.basename(path) not in (".", "..", _DRAFTS)
        )

    def _new(self, path: str) -> str:
        """The key to write. What the system would take for another key is refused."""
        key = self._key(path)
        below = next((key[len(r) :] for r in self._roots if key.startswith(r)), "other")
        if path.endswith("/") or not {"", ".", ".."}.isdisjoint(below.split("/")):
            raise ValueError(f"{path}: a folder has no key with an empty part, . or ..")
        return key

    def _draft(self) -> str:
        return os.path.join(self._drafts, uuid4().hex)

    def _publish(self, draft: str, path: str, create: bool = False) -> None:
        """Let a draft take the key's place; again if its folder is not there yet, or vanished."""
        for _ in range(100):
            try:
                if create:
                    os.link(draft, path)
                    os.unlink(draft)
                else:
                    os.replace(draft, path)
            except (FileNotFoundError, NotADirectoryError):
                self._make_folder(path)
                continue
            return
        raise FileNotFoundError(path)

    def _make_folder(self, path: str) -> None:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        except FileNotFoundError:
            return  # one that was there when the next one in it was made, and is not any more
        except FileExistsError as error:
            if os.path.exists(error.filename) and not os.path.isdir(error.filename):
                text = f"{path}: a part of it, {error.filename}, is a key"
                raise NotADirectoryError(text) from error

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        key, draft = self._new(path), self._draft()
        try:
            self._write(draft, value)
            self._publish(draft, key, create=mode == "create")
        except OSError:
            _unlink(draft)
            raise

    def _write(self, draft: str, value: bytes) -> None:
        with self._create(draft) as stream:
            view = memoryview(value)
            while view:  # one write takes at most 2 GiB
                view = view[stream.write(view) :]

    def _create(self, draft: str) -> io.FileIO:
        try:
            return io.FileIO(draft, "xb")
        except FileNotFoundError:
            os.makedirs(self._drafts, exist_ok=True)
            return io.FileIO(draft, "xb")

    def cp_file(self, path1: str, path2: str, **kwargs: Any) -> None:
        source, key, draft = self._strip_protocol(path1), self._new(path2), self._draft()
        if os.path.isdir(source):
            return  # a folder is nothing by itself
        try:
            os.makedirs(self._drafts, exist_ok=True)
            shutil.copyfile(source, draft)
            self._publish(draft, key)
        except OSError:
            _unlink(draft)
            raise

    def get_file(self, path1: str, path2: Any, callback: Any = None, **kwargs: Any) -> None:
        """Copy a key to a file, wherever that is: fsspec's own would ask `cp_file` for it."""
        source = self._strip_protocol(path1)
        if os.path.isdir(source):
            return
        with open(source, "rb") as stream:
            if hasattr(path2, "write"):
                shutil.copyfileobj(stream, path2)
                return
            os.makedirs(os.path.dirname(os.path.abspath(path2)), exist_ok=True)
            with open(path2, "wb") as file:
                shutil.copyfileobj(stream, file)

    def mv(self, path1: str, path2: str, recursive: bool = True, **kwargs: Any) -> None:
        """Copy keys, then remove the old ones, as a store does it."""
        self.copy(path1, path2, recursive=recursive)
        self.rm(path1, recursive=recursive)

    def touch(self, path: str, truncate: bool = True, **kwargs: Any) -> None:
        """Make an empty object of a key, unless it may stay as it is."""
        if truncate or not self.exists(path):
            self.pipe_file(path, b"")

    def link(self, src: str, dst: str, **kwargs: Any) -> None:
        raise NotImplementedError("a store has no links")

    symlink = link

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **kwargs: Any) -> Any:
        if mode in ("rb", "r"):
            return super()._open(path, mode=mode, block_size=block_size, **kwargs)
        if "a" in mode or "+" in mode:
            raise ValueError(f"{path}: an object is written whole; mode {mode!r} is not possible")
        return _Upload(self, self._draft(), self._new(path), create="x" in mode)

    def rm_file(self, path: str) -> None:
        """Remove a key, silent when it is not there, and the folders that it leaves empty."""
        key = self._key(path)
        _unlink(key)
        self._prune(os.path.dirname(key))

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        for one in [path] if isinstance(path, str) else path:
            key = self._key(one)
            if recursive and os.path.isdir(key):
                shutil.rmtree(key, ignore_errors=True)
                if os.path.isdir(key):  # something was written meanwhile, or cannot be removed
                    shutil.rmtree(key)
                self._prune(os.path.dirname(key))
            else:
                self.rm_file(one)

    def _prune(self, folder: str) -> None:
        while folder.startswith(self.root + os.sep):
            try:
                os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)

    def mkdir(self, path: str, create_parents: bool = True, **kwargs: Any) -> None:
        """Do nothing: a key needs no folder to be made."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Do nothing: a key needs no folder to be made."""

    def ls(self, path: str, detail: bool = False, **kwargs: Any) -> list[Any]:
        found = super().ls(path, detail=True, **kwargs)
        found = [f for f in found if f["name"] != self._drafts]
        return found if detail else [f["name"] for f in found]


class _Upload(io.BufferedWriter):
    """A file that takes its key's place when it is closed, unless its block raised."""

    def __init__(self, fs: FolderFileSystem, draft: str, key: str, create: bool) -> None:
        super().__init__(fs._create(draft))
        self._fs, self._draft, self._key, self._create = fs, draft, key, create
        self._failed = False

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        self._failed = kind is not None
        self.close()

    def __del__(self) -> None:
        """Whoever let go of it without closing it was interrupted."""
        self._failed = True
        super().__del__()

    def discard(self) -> None:
        """Close without publishing; fsspec's name for it."""
        self._failed = True
        self.close()

    def close(self) -> None:
        if self.closed:
            return
        try:
            super().close()
            if not self._failed:
                self._fs._publish(self._draft, self._key, self._create)
        finally:
            _unlink(self._draft)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except (FileNotFoundError, NotADirectoryError):
        return


@dataclass(frozen=True, kw_only=True)
class Config:
    """`root`: the folder; its URIs are file:// and hold keys as they are, unquoted."""

    root: Path = Path(".portaflow/store")


class Folder(ObjectStore):
    """An object store in a folder of this machine."""

    name = "folder"
    Config = Config
    capabilities = {
        Capability.CREATE_IF_ABSENT: SUPPORTED,
        Capability.CASE_SENSITIVE: SUPPORTED,
        Capability.KEY_AND_PREFIX: Support(False, "a name is a file or a folder, not both"),
        Capability.METADATA: Support(False, "files have no metadata of the user's"),
        Capability.PRESIGN: Support(False, "a folder has no server"),
        Capability.VERSIONS: Support(False, "a folder keeps one version"),
    }

    def url(self, key: str) -> str:
        return f"file://{self.config.root}/{key}"

    def filesystem(self) -> FolderFileSystem:
        return FolderFileSystem(root=str(self.config.root))

    def mounts(self) -> Sequence[str]:
        return (str(self.config.root),)

    def check(self) -> Iterable[Finding]:
        yield writable(self.config.root, "store")
