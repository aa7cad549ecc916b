"""Containers as processes of this machine, and the base of all that runs as a process.

A thing is a folder `{root}/{kind}s/{name}`: `request.json`, `lock`, `log`, and the marks
`stopping`, `expired` and `building`. It is alive exactly while its lock is held: the kernel
frees it when the shim is gone, so no pid is ever trusted by itself, and any process can
find, poll and stop it. In the lock are two lines, the shim's pid and the exit code. What a
command starts with setsid escapes the group that is signalled; nothing else does.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from portaflow.backend import (
    SUPPORTED,
    Capability,
    Cause,
    ContainerRun,
    ContainerSpec,
    Driver,
    Finding,
    Fit,
    Handle,
    LogChunk,
    Machines,
    Request,
    Size,
    Spec,
    State,
    Status,
    Support,
    Verdict,
)
from portaflow.errors import (
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)

from . import environment, secret
from .shim import end_orphans, spawn

SpecT = TypeVar("SpecT", bound=Spec)

_CHUNK = 2**20  # bytes of log returned at once
_TAIL = 2000  # bytes of log told with a failure
_FULL = 2**16  # bytes free, below which a disk is full
_CLAIM = 5.0  # seconds in which somebody who claims a name has started the thing
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessDriver(Driver[SpecT]):
    """Runs commands as process groups. A subclass says what a spec's command is.

    Its requests hold "name", "owner", "ttl", "grace", "command" (a list), "env", "secrets".
    """

    tail_bytes = 4 * _TAIL  # of the log that are looked at for a reason

    def __init__(self, root: Path, kind: str) -> None:
        self.folder = Path(root) / f"{kind}s"
        self.kind = kind
        self._children: dict[str, int] = {}  # of this process, to be reaped

    def launch(self, request: Request, home: Path, parent: Handle | None) -> _Launch:
        """Return the command and environment of a request, as they are on this machine."""
        env = {"PATH": _PATH, "HOME": str(home / "work"), "LANG": "C.UTF-8", **request["env"]}
        return _Launch(list(request["command"]), env)

    def machines(self, request: Request) -> Sequence[Machines]:
        return ()

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        home = self.folder / name
        held, told = _look(home)
        there = told or (held and (home / "request.json").exists())
        return self._handle(name) if there else None

    def _handle(self, name: str) -> Handle:
        return Handle(name=name, id=name, url=(self.folder / name).as_uri())

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        name = request["name"]
        home = self.folder / name
        with _disk(home):
            (home / "work").mkdir(parents=True, exist_ok=True)
            with _claimed(home) as lock:
                if lock is None:
                    if _request(home) != json.loads(json.dumps(request)):
                        raise ConflictError(f"{self.kind} {name!r} exists with another request")
                    return self._handle(name)
                env = secret.resolve(request.get("secrets", {}))
                launch = self.launch(request, home, parent)
                (home / "request.json").write_bytes(json.dumps(request).encode())
                words = {**launch.env, **env}
                self._children[name] = spawn(home, request, launch.command, words, lock)
        return self._handle(name)

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        return {h.name: self._status(h.name) for h in handles}

    def _status(self, name: str) -> Status | NotFoundError:
        home = self.folder / name
        held, told = _look(home)
        if held:
            starting = not told or (home / "building").exists()
            return Status(state=State.PENDING if starting else State.RUNNING)
        if not told:
            return NotFoundError(f"{self.kind} {name!r} is not known in {self.folder}")
        self._reap(name)
        pid, code = told[0], told[1] if len(told) > 1 else None
        if code is None:
            end_orphans(pid)
        expired, stopped = (home / "expired").exists(), (home / "stopping").exists()
        if code == 0 and not expired and not stopped:
            return Status(state=State.SUCCEEDED, exit_code=0)
        tail = self._tail(home)
        if expired:
            ttl = _request(home).get("ttl")
            reason = f"its time-to-live of {ttl} s was over\n{tail}".strip()
            return Status(state=State.STOPPED, reason=reason, exit_code=code)
        if stopped:
            reason = f"it was asked to stop\n{tail}".strip()
            return Status(state=State.STOPPED, reason=reason, exit_code=code)
        if code is None:
            reason = "killed from outside, or the machine restarted"
            return Status(state=State.FAILED, reason=f"{reason}\n{tail}".strip(), cause=Cause.INFRA)
        return self.failure(home, code, tail)

    def failure(self, home: Path, code: int, tail: str) -> Status:
        """Say why a command failed that ended with `code` and the log's last lines `tail`."""
        if (home / "building").exists():
            reason = f"the environment could not be built\n{tail}"
            return Status(state=State.FAILED, reason=reason, exit_code=code, cause=Cause.USER)
        killed = ": killed from outside, perhaps as memory ran out" if code == 137 else ""
        reason = f"{exit_reason(code)}{killed}\n{tail}".strip()
        return Status(state=State.FAILED, reason=reason, exit_code=code, cause=Cause.USER)

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        home = self.folder / handle.name
        ended = not _held(home)  # looked at first: what was written by then is all there is
        start = int(cursor or 0)
        try:
            with (home / "log").open("rb") as log:
                log.seek(start)
                data = log.read(_CHUNK)
        except FileNotFoundError:
            if not home.exists():
                raise NotFoundError(f"{self.kind} {handle.name!r} is not known") from None
            data = b""
        end = ended and len(data) < _CHUNK
        hidden = secret.known(_request(home).get("secrets", {}))
        data = data if end else secret.uncut(data, hidden)
        position = str(start + len(data))
        return LogChunk(data=secret.without(data, hidden), cursor=position, end=end)

    def _tail(self, home: Path) -> str:
        try:
            with (home / "log").open("rb") as log:
                log.seek(max((home / "log").stat().st_size - self.tail_bytes, 0))
                hidden = secret.known(_request(home).get("secrets", {}))
                data = secret.without(log.read(), hidden)
        except FileNotFoundError:
            return ""
        told = self.telling(data.decode(errors="replace"))[-_TAIL:]
        if shutil.disk_usage(home).free < _FULL:  # which may be why, and why the log is cut
            told = f"{told}\nthe disk that holds {self.folder.parent} is full".strip()
        return told

    def telling(self, log: str) -> str:
        """The lines that say best how it ended, from the last `tail_bytes` of the log."""
        return "\n".join(log.strip().splitlines()[-5:])

    def stop(self, handle: Handle) -> None:
        home = self.folder / handle.name
        if not _held(home):
            return
        with _disk(home):
            (home / "stopping").touch()
        held, told = _look(home)
        if held and told:
            try:
                os.kill(told[0], signal.SIGTERM)  # the shim tells its group
            except ProcessLookupError:
                return

    def owned(self, owner: str = "") -> Iterable[Handle]:
        for home in sorted(self.folder.glob("*")):
            if _held(home) and owner in ("", _request(home).get("owner")):
                yield self._handle(home.name)

    def _reap(self, name: str) -> None:
        if pid := self._children.pop(name, None):
            try:
                os.waitpid(pid, 0)
            except ChildProcessError:
                return


