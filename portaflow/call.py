"""Calls of the user's Python functions: a driver of the engine's own.

Each call is a process of its own that ends with its engine: it watches the pipe that the
engine holds, which the kernel closes when the engine dies. `python -m portaflow.call` is
the other side.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .backend import Cause, Driver, Handle, LogChunk, Request, State, Status
from .data import store_errors
from .errors import ConflictError, NotFoundError, PortaflowError, UnavailableError
from .plan import CallSpec, call_request

_CHUNK = 2**20


class CallDriver(Driver[CallSpec]):
    """Runs functions of the pipeline in `folder`; logs go to the run's `home` when they end."""

    def __init__(self, fs: Any, home: str, folder: Path) -> None:
        self._fs, self._home, self._folder = fs, home, folder
        self._calls: dict[str, tuple[subprocess.Popen[bytes], IO[bytes]]] = {}
        self._ended: dict[str, Status] = {}
        self._asked: set[str] = set()
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
            log = tempfile.TemporaryFile()  # noqa: SIM115  read and closed when the call ends
            try:
                child = subprocess.Popen(
                    [sys.executable, "-m", "portaflow.call"],
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    env={**os.environ, **request["env"]},
                    start_new_session=True,
                )
            except OSError as error:
                raise UnavailableError(f"call {name!r} cannot be started: {error}") from error
            self._calls[name] = child, log
        if child.stdin:
            child.stdin.write(json.dumps(dict(request)).encode() + b"\n")
            child.stdin.flush()
        return self._handle(name)

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        return {h.name: self._status(h.name) for h in handles}

    def _status(self, name: str) -> Status | NotFoundError:
        if name in self._ended:
            return self._ended[name]
        if name not in self._calls:
            return NotFoundError(f"call {name!r} is not of this engine")
        child, log = self._calls[name]
        code = child.poll()
        if code is None:
            return Status(state=State.RUNNING)
        if child.stdin:
            child.stdin.close()
        _kill_group(child.pid)  # what the function left behind
        log.seek(0)
        text = log.read()
        log.close()
        path = f"{self._home}/_calls/{name}.log"
        try:
            with store_errors(path):
                self._fs.pipe_file(path, text)
        except PortaflowError as error:  # a lost log is not a failed call
            text += f"\n(log not kept: {error})".encode()
        self._ended[name] = self._verdict(name, code, text)
        del self._calls[name]
        return self._ended[name]

    def _verdict(self, name: str, code: int, text: bytes) -> Status:
        tail = "\n".join(text.decode(errors="replace").strip().splitlines()[-5:])[-2000:]
        if name in self._asked:
            return Status(state=State.STOPPED, reason=tail)
        if code == 0:
            return Status(state=State.SUCCEEDED, exit_code=0)
        code = 128 - code if code < 0 else code
        return Status(
            state=State.FAILED, reason=f"exit code {code}\n{tail}", exit_code=code, cause=Cause.USER
        )

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        start = int(cursor or 0)
        if handle.name in self._calls:
            _, log = self._calls[handle.name]
            data = os.pread(log.fileno(), _CHUNK, start)
            return LogChunk(data=data, cursor=str(start + len(data)), end=False)
        path = f"{self._home}/_calls/{handle.name}.log"
        with store_errors(path):
            data = self._fs.cat_file(path)[start : start + _CHUNK]
        return LogChunk(data=data, cursor=str(start + len(data)), end=len(data) < _CHUNK)

    def stop(self, handle: Handle) -> None:
        if call := self._calls.get(handle.name):
            if handle.name in self._asked:  # politeness has had its time
                _kill_group(call[0].pid)
            self._asked.add(handle.name)
            call[0].terminate()

    def owned(self, owner: str = "") -> Iterable[Handle]:
        return [self._handle(name) for name in self._calls]


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _function(reference: str) -> Callable[..., Any]:
    module_name, _, name = reference.rpartition(":")
    sys.path.insert(0, str(Path.cwd()))
    if module_name.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot import {module_name}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(module_name)
    found = getattr(module, name)
    if not callable(found):
        raise TypeError(f"{reference} is no function")
    return found  # type: ignore[no-any-return]


def _end_with_engine() -> None:
    """Wait for the engine's end of the pipe to close: it holds it while it lives."""
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def _call(request: Mapping[str, Any]) -> None:
    value = _function(request["function"])(**request["kwargs"])
    if value is not None:
        import fsspec

        data = json.dumps(value, allow_nan=False).encode()
        fs, path = fsspec.core.url_to_fs(os.environ["PORTAFLOW_RESULT"])
        fs.makedirs(fs._parent(path), exist_ok=True)
        fs.pipe_file(path, data)


def main() -> None:
    """Call the function that the request on standard input names; its value is the result."""
    text = b""
    while not text.endswith(b"\n"):
        part = os.read(0, 65536)
        if not part:  # the engine died while it asked
            sys.exit(1)
        text += part
    sys.stdin = Path(os.devnull).open()  # noqa: SIM115  the pipe is not the function's
    threading.Thread(target=_end_with_engine, daemon=True).start()
    code = 0
    try:
        _call(json.loads(text))
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # as the interpreter does at the end of a program
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # the thread that reads the pipe cannot be joined


if __name__ == "__main__":
    main()
