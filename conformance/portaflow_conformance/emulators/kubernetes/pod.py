"""The life of one pod on the node."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..control import Fault
from .container import Around, Container, Machine
from .problems import Json
from .resources import PODS
from .volumes import Missing, Volumes

Recorder = Callable[[Json, str, str, str], None]  # pod, type, reason, message
_RETRY = 0.2  # seconds until a missing volume is looked for again


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a pod is stopped from outside; told in its status when there is a reason."""

    reason: str = ""
    message: str = ""
    disrupted: bool = False


class PodWorker:
    """Runs the containers of a pod and keeps its status, until both have come to an end."""

    def __init__(
        self, machine: Machine, pod: Json, folder: Path, record: Recorder, fault: Fault | None
    ) -> None:
        self._machine = machine
        self._record = record
        self._fault = fault
        self.folder = folder
        self.uid: str = pod["metadata"]["uid"]
        self.key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._pod = pod  # as last seen
        self._stopping = asyncio.Event()
        self._ending = Ending()
        self._started = machine.store.now()
        self._began = asyncio.get_running_loop().time()
        self._limit: float | None = None
        self._timer: asyncio.Task[None] | None = None
        self._volumes = Volumes(machine.store, pod, folder, machine.token)
        around = Around(
            self.current, folder, self._volumes, self._stopping, self._publish, self._event
        )
        spec = pod["spec"]
        self.inits = [
            Container(machine, around, c, init=True) for c in spec.get("initContainers") or []
        ]
        self.mains = [Container(machine, around, c, init=False) for c in spec["containers"]]
        self._phase = "Pending"
        self.done = False

    def current(self) -> Json:
        found = self._machine.store.find(PODS, *self.key)
        if found is not None and found["metadata"]["uid"] == self.uid:
            self._pod = found
        return self._pod

    def forget(self) -> None:
        """The pod is gone from the API: its logs are closed, and its tokens are good no more."""
        for container in [*self.inits, *self.mains]:
            for log in container.logs:
                log.close()
        for token in self._volumes.tokens:
            self._machine.revoke(token)

    def container(self, name: str) -> Container | None:
        return next((c for c in [*self.inits, *self.mains] if c.name == name), None)

    def _event(self, type_: str, reason: str, message: str) -> None:
        self._record(self.current(), type_, reason, message)

    async def run(self) -> None:
        """Live. Returns when the pod has a final phase or was stopped."""
        (self.folder / "logs").mkdir(parents=True)
        timers = []
        self.limit(self.current()["spec"].get("activeDeadlineSeconds"))
        if self._fault is not None:
            timers.append(asyncio.ensure_future(self._strike(self._fault)))
        try:
            self._publish()
            if await self._admitted() and await self._mounted():
                await self._contain()
        finally:
            self.limit(None)
            for timer in timers:
                timer.cancel()
            self._conclude()
        await self._machine.remove(self.folder / "roots", self.folder / "volumes")

    async def _contain(self) -> None:
        for container in self.inits:
            await container.keep()
            if container.code != 0:
                return
        if not self._stopping.is_set():
            for container in self.mains:
                if container.state.get("waiting", {}).get("reason") == "PodInitializing":
                    container.state = {"waiting": {"reason": "ContainerCreating"}}
            await asyncio.gather(*(c.keep() for c in self.mains))

    async def _admitted(self) -> bool:
        fault = self._fault
        if fault is None or fault.effect not in ("fail", "hang"):
            return True
        if fault.effect == "fail":
            message = "Pod was rejected: a fault on order"
            self._ending = Ending("UnexpectedAdmissionError", message)
            self._stopping.set()
            return False
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), fault.seconds or None)
        return not self._stopping.is_set()

    async def _mounted(self) -> bool:
        told = ""
        while not self._stopping.is_set():
            try:
                self._volumes.make()
            except Missing as error:
                if str(error) != told:
                    told = str(error)
                    self._event("Warning", "FailedMount", f"MountVolume.SetUp failed: {told}")
            else:
                return True
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _RETRY)
        return False

    def limit(self, seconds: float | None) -> None:
        """Take the pod's deadline, counted from its start: it may change while the pod runs."""
        if seconds == self._limit or self.done:
            return
        self._limit = seconds
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.ensure_future(self._deadline(seconds)) if seconds else None

    async def _deadline(self, seconds: float) -> None:
        await asyncio.sleep(self._began + seconds - asyncio.get_running_loop().time())
        message = "Pod was active on the node longer than the specified deadline"
        self._event("Normal", "DeadlineExceeded", message)
        await self.stop(ending=Ending("DeadlineExceeded", message))

    async def _strike(self, fault: Fault) -> None:
        if fault.effect not in ("die", "evict"):
            return
        while not any(c.process for c in self.mains):
            await asyncio.sleep(0.01)
        await asyncio.sleep(fault.seconds)
        if fault.effect == "evict":
            await self.evict("The node was low on resource: memory. Threshold quantity: 100Mi.")
            return
        for container in self.mains:
            if container.process is not None:
                container.process.kill()

    async def evict(self, message: str) -> None:
        self._event("Warning", "Evicted", message)
        await self.stop(0, Ending("Evicted", message, disrupted=True))

    async def stop(self, grace: float | None = None, ending: Ending | None = None) -> None:
        """End all containers; the first reason that is given stays."""
        if ending is not None and not self._ending.reason:
            self._ending = ending
        self._stopping.set()
        if grace is None:
            grace = self.current()["spec"].get("terminationGracePeriodSeconds", 30)
        await asyncio.gather(*(c.stop(grace) for c in [*self.inits, *self.mains]))

    def _conclude(self) -> None:
        """The end of all containers: the phase that never changes again."""
        started = all(c.code is not None for c in self.mains)
        good = started and all(c.code == 0 for c in self.mains) and not self._ending.reason
        self._phase = "Succeeded" if good else "Failed"
        self.done = True
        self._publish()

    def _publish(self) -> None:
        """Write the status, unless the pod is gone or was told its end by somebody else."""
        found = self._machine.store.find(PODS, *self.key)
        if found is None or found["metadata"]["uid"] != self.uid:
            return
        # Not before each has begun: a client that sees it goes on to read any container's log.
        if not self.done and all(c.begun for c in self.mains):
            self._phase = "Running"
        old = found["status"]
        status = {
            **old,
            "phase": self._phase,
            "conditions": self._conditions(old.get("conditions") or []),
            "hostIP": self._machine.address,
            "hostIPs": [{"ip": self._machine.address}],
            "podIP": self._machine.address,
            "podIPs": [{"ip": self._machine.address}],
            "startTime": old.get("startTime") or self._started,
            "containerStatuses": [c.status() for c in self.mains],
        }
        if self.inits:
            status["initContainerStatuses"] = [c.status() for c in self.inits]
        if self.done and self._ending.reason:
            status |= {"reason": self._ending.reason, "message": self._ending.message}
        self._machine.store.replace(PODS, {**found, "status": status})

    def _conditions(self, old: list[Json]) -> list[Json]:
        ready = not self.done and all(c.ready for c in self.mains)
        initialized = all(c.code == 0 for c in self.inits)
        completed = self._phase == "Succeeded"
        why = "PodCompleted" if completed else "PodFailed" if self.done else "ContainersNotReady"
        wanted: list[tuple[str, bool, str]] = [
            ("PodReadyToStartContainers", not self.done, ""),
            ("Initialized", initialized or completed, "ContainersNotInitialized"),
            ("Ready", ready, why),
            ("ContainersReady", ready, why),
        ]
        if self.done and self._ending.disrupted:
            wanted.append(("DisruptionTarget", True, "TerminationByKubelet"))
        before = {c["type"]: c for c in old}
        now = self._machine.store.now()
        for type_, true, reason in wanted:
            word = "True" if true else "False"
            condition: Json = {"type": type_, "status": word}
            if reason and (not true or type_ == "DisruptionTarget"):
                condition["reason"] = reason
            was = before.get(type_) or {}
            moved = was.get("status") != word
            condition["lastTransitionTime"] = now if moved else was["lastTransitionTime"]
            condition["lastProbeTime"] = None
            before[type_] = condition
        return list(before.values())
