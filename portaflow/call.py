"""Calls of the user's Python functions: a driver of the engine's own.

Each call is a process of its own that ends with its engine: it watches the pipe that the
engine holds, which the kernel closes when the engine dies. called.py is the other side.
A call has the engine's whole environment, its secrets too; what is told of it has none.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .backend import Cause, Driver, Handle, LogChunk, Request, State, Status
from .data import Stores, store_errors
from .errors import BackendError, ConflictError, NotFoundError, PortaflowError, UnavailableError
from .masking import mask, masked
from .plan import CallSpec, call_request

_CHUNK = 2**20  # bytes of log returned at once
_TAIL = 2000  # bytes of log told with a failure
_CALLED = str(Path(__file__).with_name("called.py"))


@dataclass
class _Call:
    child: subprocess.Popen[bytes]
    log: IO[bytes]
    value: IO[bytes]  # what the function returned, as JSON
    result: str  # URI where that goes
    grace: float
    kill_at: float | None = None  # once it was asked to end


class CallDriver(Driver[CallSpec]):
    """Runs functions of the pipeline in `folder`; logs go to the run's `home` when they end."""

    def __init__(self, stores: Stores, home: str, folder: Path) -> None:
        self._stores, self._home, self._folder = stores, home, folder
        self._calls: dict[str, _Call] = {}
        self._ended: dict[str, Status] = {}
        self._lock = threading.Lock()

    def request(self, name: str, spec: CallSpec, parent: str = "") -> Request:
        return call_request(name, spec)

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        return self._handle(name) if name in self._calls or name in self._ended else None

    def _handle(self, name: str) -> Handle:
        return Handle(name=name, id=name, url=f"{self._home}/_calls/{name}.log")

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        name = request["name"]
        with self._lock:
            if name in self._calls or name in self._ended:
                raise ConflictError(f"call {name!r} has been made already")
            # Both are read and closed when the call ends.
            log, value = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
            try:
                child = subprocess.Popen(
                    [sys.executable, "-P", "-u", _CALLED],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    env={**os.environ, **request["env"]},
                    pass_fds=[value.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                raise UnavailableError(f"call {name!r} cannot be started: {error}") from error
            result = request["env"]["PORTAFLOW_RESULT"]
            self._calls[name] = _Call(child, log, value, result, request["grace"])
        if child.stdin:
            asked = {**request, "value": value.fileno()}
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            child.stdin.flush()
        return self._handle(name)

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        return {h.name: self._status(h.name) for h in handles}

    def _status(self, name: str) -> Status | NotFoundError:
        with self._lock:
            return self._looked_at(name)

    def _looked_at(self, name: str) -> Status | NotFoundError:
        if name in self._ended:
            return self._ended[name]
        if name not in self._calls:
            return NotFoundError(f"call {name!r} is not of this engine")
        call = self._calls[name]
        code = call.child.poll()
        if code is None:
            if call.kill_at is not None and time.monotonic() >= call.kill_at:
                _kill_group(call.child.pid)
            return Status(state=State.RUNNING)
        if call.child.stdin:
            call.child.stdin.close()
        _kill_group(call.child.pid)  # what the function left behind
        verdict = self._returned(call) if code == 0 else None
        tail = _tail(call.log) + self._keep(name, call.log)
        self._ended[name] = verdict or _verdict(call.kill_at is not None, code, tail)
        del self._calls[name]
        call.log.close()
        call.value.close()
        return self._ended[name]

    def _returned(self, call: _Call) -> Status | None:
        """Put what the function returned where a task's value is; a Status when that is refused.

        Raises when it may work again later: the call has not ended before.
        """
        call.value.seek(0)
        if not (data := call.value.read()):
            return None
        try:
            with store_errors(call.result):
                fs = self._stores(call.result)
                fs.makedirs(call.result.rpartition("/")[0], exist_ok=True)
                fs.pipe_file(call.result, data)
        except BackendError as error:
            if error.retryable:
                raise
            return Status(state=State.FAILED, reason=str(error), cause=Cause.DENIED)
        return None

    def _keep(self, name: str, log: IO[bytes]) -> str:
        """Copy the log into the store; return what went wrong: that is no failed call."""
        path = f"{self._home}/_calls/{name}.log"
        log.seek(0)
        try:
            with store_errors(path), self._stores(path).open(path, "wb") as kept:
                for piece in masked(iter(lambda: log.read(_CHUNK), b"")):
                    kept.write(piece)
        except PortaflowError as error:
            return f"\n(its log was not kept: {error})"
        return ""

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        # How much was read of what was written, and shown: the store holds what is shown.
        read, start = map(int, (cursor or "0:0").split(":"))
        if call := self._calls.get(handle.name):
            with suppress(ValueError):  # closed just now: it is in the store
                raw = os.pread(call.log.fileno(), _CHUNK, read)
                data, rest = mask(raw)
                read += len(raw) - len(rest)
                return LogChunk(data=data, cursor=f"{read}:{start + len(data)}", end=False)
        path = f"{self._home}/_calls/{handle.name}.log"
        with store_errors(path):
            data = self._stores(path).cat_file(path)[start : start + _CHUNK]
        return LogChunk(data=data, cursor=f"{read}:{start + len(data)}", end=len(data) < _CHUNK)

    def stop(self, handle: Handle) -> None:
        if call := self._calls.get(handle.name):
            if call.kill_at is None:
                call.kill_at = time.monotonic() + call.grace
                call.child.terminate()
            else:  # politeness has had its time
                _kill_group(call.child.pid)
                with suppress(subprocess.TimeoutExpired):
                    call.child.wait(1)
                self._status(handle.name)  # it may be that nobody polls any more

    def owned(self, owner: str = "") -> Iterable[Handle]:
        return [self._handle(name) for name in list(self._calls)]


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _tail(log: IO[bytes]) -> str:
    log.seek(max(log.seek(0, os.SEEK_END) - 4 * _TAIL, 0))
    end, _ = mask(log.read(), ended=True)
    lines = end.decode(errors="replace").strip().splitlines()
    return "\n".join(lines[-5:])[-_TAIL:]


def _verdict(asked: bool, code: int, tail: str) -> Status:
    if asked:
        return Status(state=State.STOPPED, reason=tail)
    if code == 0:
        return Status(state=State.SUCCEEDED, exit_code=0)
    code = 128 - code if code < 0 else code
    reason = f"exit code {code}\n{tail}".strip()
    return Status(state=State.FAILED, reason=reason, exit_code=code, cause=Cause.USER)