@dataclass(frozen=True)
class _Launch:
    """The words of a command and its whole environment, but for the secrets."""

    command: list[str]
    env: dict[str, str]


class ContainerDriver(ProcessDriver[ContainerSpec]):
    """A container's command as a process, in an environment made from its requirements."""

    def __init__(self, root: Path, cache: Path) -> None:
        super().__init__(root, "container")
        self._cache = cache

    def request(self, name: str, spec: ContainerSpec, parent: str = "") -> Request:
        if not (command := [*spec.command, *spec.args]):
            raise RejectedError(
                f"image {spec.image!r}: a process has no image and so no entrypoint; "
                "give the task a command"
            )
        return {
            "name": name,
            "owner": spec.owner,
            "ttl": spec.ttl,
            "grace": spec.grace,
            "command": command,
            "env": dict(spec.env),
            "secrets": dict(spec.secrets),
            "context": spec.context,
            "digest": spec.digest,
        }

    def fit(self, spec: ContainerSpec) -> Mapping[str, Fit]:
        fits = {}
        if spec.image:
            cause = "no image: the command runs here, in an environment from requirements.txt"
            fits["image"] = Fit(Verdict.APPROXIMATED, cause)
        if spec.size != Size() and not spec.size.gpu:
            fits["size"] = Fit(Verdict.APPROXIMATED, "a process shares the machine, unlimited")
        return fits

    def launch(self, request: Request, home: Path, parent: Handle | None) -> _Launch:
        launch = super().launch(request, home, parent)
        context = Path(request["context"]) if request["context"] else None
        if context is None:
            launch.env["PATH"] = f"{environment.here()}:{launch.env['PATH']}"
            return launch
        shutil.copytree(context, home / "work", dirs_exist_ok=True)
        python, wanted = environment.prepare(context, self._cache)
        launch.env["PATH"] = f"{python.parent}:{launch.env['PATH']}"
        if wanted:
            (home / "building").touch()
            launch.command[:0] = wanted
            launch.env.update(environment.for_build())
        return launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """`root`: where things are kept. `cache`: for environments; "" is the user's cache."""

    root: Path = Path(".portaflow/local")
    cache: str = ""


