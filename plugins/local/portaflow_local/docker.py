"""Containers of a Docker or Podman daemon, through the Docker SDK.

The daemon is the only record: a container has the name that the plan gave it, and labels
that say whose it is, how long it may run and which request it was made from. What the
daemon cannot do by itself, the sentinel does: see sentinel.py.

Law 2: when the image is there, `start` makes the container and starts it. When it is not, a
process of this machine builds or pulls it first (images.py): the container is PENDING
meanwhile, can be stopped, and starts even if portaflow is gone. An image that cannot be had
is a FAILED container, whose log is that of the build or pull.

Ended containers stay, so that they are found and their logs read, until a day after the end
of their time-to-live; then the sentinel of a later run removes them.
"""

from __future__ import annotations

import json
import re
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

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
    State,
    Status,
    Verdict,
)
from portaflow.errors import BackendError, NotFoundError, RejectedError

from . import daemon, environment, images, launch, machine, secret, sentinel
from .machine import Machine
from .process import ContainerDriver, _Launch, exit_reason, writable

_CHUNK = 2**20  # bytes of log returned at once
_TAIL = 5  # lines of log told with a failure
_PERIOD = 100_000  # microseconds over which the share of the processors is counted
_HOST = ("DOCKER_", "XDG_", "SSH_", "HOME", "PATH", "REGISTRY_AUTH_FILE")


class Preparation(ContainerDriver):
    """The process that gets an image and starts the container, under the container's name."""

    def __init__(self, root: Path, cache: Path) -> None:
        super().__init__(root, cache)
        self.folder = Path(root) / "preparations"
        self.kind = "preparation of container"

    def launch(self, request: Request, home: Path, parent: Handle | None) -> _Launch:
        launch = super().launch(request, home, parent)
        launch.env.update(environment.of_host(_HOST))  # to reach the daemon and registries
        return launch

    def failure(self, home: Path, code: int, tail: str) -> Status:
        cause = images.CAUSES.get(code, Cause.INFRA)
        return Status(state=State.FAILED, reason=f"no image\n{tail}".strip(), cause=cause)


