"""Transfers of outputs between stores: a driver of the engine's own.

What is copied is what the writer's manifest says, file by file, streamed through this process.
A transfer ends with its engine; the next one begins it anew.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from .backend import Cause, Driver, Handle, LogChunk, Request, State, Status
from .calls import patiently
from .data import Stores, listed, read_manifest, store_errors
from .errors import BackendError, ConflictError, DeniedError, NotFoundError, RunError
from .plan import TransferSpec, transfer_request

_PIECE = 2**22  # bytes: a file up to this size is copied in one piece
_AT_ONCE = 16  # files that are
_STREAMS = 4  # larger files at once, each by one connection: four took memory, and were not faster
_BLOCK = 2**20  # bytes of one that are read at once


_RUNNING = Status(state=State.RUNNING)


@dataclass
class _Transfer:
    request: Request
    cancelled: threading.Event = field(default_factory=threading.Event)
    status: Status = _RUNNING
    said: str = ""


class TransferDriver(Driver[TransferSpec]):
    """Copies outputs from the store that has them to another one, and compares."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._transfers: dict[str, _Transfer] = {}
        self._lock = threading.Lock()

    def request(self, name: str, spec: TransferSpec, parent: str = "") -> Request:
        return transfer_request(name, spec)

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        return Handle(name=name, id=name) if name in self._transfers else None

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        name, transfer = request["name"], _Transfer(request)
        with self._lock:
            if name in self._transfers:
                raise ConflictError(f"transfer {name!r} has been made already")
            self._transfers[name] = transfer
        threading.Thread(target=self._run, args=(transfer,), name=name, daemon=True).start()
        return Handle(name=name, id=name)

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        return {
            h.name: self._transfers[h.name].status
            if h.name in self._transfers
            else NotFoundError(f"transfer {h.name!r} is not of this engine")
            for h in handles
        }

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        if handle.name not in self._transfers:
            return LogChunk(data=b"", cursor=cursor, end=True)
        transfer = self._transfers[handle.name]
        ended, said = transfer.status.state.final, transfer.said.encode()
        start = int(cursor or "0")
        return LogChunk(data=said[start:], cursor=str(len(said)), end=ended)

    def stop(self, handle: Handle) -> None:
        if transfer := self._transfers.get(handle.name):
            transfer.cancelled.set()

    def owned(self, owner: str = "") -> Iterable[Handle]:
        alive = (n for n, t in list(self._transfers.items()) if not t.status.state.final)
        return [Handle(name=name, id=name) for name in alive]

    def _run(self, transfer: _Transfer) -> None:
        try:
            for output, ends in transfer.request["copies"].items():
                self._copy(transfer, output, ends["from"], ends["to"])
            transfer.status = Status(state=State.SUCCEEDED)
        except _Cancelled:
            transfer.status = Status(state=State.STOPPED, reason="stopped on request")
        except Exception as error:  # of a filesystem's, which is a stranger
            denied = Cause.DENIED if isinstance(error, DeniedError) else Cause.INFRA
            cause = denied if isinstance(error, BackendError) else Cause.USER
            said = str(error) if isinstance(error, BackendError | RunError) else repr(error)
            transfer.status = Status(state=State.FAILED, reason=said, cause=cause)

    def _copy(self, transfer: _Transfer, output: str, source: str, copy: str) -> None:
        """Copy one output and make sure that both sides are what the manifest says."""
        ours, theirs = self._stores(copy), self._stores(source)
        manifest = patiently(
            lambda: read_manifest(theirs, transfer.request["home"]), transfer.cancelled
        )
        said = manifest["outputs"][output]
        if patiently(lambda: listed(theirs, output, source), transfer.cancelled) != said:
            raise RunError(f"{source}: is no longer what was committed; resume the run")
        sizes = {file["path"]: file["size"] for file in said["files"]}

        def one(path: str) -> None:
            if transfer.cancelled.is_set():
                raise _Cancelled
            of, to = (f"{end}/{path}" if path else end for end in (source, copy))
            copied = _whole if sizes[path] <= _PIECE else _stream
            patiently(lambda: copied(theirs, ours, of, to, transfer.cancelled), transfer.cancelled)

        small, large = ([p for p in sizes if (sizes[p] > _PIECE) is more] for more in (False, True))
        for paths, at_once in ((small, _AT_ONCE), (large, _STREAMS)):
            with ThreadPoolExecutor(at_once) as pool:
                for _ in pool.map(one, paths):
                    pass
        arrived = patiently(lambda: listed(ours, output, copy), transfer.cancelled)
        if {file["path"]: file["size"] for file in arrived["files"]} != sizes:
            raise RunError(f"{copy}: is not what was copied: somebody else writes there")
        transfer.said += f"{output}: {len(sizes)} files, {said['bytes']} bytes, to {copy}\n"


def _whole(theirs: Any, ours: Any, source: str, copy: str, cancelled: threading.Event) -> None:
    with store_errors(source):
        data = theirs.cat_file(source)
    with store_errors(copy):
        ours.makedirs(copy.rpartition("/")[0], exist_ok=True)
        ours.pipe_file(copy, data)


def _stream(theirs: Any, ours: Any, source: str, copy: str, cancelled: threading.Event) -> None:
    with store_errors(copy):
        ours.makedirs(copy.rpartition("/")[0], exist_ok=True)
        writing = ours.open(copy, "wb", max_concurrency=1)
        with theirs.open(source, "rb") as read, writing as write:
            while block := read.read(_BLOCK):
                if cancelled.is_set():
                    raise _Cancelled
                write.write(block)


class _Cancelled(Exception):
    """The transfer was asked to end."""