class Processes(ContainerRun):
    """Runs a container's command as a process of this machine."""

    name = "process"
    Config = Config
    capabilities = {
        Capability.SECRETS: SUPPORTED,
        Capability.IMAGES: Support(False, "a process has no image"),
        Capability.LIMITS: Support(False, "a process shares the machine"),
        Capability.GPU: Support(False, "a process sees all devices of the machine, or none"),
    }

    @property
    def containers(self) -> ContainerDriver:
        return ContainerDriver(self.config.root, environment.cache_folder(self.config.cache))

    def check(self) -> Iterable[Finding]:
        yield writable(self.config.root, "state of processes")
        yield writable(environment.cache_folder(self.config.cache), "cache of environments")


def exit_reason(code: int) -> str:
    """Say an exit code, and the signal that it stands for if it stands for one."""
    if code > 128 and code - 128 in signal.valid_signals():
        return f"exit code {code} ({signal.Signals(code - 128).name})"
    return f"exit code {code}"


def writable(folder: Path, what: str) -> Finding:
    """Find out whether a folder can be made and written, and has a gibibyte left."""
    name = f"{what} in {folder}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        fix = "choose another folder in portaflow.toml"
        return Finding(what=name, ok=False, detail=str(error), fix=fix)
    if not os.access(folder, os.W_OK):
        return Finding(what=name, ok=False, detail="not writable", fix=f"chmod u+w {folder}")
    detail = f"{free:.1f} GiB free"
    return Finding(
        what=name, ok=free >= 1, detail=detail, fix="" if free >= 1 else "free some disk"
    )


@contextmanager
def _claimed(home: Path) -> Iterator[int | None]:
    """Hold the lock of a thing that was never started; None when it was.

    A poll holds the lock for an instant too, so a lock that is held proves nothing until
    there is a pid.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    lock = os.open(home / "lock", flags, 0o600)
    try:
        deadline = time.monotonic() + _CLAIM
        while not _numbers(lock):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UnavailableError(f"{home}: somebody holds its lock") from None
                time.sleep(0.001)
                continue
            yield None if _numbers(lock) else lock
            return
        yield None
    finally:
        os.close(lock)


def _look(home: Path) -> tuple[bool, list[int]]:
    """Whether a thing's lock is held, and after that what is in it: pid and exit code."""
    try:
        lock = os.open(home / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False, []
    try:
        held = False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            held = True
        return held, _numbers(lock)
    finally:
        os.close(lock)


def _held(home: Path) -> bool:
    return _look(home)[0]


def _numbers(lock: int) -> list[int]:
    """The numbers that are wholly written."""
    lines, _, _ = os.pread(lock, 64, 0).rpartition(b"\n")
    return [int(line) for line in lines.split()]


def _request(home: Path) -> dict[str, Any]:
    try:
        request: dict[str, Any] = json.loads((home / "request.json").read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return request


@contextmanager
def _disk(home: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise DeniedError(f"{home}: {error.strerror}; choose another root") from error
    except OSError as error:
        raise UnavailableError(f"{home}: {error}") from error
