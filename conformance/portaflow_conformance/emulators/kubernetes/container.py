"""One container of a pod: from its image to its last exit code, through its restarts."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree

from . import images, podspec, volumes
from .health import Health
from .images import PullError
from .logs import Log
from .problems import Json
from .process import Process, Sink
from .resources import SERVICES
from .runtime import Order, Runtime
from .sandbox import Mount, Unmountable
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
    runtime: Runtime
    pace: float
    log_size: int  # bytes after which a log is rotated
    address: str
    # Few containers are set up at a time: else the API server, which shares the processors
    # with a hundred of them, does not get its turn.
    setups: asyncio.Semaphore
    disk: Executor  # one thread: a folder that is removed may keep the kernel busy for long
    token: Callable[[str, str, int], str]  # of a namespace's account, for some seconds
    revoke: Callable[[str], None]  # a token
    pulled: Callable[[str], None]  # what the node lists from now on

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
    def begun(self) -> bool:
        """Whether it runs or has run, also when it waits for its next run."""
        return "waiting" not in self.state or bool(self.last)

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
                    **self._machine.runtime.env, "HOSTNAME": name, **dict(image.env), **env
                }  # fmt: skip
                words = images.command(self.spec, image)
                return [volumes.expanded(w, env) for w in words], self._mounts()
            tries += 1
            pause = _BACK_OFF * 2 ** (tries - 1) * self._machine.pace
            if await self._stopped(min(pause, _LONGEST * self._machine.pace) or 0.05):
                return None
        return None

    async def _pull(self) -> images.Image:
        reference, runtime = self.spec["image"], self._machine.runtime
        if self._pulled:
            return await runtime.image(reference, pull=False)
        policy = self.spec.get("imagePullPolicy")
        if policy != "Always" and await runtime.has(reference):
            told = f'Container image "{reference}" already present on machine'
            image = await runtime.image(reference, pull=False)
        elif policy == "Never":
            told = f'Container image "{reference}" is not present with pull policy of Never'
            raise PullError("ErrImageNeverPull", told)
        else:
            told = f'Successfully pulled image "{reference}"'
            self._around.event("Normal", "Pulling", f'Pulling image "{reference}"')
            await self._stopped(_PULL * self._machine.pace)
            image = await runtime.image(reference, pull=True)
            self._machine.pulled(reference)
        self._pulled = True
        self._around.event("Normal", "Pulled", told)
        return image

    def _mounts(self) -> list[Mount]:
        message = self._message_file()
        message.parent.mkdir(parents=True, exist_ok=True)
        message.write_bytes(b"")
        message.chmod(0o666)
        where = self.spec.get("terminationMessagePath") or "/dev/termination-log"
        mounts = [*self._around.volumes.mounts(self.spec, self.env), Mount(message, where)]
        store, pod = self._machine.store, self._around.pod()
        named = pod["spec"].get("hostAliases") or next(store.each(SERVICES), None)
        if named and self._machine.runtime.mounts:
            names = self._around.folder / "hosts"
            names.write_text(volumes.hosts(store, pod, self._machine.address))
            mounts.append(Mount(names, "/etc/hosts"))
        return mounts

    def _message_file(self) -> Path:
        return self._around.folder / "messages" / self.name

    async def _run(self, command: list[str], mounts: list[Mount]) -> None:
        """Run it once; leaves `state` terminated, unless the pod is stopped before it starts."""
        started = self._machine.store.now()
        async with self._machine.setups:
            if self._around.stopping.is_set():
                return
            log = await self._begin(command, mounts, started)
            process = self.process
            if log is None or process is None:
                return
            await process.inside()
        watches = [
            asyncio.ensure_future(self._health.watch()), asyncio.ensure_future(process.limit())
        ]  # fmt: skip
        try:
            code = await process.ended
        finally:
            for watch in watches:
                watch.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
        log.close()
        if told := await process.conclude():
            self.process = None
            self._not_started(told, started)
            return
        reason = "OOMKilled" if process.oom else "Completed" if code == 0 else "Error"
        self.process = None
        self._end_state(code, reason, started, self._message(log, code))

    async def _begin(self, command: list[str], mounts: list[Mount], started: str) -> Log | None:
        """Start the process; None when it cannot be, which `state` then tells."""
        log = Log(
            self._around.folder / "logs" / f"{self.name}.{self.restarts}", self._machine.log_size
        )
        self.logs = [*self.logs[1 - _LOGS :], log] if self.logs else [log]
        unique = uuid.uuid4().hex
        self._id = f"{self._machine.runtime.scheme}://{unique}"
        self._around.event("Normal", "Created", f"Created container: {self.name}")
        base = self._around.folder / "roots" / self.name
        base.mkdir(parents=True, exist_ok=True)
        limit = ((self.spec.get("resources") or {}).get("limits") or {}).get("memory")
        order = Order(
            name=f"{self.name}-{unique}", host=self._around.pod()["metadata"]["name"],
            image=self.spec["image"], command=command, env=self.env, mounts=mounts,
            work=self.spec.get("workingDir") or "", base=base, security=self.security,
            memory=int(podspec.quantity(limit)) if limit is not None else None,
            stdin=bool(self.spec.get("stdin")), terminal=bool(self.spec.get("tty")),
        )  # fmt: skip
        try:
            process = await self._machine.runtime.start(order, partial(self._take, log))
        except (OSError, Unmountable) as error:
            log.close()
            self._not_started(str(error), started)
            return None
        if self._around.stopping.is_set():  # while it was being made
            process.kill()
            await process.ended
            await process.conclude()
            log.close()
            return None
        self.process = process
        self._health = self._new_health()
        self.state = {"running": {"startedAt": started}}
        self._around.event("Normal", "Started", f"Started container: {self.name}")
        self._around.changed()
        return log

    def _not_started(self, why: str, started: str) -> None:
        text = f"failed to create containerd task: {why}"
        self._around.event("Warning", "Failed", f"Error: {text}")
        self._end_state(128, "StartError", started, text)

    def _take(self, log: Log, stream: str, data: bytes) -> None:
        """What the container writes goes to its log and to those who listen."""
        log.write(stream, data)
        for sink in self.attached:
            sink(stream, data)

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
        if self.process is None:
            return None
        env = {**self.env, **({"TERM": "xterm"} if terminal else {})}
        return await self._machine.runtime.beside(
            self.process, command, env, self._around.folder, sink, self.security,
            stdin=stdin, terminal=terminal,
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
