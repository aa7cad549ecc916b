"""One container of a pod: from its image to its last exit code, through its restarts."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree

from . import images, podspec, volumes
from .health import Health
from .images import Images, PullError
from .logs import Log
from .problems import Json
from .process import Process, Sink
from .sandbox import Mount, Sandbox, Unmountable
from .security import Security, Unsafe
from .store import Store

_PULL = 0.5  # seconds that an image takes at pace 1
_BACK_OFF, _LONGEST = 10.0, 300.0  # seconds at pace 1, doubled each time
_LOGS = 2  # runs whose logs are kept
_MESSAGE = 4096  # bytes of a termination message


@dataclass(frozen=True, slots=True)
class Machine:
    """What all containers of a node share."""

    store: Store
    sandbox: Sandbox
    images: Images
    pace: float
    log_size: int  # bytes after which a log is rotated
    base_env: Mapping[str, str]
    address: str
    # Few containers are set up at a time: else the API server, which shares the processors
    # with a hundred of them, does not get its turn.
    setups: asyncio.Semaphore
    disk: Executor  # one thread: a folder that is removed may keep the kernel busy for long
    token: Callable[[str, str, int], str]  # of a namespace's account, for some seconds

    async def remove(self, *folders: Path) -> None:
        """Take folders away, and let clients have their turn meanwhile."""
        loop = asyncio.get_running_loop()
        for folder in folders:
            await loop.run_in_executor(self.disk, partial(rmtree, folder, ignore_errors=True))


@dataclass(frozen=True, slots=True)
class Around:
    """What a container is told by its pod. `changed` publishes; `event` records."""

    pod: Callable[[], Json]  # as it is now
    folder: Path
    volumes: volumes.Volumes
    stopping: asyncio.Event
    changed: Callable[[], None]
    event: Callable[[str, str, str], None]  # type, reason, message


class Container:
    """`state`, `last` and `restarts` are what the pod's status tells of it."""

    def __init__(self, machine: Machine, around: Around, spec: Json, *, init: bool) -> None:
        self._machine = machine
        self._around = around
        self.spec = spec
        self.name: str = spec["name"]
        self.init = init
        waiting = "PodInitializing" if init or around.pod()["spec"].get("initContainers") else (
            "ContainerCreating"
        )  # fmt: skip
        self.state: Json = {"waiting": {"reason": waiting}}
        self.last: Json = {}
        self.restarts = 0
        self.process: Process | None = None
        self.env: dict[str, str] = {}
        self.logs: list[Log] = []  # of its runs, newest last
        self.attached: list[Sink] = []  # clients that get its output as it comes
        self.security = Security()
        self._health = self._new_health()
        self._asked: Process | None = None  # to end, with what goes before that
        self._id = ""
        self._pulled = False

    def _new_health(self) -> Health:
        grace = self._around.pod()["spec"].get("terminationGracePeriodSeconds", 30)
        around = self._around
        return Health(self, self._machine.address, grace, around.changed, around.event)

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs or before."""
        ended = self.state.get("terminated")
        return int(ended["exitCode"]) if ended else None

    @property
    def before(self) -> list[Log]:
        """The log of the run before the one that runs, or that will."""
        return self.logs if "waiting" in self.state and self.last else self.logs[:-1]

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def ready(self) -> bool:
        return self.running and self._health.ready

    def status(self) -> Json:
        done = self.init and self.code == 0
        return {
            "name": self.name,
            "image": self.spec["image"],
            "imageID": f"local://{self.spec['image']}" if self._pulled else "",
            **({"containerID": self._id} if self._id else {}),
            "state": self.state,
            "lastState": self.last,
            "ready": (self.ready and not self.init) or done,
            "started": self.running and self._health.started,
            "restartCount": self.restarts,
        }

    async def keep(self) -> None:
        """Run it, again and again as the restart policy wants; return when that is over."""
        failures = 0
        while not self._around.stopping.is_set():
            prepared = await self._prepared()
            if prepared is None or self._around.stopping.is_set():
                return
            await self._run(*prepared)
            policy = self._around.pod()["spec"].get("restartPolicy")
            over = policy == "Never" or (self.code == 0 and (self.init or policy == "OnFailure"))
            if over or self._around.stopping.is_set():
                return
            failures += 1
            self.last = self.state
            delay = min(_BACK_OFF * 2 ** (failures - 1), _LONGEST) * self._machine.pace
            pod = self._around.pod()
            told = (
                f"back-off {delay:g}s restarting failed container={self.name} "
                f"pod={pod['metadata']['name']}_{pod['metadata']['namespace']}"
                f"({pod['metadata']['uid']})"
            )
            self._wait_state("CrashLoopBackOff", told)
            self._around.event(
                "Warning", "BackOff", f"Back-off restarting failed container: {told}"
            )
            if await self._stopped(delay):
                self.state = self.last  # it ended by itself, before anybody stopped it
                return
            self.restarts += 1

    async def _prepared(self) -> tuple[list[str], list[Mount]] | None:
        """Wait for image and environment; None when the pod is stopped before."""
        tries = 0
        while not self._around.stopping.is_set():
            try:
                image = await self._pull()
                env = volumes.environment(
                    self._machine.store, self._around.pod(), self.spec, self._machine.address
                )
                self.security = Security.of(self._around.pod(), self.spec, image.user)
            except PullError as error:
                told = str(error)
                self._around.event("Warning", "Failed", f"Failed to pull image: {told}")
                self._wait_state(error.reason, told)
                if await self._stopped(self._machine.pace):
                    return None
                if error.reason == "ErrImagePull":
                    told = f'Back-off pulling image "{self.spec["image"]}": ErrImagePull: {told}'
                    self._around.event("Normal", "BackOff", told)
                    self._wait_state("ImagePullBackOff", told)
            except (volumes.Missing, Unsafe) as error:
                self._around.event("Warning", "Failed", f"Error: {error}")
                self._wait_state("CreateContainerConfigError", str(error))
            else:
                name = self._around.pod()["metadata"]["name"]
                self.env = {
                    **self._machine.base_env, "HOSTNAME": name, **dict(image.env), **env
                }  # fmt: skip
                words = images.command(self.spec, image)
                return [volumes.expanded(w, env) for w in words], self._mounts()
            tries += 1
            pause = _BACK_OFF * 2 ** (tries - 1) * self._machine.pace
            if await self._stopped(min(pause, _LONGEST * self._machine.pace) or 0.05):
                return None
        return None

    async def _pull(self) -> images.Image:
        reference, machine = self.spec["image"], self._machine
        if self._pulled:
            return machine.images.find(reference)
        if self.spec.get("imagePullPolicy") != "Always" and reference in machine.images.pulled:
            told = f'Container image "{reference}" already present on machine'
            image = machine.images.find(reference)
        else:
            told = f'Successfully pulled image "{reference}"'
            self._around.event("Normal", "Pulling", f'Pulling image "{reference}"')
            await self._stopped(_PULL * machine.pace)
            image = machine.images.find(reference)
            machine.images.pulled.add(reference)
        self._pulled = True
        self._around.event("Normal", "Pulled", told)
        return image

    def _mounts(self) -> list[Mount]:
        message = self._message_file()
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_bytes(b"")
        message.chmod(0o666)
        where = self.spec.get("terminationMessagePath") or "/dev/termination-log"
        return [*self._around.volumes.mounts(self.spec, self.env), Mount(message, where)]

    def _message_file(self) -> Path:
        return self._around.folder / "messages" / self.name

    async def _run(self, command: list[str], mounts: list[Mount]) -> None:
        """Run it once; leaves `state` terminated, unless the pod is stopped before it starts."""
        started = self._machine.store.now()
        async with self._machine.setups:
            if self._around.stopping.is_set():
                return
            log = self._begin(command, mounts, started)
            if log is None:
                return
            process = self.process
            assert process is not None
            await process.inside()
        limit = ((self.spec.get("resources") or {}).get("limits") or {}).get("memory")
        watches = [asyncio.ensure_future(self._health.watch())]
        if limit is not None:
            watches.append(asyncio.ensure_future(process.limit(int(podspec.quantity(limit)))))
        try:
            code = await process.ended
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
        log.close()
        reason = "OOMKilled" if process.oom else "Completed" if code == 0 else "Error"
        self.process = None
        self._end_state(code, reason, started, self._message(log, code))

    def _begin(self, command: list[str], mounts: list[Mount], started: str) -> Log | None:
        """Start the process; None when it cannot be, which `state` then tells."""
        log = Log(
            self._around.folder / "logs" / f"{self.name}.{self.restarts}", self._machine.log_size
        )
        self.logs = [*self.logs[1 - _LOGS :], log] if self.logs else [log]
        self._id = f"process://{uuid.uuid4().hex}"
        self._around.event("Normal", "Created", f"Created container: {self.name}")
        base = self._around.folder / "roots" / self.name
        base.mkdir(parents=True, exist_ok=True)
        try:
            self._check(command, mounts)
            folder = self.spec.get("workingDir") or "/"
            wrapped = self._machine.sandbox.command(
                base, command, mounts, folder, self.security, terminal=bool(self.spec.get("tty"))
            )
            isolated = self._machine.sandbox.isolated
            outside = Path(folder) if not isolated and self.spec.get("workingDir") else base
            self.process = Process(
                wrapped, env=self.env, folder=outside, sink=partial(self._take, log),
                isolated=isolated, stdin=bool(self.spec.get("stdin")),
                terminal=bool(self.spec.get("tty")),
            )  # fmt: skip
        except (OSError, Unmountable) as error:
            log.close()
            text = f"failed to create containerd task: {error}"
            self._around.event("Warning", "Failed", f"Error: {text}")
            self._end_state(128, "StartError", started, text)
            return None
        self._health = self._new_health()
        self.state = {"running": {"startedAt": started}}
        self._around.event("Normal", "Started", f"Started container: {self.name}")
        self._around.changed()
        return log

    def _take(self, log: Log, stream: str, data: bytes) -> None:
        """What the container writes goes to its log and to those who listen."""
        log.write(stream, data)
        for sink in self.attached:
            sink(stream, data)

    def _check(self, command: list[str], mounts: list[Mount]) -> None:
        """Refuse what cannot start, as a runtime does: before it runs, not with a code 127."""
        if not command:
            raise FileNotFoundError("no command specified")
        word = command[0]
        if "/" in word:
            inside = any(word.startswith(f"{m.target.rstrip('/')}/") for m in mounts)
            if inside or not word.startswith("/") or os.access(word, os.X_OK):
                return
            raise FileNotFoundError(f'exec: "{word}": stat {word}: no such file or directory')
        if shutil.which(word, path=self.env.get("PATH", "")) is None:
            raise FileNotFoundError(f'exec: "{word}": executable file not found in $PATH')

    def _message(self, log: Log, code: int) -> str:
        data = b""
        with suppress(OSError):
            data = self._message_file().read_bytes()[-_MESSAGE:]
        wants = self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not data and wants and code != 0:
            lines = [line.split(b" ", 3)[3] for line in log.newest()]
            data = b"".join(lines[-80:])[-2048:]
        return data.decode(errors="replace")

    def _end_state(self, code: int, reason: str, started: str, message: str) -> None:
        ended = {
            "exitCode": code, "reason": reason, "startedAt": started,
            "finishedAt": self._machine.store.now(), "containerID": self._id,
        }  # fmt: skip
        if message:
            ended["message"] = message
        self.state = {"terminated": ended}
        self._around.changed()

    def _wait_state(self, reason: str, message: str) -> None:
        self.state = {"waiting": {"reason": reason, "message": message}}
        self._around.changed()

    async def _stopped(self, seconds: float) -> bool:
        """Pause; tell whether the pod was stopped meanwhile."""
        if seconds > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._around.stopping.wait(), seconds)
        return self._around.stopping.is_set()

    async def beside(
        self, command: list[str], sink: Sink, *, stdin: bool = False, terminal: bool = False
    ) -> Process | None:
        """Start another process in the container; None when it does not run. Raises OSError."""
        pid = await self.process.inside() if self.process is not None else None
        if pid is None:
            return None
        words = self._machine.sandbox.inside(pid, command, self.security, terminal=terminal)
        return Process(
            words, env={**self.env, **({"TERM": "xterm"} if terminal else {})},
            folder=self._around.folder, sink=sink, isolated=False, stdin=stdin, terminal=terminal,
        )  # fmt: skip

    async def stop(self, grace: float) -> None:
        """Ask it to end, and kill it after the grace."""
        process = self.process
        if process is None:
            return
        if grace > 0:
            await process.inside()
            if self._asked is not process:
                self._asked = process
                grace = await self._health.before_stop(grace)
            process.signal(signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.ended), grace)
        while not process.ended.done():
            process.kill()
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(process.ended), 0.5)