class DockerDriver(Driver[ContainerSpec]):
    """Starts, watches and stops containers of one daemon."""

    def __init__(self, url: str, root: Path, cache: Path, user: str) -> None:
        self._url, self._cache, self._user = url, cache, user
        self._preparation = Preparation(root, cache)
        self._lock = threading.Lock()
        self._client: Any = None
        self._ended: dict[str, Status] = {}  # by the daemon's id: an end does not change

    # -- the daemon

    @property
    def _at(self) -> str:
        return daemon.url(self._url)

    @property
    def _api(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = daemon.connect(self._at)
                weakref.finalize(self, self._client.close)
            return self._client

    @cached_property
    def _machine(self) -> Machine:
        return Machine.of(self._api)

    @property
    def _watch(self) -> Path:
        return daemon.folder(self._cache, self._at)

    def _wake(self) -> None:
        sentinel.wake(self._at, self._watch)

    # -- requests

    def request(self, name: str, spec: ContainerSpec, parent: str = "") -> Request:
        if not spec.image and not spec.context:
            raise RejectedError("a container needs an image")
        labels = {daemon.OWNER: spec.owner, daemon.TTL: str(spec.ttl)}
        create: dict[str, Any] = {
            "Image": _reference(spec),
            "Env": [f"{key}={value}" for key, value in spec.env.items()],
            "Labels": {**labels, daemon.GRACE: str(spec.grace)},
            "HostConfig": {
                "CpuPeriod": _PERIOD,
                "CpuQuota": round(spec.size.cpu * _PERIOD),
                "Memory": round(spec.size.memory * 2**30),
                "MemorySwap": round(spec.size.memory * 2**30),
                "Mounts": [{"Type": "bind", "Source": m, "Target": m} for m in spec.mounts],
                # Whole, though the daemon cuts logs by default: cursors count from the start.
                "LogConfig": {"Type": "json-file", "Config": {"max-size": "1000g"}},
                "RestartPolicy": {"Name": "no"},
            },
        }
        if self._user:
            create["User"] = self._user
        if spec.command:
            create["Entrypoint"] = list(spec.command)
        if spec.args or spec.command:
            create["Cmd"] = list(spec.args)
        if spec.size.gpu:
            devices = [{"Count": spec.size.gpu, "Capabilities": [["gpu"]]}]
            create["HostConfig"]["DeviceRequests"] = devices
        return {
            "name": name,
            "owner": spec.owner,
            "ttl": spec.ttl,
            "grace": spec.grace,
            "context": spec.context,
            "secrets": dict(spec.secrets),
            "create": create,
        }

    def fit(self, spec: ContainerSpec) -> Mapping[str, Fit]:
        if spec.size.disk == Size().disk:
            return {}
        return {"size.disk": Fit(Verdict.APPROXIMATED, "a container shares the daemon's disk")}

    def machines(self, request: Request) -> Sequence[Machines]:
        return ()

    # -- life

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        found = daemon.inspect(self._api, name)
        ours = found and daemon.OWNER in (found["Config"]["Labels"] or {})
        if found and ours and daemon.state(found) in daemon.ALIVE | daemon.ENDED:
            return _handle(name)
        # One that was made and never started is nobody's yet: `start` adopts it.
        return _handle(name) if self._preparation.find(name) else None

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        request = json.loads(json.dumps(request))
        name, secrets = request["name"], secret.resolve(request["secrets"])
        self._wake()  # first, so that there is no moment without one
        if launch.adopted(self._api, request):
            return _handle(name)
        self._machine.check(request["create"]["HostConfig"])
        image = request["create"]["Image"]
        if self._preparation.find(name) or not daemon.has_image(self._api, image):
            self._preparation.start(self._prepared(request))
            return _handle(name)
        launch.launch(self._api, self._machine, request, secrets)
        self._wake()
        return _handle(name)

    def _prepared(self, request: Request) -> Request:
        """The request for the process that gets the image; it holds the container's own."""
        python = str(environment.here() / "python")
        spec = ContainerSpec(
            owner=request["owner"],
            ttl=request["ttl"],
            grace=request["grace"],
            command=(python, "-m", "portaflow_local.images", self._at, str(self._watch)),
            secrets=request["secrets"],
        )
        return {**self._preparation.request(request["name"], spec), "docker": request}

    def stop(self, handle: Handle) -> None:
        name = handle.name
        self._preparation.stop(handle)
        found = daemon.inspect(self._api, name)
        if found is None or daemon.state(found) in daemon.ENDED:
            return
        if daemon.state(found) not in daemon.ALIVE:
            daemon.remove(self._api, name)
            return
        owner = (found["Config"]["Labels"] or {}).get(daemon.OWNER, "")
        asked = time.time()
        first = daemon.mark(self._api, name, "stop", owner)
        self._wake()  # for the hard end
        if daemon.kill(self._api, name, _signal(found)) or not first:
            return
        if daemon.ended_before(self._api, name, asked):
            daemon.unmark(self._api, name)

    def owned(self, owner: str = "") -> Iterable[Handle]:
        names = set(daemon.listed(self._api, owner, alive=True))
        names.update(h.name for h in self._preparation.owned(owner))
        return [_handle(name) for name in sorted(names)]

    # -- status

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        if not handles:
            return {}
        rows = daemon.listed(self._api, names=[h.name for h in handles])
        return {h.name: self._status(h, rows.get(h.name)) for h in handles}

    def _status(self, handle: Handle, row: Mapping[str, Any] | None) -> Status | NotFoundError:
        state = str(row["State"]).lower() if row else ""
        if state in daemon.ALIVE:
            return Status(state=State.RUNNING)
        if row and state not in daemon.ENDED:
            return Status(state=State.PENDING)
        if row is None:
            return self._unlisted(handle)
        if row["Id"] not in self._ended:
            found = daemon.inspect(self._api, handle.name)
            if found is None:
                return _unknown(handle.name)
            self._ended[row["Id"]] = self._verdict(handle.name, found)
            sentinel.ring(self._watch)  # it may have been the last
        return self._ended[row["Id"]]

    def _unlisted(self, handle: Handle) -> Status | NotFoundError:
        """The status of what was no container when the list was made."""
        prepared = self._preparation.poll([handle])[handle.name]
        if isinstance(prepared, NotFoundError):
            return _unknown(handle.name)
        if prepared.state is State.RUNNING:
            return Status(state=State.PENDING, reason="getting the image")
        if prepared.state is not State.SUCCEEDED:
            return prepared
        found = daemon.inspect(self._api, handle.name)  # made since the list, or removed
        return Status(state=State.PENDING) if found else _unknown(handle.name)

    def _verdict(self, name: str, found: Mapping[str, Any]) -> Status:
        code, why = int(found["State"]["ExitCode"]), daemon.mark_of(self._api, name)
        if not why and code == 0:
            return Status(state=State.SUCCEEDED, exit_code=0)
        tail = self._tail(name, found)
        if why:
            ttl = (found["Config"]["Labels"] or {}).get(daemon.TTL)
            over = f"its time-to-live of {ttl} s was over"
            reason = f"{over if why == 'ttl' else 'it was asked to stop'}\n{tail}".strip()
            return Status(state=State.STOPPED, reason=reason, exit_code=code)
        memory = found["HostConfig"]["Memory"] / 2**30
        reason = exit_reason(code)
        if found["State"]["OOMKilled"]:
            reason = f"out of memory: it used more than its {memory:g} GiB; {reason}"
        elif code == 137:
            reason += f": killed from outside, or out of memory (its limit is {memory:g} GiB)"
        reason = "\n".join(filter(None, (reason, found["State"]["Error"], tail)))
        return Status(state=State.FAILED, reason=reason, exit_code=code, cause=Cause.USER)

    # -- logs

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        found = daemon.inspect(self._api, handle.name)
        if found is None:
            return self._log_of_preparation(handle, cursor)
        ended = daemon.state(found) in daemon.ENDED  # by then all that is there was written
        data = self._read(handle.name, int(cursor or 0))
        hidden = _hidden(found)
        end = ended and len(data) < _CHUNK
        data = data if end else secret.uncut(data, hidden)
        position = str(int(cursor or 0) + len(data))
        return LogChunk(data=secret.without(data, hidden), cursor=position, end=end)

    def _log_of_preparation(self, handle: Handle, cursor: str) -> LogChunk:
        """What kept the container from starting; nothing while it may still start."""
        prepared = self._preparation.poll([handle])[handle.name]
        if isinstance(prepared, NotFoundError):
            raise _unknown(handle.name)
        if not prepared.state.final or prepared.state is State.SUCCEEDED:
            return LogChunk(data=b"", cursor=cursor, end=False)
        return self._preparation.logs(handle, cursor)

    def _read(self, name: str, start: int) -> bytes:
        """At most a chunk of a log from a position. The daemon has no positions: it sends all."""
        data = bytearray()
        with closing(daemon.frames(self._api, name)) as frames:
            for frame in frames:
                data += frame[start:]
                start = max(start - len(frame), 0)
                if len(data) >= _CHUNK:
                    break
        return bytes(data[:_CHUNK])

    def _tail(self, name: str, found: Mapping[str, Any]) -> str:
        try:
            with daemon.told(f"log of container {name!r}"):
                data: bytes = self._api.logs(name, tail=_TAIL)
        except BackendError as error:  # a lost log is not a lost verdict
            return f"(no log: {error})"
        text = secret.without(data[-65536:], _hidden(found)).decode(errors="replace")
        return "\n".join(text.strip().splitlines()[-_TAIL:])[-2000:]


def _handle(name: str) -> Handle:
    return Handle(name=name, id=name)  # the daemon takes names for ids, and they are unique


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"container {name!r} is not known to the daemon")


