"""The one node: it takes pods that fit, runs them, ends those that are deleted."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..control import Control, Fault
from .container import Machine
from .deletion import leaving
from .events import Events
from .images import whole
from .pod import PodWorker
from .podspec import quantity, requested
from .problems import Json
from .resources import NODES, PODS, VERSION
from .store import Change, Key, Store

NODE = "portaflow"
ALLOCATABLE = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "100Gi", "pods": "250"}
_BINDS = 4  # pods that get their place before clients have their turn
_LISTED = 50  # images that a node tells of
_LABELS = {
    "kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
}  # fmt: skip

logger = logging.getLogger(__name__)


class Kubelet:
    """Scheduler and kubelet in one. `faults` are orders about pods, by uid."""

    def __init__(self, machine: Machine, control: Control, events: Events, folder: Path) -> None:
        self._machine = machine
        self._store: Store = machine.store
        self._control = control
        self._events = events
        self._folder = folder
        self.workers: dict[str, PodWorker] = {}
        self.faults: dict[str, Fault] = {}
        self._waiting: deque[Key] = deque()
        self._refused: set[str] = set()  # uids of those that have been told that they do not fit
        self._free = {name: quantity(amount) for name, amount in ALLOCATABLE.items()}
        self._taken: dict[str, dict[str, Fraction]] = {}  # uid -> what it was given
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looks = False
        self._graces: dict[str, float] = {}  # uid -> what a deletion has given the pod
        self._store.listeners.append(self._changed)

    def register(self) -> None:
        """Make the node known."""
        now = self._store.now()
        ready = {
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "message": "kubelet is posting ready status", "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }  # fmt: skip
        status = {
            "capacity": ALLOCATABLE,
            "allocatable": ALLOCATABLE,
            "conditions": [ready],
            "addresses": [{"type": "InternalIP", "address": self._machine.address}],
            "nodeInfo": {
                "kubeletVersion": f"{VERSION}+portaflow", "containerRuntimeVersion": "process://1",
                "operatingSystem": "linux", "architecture": "amd64", "osImage": "this machine",
                "kernelVersion": "", "machineID": "", "systemUUID": "", "bootID": "",
                "kubeProxyVersion": "",
            },
        }  # fmt: skip
        meta = {"name": NODE, "labels": _LABELS}
        node = {"kind": "Node", "apiVersion": "v1", "metadata": meta, "spec": {}, "status": status}
        self._store.add(NODES, node)

    def pulled(self, reference: str) -> None:
        """List an image with those that the node has."""
        node, mine = self._store.get(NODES, "", NODE), {"names": [whole(reference)], "sizeBytes": 0}
        others = node["status"].get("images") or []
        if mine not in others:
            status = {**node["status"], "images": [mine, *others][:_LISTED]}
            self._store.replace(NODES, {**node, "status": status})

    def _changed(self, change: Change) -> None:
        if change.resource is not PODS:
            return
        pod = change.object
        uid = pod["metadata"]["uid"]
        worker = self.workers.get(uid)
        if change.type == "DELETED":
            self._give_back(uid)
            self._refused.discard(uid)
            self.faults.pop(uid, None)
            self._graces.pop(uid, None)
            if worker is not None:
                self._spawn(self._gone(worker))
        elif pod["metadata"].get("deletionTimestamp"):
            grace = pod["metadata"].get("deletionGracePeriodSeconds") or 0
            if grace < self._graces.get(uid, float("inf")):
                self._graces[uid] = grace
                self._spawn(self._terminated(worker, pod, grace))
        elif change.type == "ADDED":
            self._waiting.append(change.key)
            self._look()
        elif pod["status"].get("phase") in ("Succeeded", "Failed"):
            self._give_back(uid)
        elif worker is not None:
            worker.limit(pod["spec"].get("activeDeadlineSeconds"))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- scheduling

    def _look(self) -> None:
        """Look for pods that fit, once, when what is going on now is done."""
        if not self._looks and self._waiting:
            self._looks = True
            asyncio.get_running_loop().call_soon(self._schedule)

    def _schedule(self) -> None:
        self._looks = False
        bound = 0
        for _ in range(len(self._waiting)):
            if bound == _BINDS:
                self._look()  # again, when clients have had their turn
                return
            key = self._waiting.popleft()
            pod = self._store.find(PODS, *key)
            if pod is None or pod["metadata"].get("deletionTimestamp"):
                continue
            if pod["metadata"]["uid"] in self.workers:
                continue
            if pod["spec"].get("nodeName", NODE) != NODE:
                continue  # of a node that is not there
            if self._free["pods"] < 1 and pod["metadata"]["uid"] in self._refused:
                self._waiting.append(key)  # hundreds may wait: nothing new is to be said of them
                continue
            why = self._unfit(pod)
            if not why:
                self._bind(pod)
                bound += 1
                continue
            self._waiting.append(key)
            self._unschedulable(pod, why)

    def _unfit(self, pod: Json) -> str:
        wanted = {**requested(pod["spec"]), "pods": Fraction(1)}
        lacking = [n for n, amount in wanted.items() if amount > self._free.get(n, Fraction(0))]
        words = ["Too many pods" if n == "pods" else f"Insufficient {n}" for n in lacking]
        labels = self._store.get(NODES, "", NODE)["metadata"].get("labels") or {}
        selector = pod["spec"].get("nodeSelector") or {}
        if any(labels.get(k) != v for k, v in selector.items()):
            words = ["node(s) didn't match Pod's node affinity/selector"]
        if not words:
            return ""
        return f"0/1 nodes are available: {', '.join(f'1 {w}' for w in words)}."

    def _unschedulable(self, pod: Json, why: str) -> None:
        self._refused.add(pod["metadata"]["uid"])
        now = self._store.now()
        condition = {
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why,
            "lastProbeTime": None, "lastTransitionTime": now,
        }  # fmt: skip
        others = pod["status"].get("conditions") or []
        if any(c.get("message") == why for c in others):
            return
        others = [c for c in others if c["type"] != "PodScheduled"]
        status = {**pod["status"], "conditions": [*others, condition]}
        self._store.replace(PODS, {**pod, "status": status})
        self._events.record(pod, "Warning", "FailedScheduling", why, "default-scheduler")

    def _bind(self, pod: Json) -> None:
        meta = pod["metadata"]
        self._refused.discard(meta["uid"])
        taken = {**requested(pod["spec"]), "pods": Fraction(1)}
        self._taken[meta["uid"]] = taken
        for name, amount in taken.items():
            self._free[name] = self._free.get(name, Fraction(0)) - amount
        condition = {
            "type": "PodScheduled", "status": "True", "lastProbeTime": None,
            "lastTransitionTime": self._store.now(),
        }  # fmt: skip
        bound = {
            **pod,
            "spec": {**pod["spec"], "nodeName": NODE},
            "status": {**pod["status"], "conditions": [condition]},
        }
        bound = self._store.replace(PODS, bound)
        told = f"Successfully assigned {meta['namespace']}/{meta['name']} to {NODE}"
        self._events.record(bound, "Normal", "Scheduled", told, "default-scheduler")
        fault = self._control.called(
            "kubernetes:kubelet.RunPod",
            "system:node",
            namespace=meta["namespace"],
            name=meta["name"],
        )
        fault = self.faults.pop(meta["uid"], None) or fault
        worker = PodWorker(
            self._machine, bound, self._folder / meta["uid"], self._record, fault
        )  # fmt: skip
        self.workers[meta["uid"]] = worker
        self._spawn(self._live(worker))

    def _give_back(self, uid: str) -> None:
        for name, amount in self._taken.pop(uid, {}).items():
            self._free[name] += amount
        self._look()

    # -- running

    def _record(self, pod: Json, type_: str, reason: str, message: str) -> None:
        self._events.record(pod, type_, reason, message, "kubelet")

    async def _live(self, worker: PodWorker) -> None:
        try:
            await worker.run()
        except Exception:
            logger.exception("pod %s/%s", *worker.key)
        pod = self._store.find(PODS, *worker.key)
        mine = pod is not None and pod["metadata"]["uid"] == worker.uid
        if pod is not None and mine and pod["metadata"].get("deletionTimestamp"):
            self._remove(pod)

    async def _terminated(self, worker: PodWorker | None, pod: Json, grace: float) -> None:
        """A pod is deleted with grace: stop it, then let it go from the API."""
        if worker is None or worker.done:
            current = self._store.find(PODS, *(pod["metadata"][k] for k in ("namespace", "name")))
            if current is not None and current["metadata"]["uid"] == pod["metadata"]["uid"]:
                self._remove(current)
            return
        await worker.stop(grace)

    def _remove(self, pod: Json) -> None:
        meta = leaving(pod["metadata"], 0, self._store.clock())
        if meta.get("finalizers"):
            self._store.replace(PODS, {**pod, "metadata": meta})
        else:
            self._store.remove(PODS, meta["namespace"], meta["name"])

    async def _gone(self, worker: PodWorker) -> None:
        """A pod is gone from the API: nothing of it may stay."""
        await worker.stop(0)
        while not worker.done:
            await asyncio.sleep(0.01)
        worker.forget()
        self.workers.pop(worker.uid, None)
        await self._machine.remove(worker.folder)

    async def evict(self, namespace: str, name: str, message: str) -> None:
        """Evict a pod as a node under pressure does."""
        uid = self._store.get(PODS, namespace, name)["metadata"]["uid"]
        if (worker := self.workers.get(uid)) is not None and not worker.done:
            await worker.evict(message)

    async def close(self) -> None:
        """End all pods at once."""
        await asyncio.gather(*(w.stop(0) for w in self.workers.values()))
        while any(not w.done for w in self.workers.values()):
            await asyncio.sleep(0.01)