def _reference(spec: ContainerSpec) -> str:
    if not spec.context:
        return spec.image
    slug = re.sub(r"[^a-z0-9]+", "-", spec.image.lower()).strip("-") or "image"
    return f"portaflow/{slug}:{spec.digest[:20] or 'latest'}"


def _signal(found: Mapping[str, Any]) -> str:
    return str(found["Config"].get("StopSignal") or "SIGTERM")


def _hidden(found: Mapping[str, Any]) -> list[bytes]:
    """The values of the secrets that a container was given."""
    config = found["Config"]
    names = json.loads((config["Labels"] or {}).get(daemon.SECRETS, "[]"))
    return daemon.values(config["Env"] or (), names)


@dataclass(frozen=True, kw_only=True)
class Config:
    """`url`: of the daemon ("" looks for one). `root`: where builds and pulls are recorded.

    `cache`: for the lock of the sentinel; "" is the user's cache. `user`: who containers run
    as, UID[:GID] or a name that the images know; "" is the image's own user, else who
    machine.py says.
    """

    url: str = ""
    root: Path = Path(".portaflow/local")
    cache: str = ""
    user: str = ""


class Docker(ContainerRun):
    """Runs containers with Docker or Podman."""

    name = "docker"
    Config = Config
    capabilities = {
        Capability.IMAGES: SUPPORTED,
        Capability.LIMITS: SUPPORTED,
        Capability.GPU: SUPPORTED,
        Capability.SECRETS: SUPPORTED,
    }

    @property
    def containers(self) -> DockerDriver:
        cache = environment.cache_folder(self.config.cache)
        return DockerDriver(self.config.url, self.config.root, cache, self.config.user)

    def check(self) -> Iterable[Finding]:
        cache = environment.cache_folder(self.config.cache)
        yield writable(self.config.root, "records of image builds")
        yield writable(cache, "lock of the sentinel")
        yield from machine.look(self.config.url, self.config.user)

    def check_image(self, reference: str) -> Finding | None:
        what = f"image {reference}"
        try:
            with daemon.told(what):
                daemon.connect(self.config.url).inspect_image(reference)
        except NotFoundError:
            detail = "not here yet: its first task builds or pulls it"
            return Finding(what=what, ok=True, detail=detail)
        except BackendError:
            return None  # what is wrong with the daemon, `check` says
        return Finding(what=what, ok=True, detail="is here")
