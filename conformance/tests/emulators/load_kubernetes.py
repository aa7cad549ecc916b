"""Load for the local Kubernetes: what gets lost, how long answers take, what stays behind.

    python conformance/tests/emulators/load_kubernetes.py
    python conformance/tests/emulators/load_kubernetes.py --at-once 30 --in-a-row 20 --jobs 5x4

The server is a process of its own. Pods print numbered lines, which are followed from their
start. The watches of all kinds of objects see every version of the store exactly once when no
event is lost. Cheap requests are timed meanwhile by a third process, over one connection.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import queue
import ssl
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import kubernetes
import psutil
from kubernetes.client import ApiException

_SPAWN = multiprocessing.get_context("spawn")
_LINES = 50  # that each pod prints
_WAIT = 300.0  # seconds that a phase may take
_KINDS = (
    "/api/v1/namespaces", "/api/v1/pods", "/api/v1/configmaps", "/api/v1/secrets",
    "/api/v1/events", "/api/v1/serviceaccounts", "/api/v1/nodes", "/apis/batch/v1/jobs",
)  # fmt: skip


def serve(pipe: Connection) -> None:
    """The server's process: a stand-in until the other end of the pipe has gone."""
    from portaflow_conformance.emulators.clouds import emulate

    os.setsid()  # clients in its session would share its share of the processors
    with emulate("kubernetes", pace=0.02) as clouds:
        pipe.send((clouds.env["KUBECONFIG"], str(clouds.emulators["kubernetes"].place.folder)))
        with suppress(EOFError):
            pipe.recv()


def probe(pipe: Connection, host: str, authority: str, token: str) -> None:
    """The third process: cheap requests one after the other; sends how long each took."""
    where = urllib.parse.urlsplit(host)
    context = ssl.create_default_context(cafile=authority)
    connection = http.client.HTTPSConnection(where.hostname or "", where.port, context=context)
    paths = (
        "/api/v1/namespaces/default/configmaps/kube-root-ca.crt",
        "/api/v1/namespaces/default/configmaps",
        "/api/v1/namespaces/default/pods?limit=20",
    )
    took: list[float] = []
    connection.connect()
    pipe.send("up")
    while not pipe.poll(0.005):
        start = time.perf_counter()
        connection.request("GET", paths[len(took) % 3], headers={"Authorization": token})
        answer = connection.getresponse()
        answer.read()
        took.append(time.perf_counter() - start)
        assert answer.status == 200, answer.status
    connection.close()
    pipe.send(took)


@dataclass
class Figures:
    """What one phase came to."""

    phase: str
    pods: int = 0
    seconds: float = 0.0
    lost_lines: int = 0
    lost_events: int = 0
    repeated_events: int = 0
    failed: list[str] = field(default_factory=list)
    requests: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    worst_ms: float = 0.0
    rss_mb: tuple[float, float] = (0.0, 0.0)  # before and after
    threads: tuple[int, int] = (0, 0)
    descriptors: tuple[int, int] = (0, 0)
    left_processes: int = 0
    left_files: int = 0


class Ledger:
    """The versions that the watches have told, and the phases of pods."""

    def __init__(self, api: kubernetes.client.ApiClient) -> None:
        self._api = api
        self._lock = threading.Condition()
        self._versions: list[int] = []
        self.phases: dict[str, str] = {}
        self.jobs: dict[str, bool] = {}
        self.bad: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.first = self.newest()
        self.threads = [
            threading.Thread(target=self._follow, args=(path,), daemon=True) for path in _KINDS
        ]
        for thread in self.threads:
            thread.start()

    def newest(self) -> int:
        found = kubernetes.client.CoreV1Api(self._api).list_namespaced_config_map("default")
        return int(found.metadata.resource_version)

    def _follow(self, path: str) -> None:
        try:
            answer = self._api.call_api(
                path, "GET", query_params=[("watch", "true"), ("resourceVersion", self.first)],
                auth_settings=["BearerToken"], response_types_map={200: "object"},
                _preload_content=False, _return_http_data_only=True,
            )  # fmt: skip
            for event in map(json.loads, _lines(answer)):
                self._take(event)
        except Exception as error:
            self.bad.put(f"watch of {path}: {error!r}")

    def _take(self, event: dict[str, Any]) -> None:
        obj = event["object"]
        with self._lock:
            if event["type"] == "ERROR":
                self.bad.put(f"watch: {obj.get('message')}")
                return
            meta = obj["metadata"]
            self._versions.append(int(meta["resourceVersion"]))
            key = f"{meta.get('namespace')}/{meta['name']}"
            if obj["kind"] == "Pod":
                gone = event["type"] == "DELETED"
                self.phases[key] = "gone" if gone else obj["status"].get("phase", "")
            elif obj["kind"] == "Job":
                kinds = {c["type"] for c in obj["status"].get("conditions") or []}
                self.jobs[key] = bool(kinds & {"Complete", "Failed"})
            self._lock.notify_all()

    def until(self, reached: Callable[[], bool]) -> None:
        with self._lock:
            if not self._lock.wait_for(reached, _WAIT):
                raise TimeoutError("the watch has not told what was waited for")

    def balance(self) -> tuple[int, int]:
        """How many versions since the last balance no watch has told; how many were told twice."""
        newest = self.newest()
        with self._lock:
            self._lock.wait_for(
                lambda: len({v for v in self._versions if v <= newest}) >= newest - self.first, 10
            )
            told = [v for v in self._versions if v <= newest]
            lost = newest - self.first - len(set(told))
            twice = len(told) - len(set(told))
            self._versions = [v for v in self._versions if v > newest]
            self.first = newest
            self.phases.clear()
            self.jobs.clear()
        return lost, twice


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    for piece in answer.stream(2**16):
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


class Load:
    """Phases of load against one server."""

    def __init__(self, kubeconfig: str, folder: Path, server: int) -> None:
        self.folder = folder
        self.server = server
        self.config = kubernetes.client.Configuration()
        kubernetes.config.load_kube_config(kubeconfig, client_configuration=self.config)
        self.config.connection_pool_maxsize = 400
        self.api = kubernetes.client.ApiClient(self.config)
        self.core = kubernetes.client.CoreV1Api(self.api)
        self.batch = kubernetes.client.BatchV1Api(self.api)
        self.ledger = Ledger(self.api)

    @contextmanager
    def phase(self, name: str) -> Iterator[Figures]:
        """Measure what happens inside, in a namespace of its name that goes at its end."""
        figures = Figures(name)
        before = self._state()
        ours, theirs = _SPAWN.Pipe()
        token = self.config.get_api_key_with_prefix("authorization", "BearerToken")
        timer = _SPAWN.Process(
            target=probe, args=(theirs, self.config.host, self.config.ssl_ca_cert, token)
        )
        timer.start()
        ours.recv()
        start = time.monotonic()
        self.core.create_namespace({"metadata": {"name": name}})
        yield figures
        figures.seconds = round(time.monotonic() - start, 1)
        ours.send("stop")
        took = sorted(ours.recv())
        timer.join()
        figures.requests = len(took)
        figures.p50_ms = round(took[len(took) // 2] * 1000, 1)
        figures.p99_ms = round(took[len(took) * 99 // 100] * 1000, 1)
        figures.worst_ms = round(took[-1] * 1000, 1)
        self.core.delete_namespace(name)
        self._settle(name)
        figures.lost_events, figures.repeated_events = self.ledger.balance()
        while not self.ledger.bad.empty():
            figures.failed.append(self.ledger.bad.get())
        after = self._state()
        figures.rss_mb = (before[0], after[0])
        figures.threads = (before[1], after[1])
        figures.descriptors = (before[2], after[2])
        figures.left_processes = len(_descendants(self.server)) - self._idle
        figures.left_files = sum(1 for _ in (self.folder / "pods").iterdir())

    _idle = 0

    def rest(self) -> None:
        """Remember how many processes the server has when nothing runs."""
        self._idle = len(_descendants(self.server))

    def _settle(self, name: str) -> None:
        """Wait until the namespace is gone, and what ran in it."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with suppress(ApiException):
                self.core.read_namespace(name)
                time.sleep(0.05)
                continue
            if len(_descendants(self.server)) <= self._idle and not any(
                (self.folder / "pods").iterdir()
            ):
                return
            time.sleep(0.05)

    def _state(self) -> tuple[float, int, int]:
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{self.server}/status").read_text().splitlines()
            if ":\t" in line
        )
        files = len(os.listdir(f"/proc/{self.server}/fd"))
        return round(int(status["VmRSS"].split()[0]) / 1024, 1), int(status["Threads"]), files

    def one(self, namespace: str, name: str, figures: Figures) -> None:
        """Run one pod and follow its log from the start to the end."""
        script = f"i=0; while [ $i -lt {_LINES} ]; do i=$((i+1)); echo line $i; done"
        self.core.create_namespaced_pod(namespace, _pod(name, script))
        key = f"{namespace}/{name}"
        self.ledger.until(lambda: self.ledger.phases.get(key, "Pending") != "Pending")
        got = b""
        try:
            answer = self.core.read_namespaced_pod_log(
                name, namespace, follow=True, _preload_content=False
            )
            got = answer.read()
            answer.release_conn()
        except ApiException as error:
            figures.failed.append(f"log of {name}: {error.status} {error.body!r}")
        wanted = [f"line {i + 1}" for i in range(_LINES)]
        if got.decode().splitlines() != wanted:
            figures.lost_lines += len(set(wanted) - set(got.decode().splitlines())) or 1
        self.ledger.until(lambda: self.ledger.phases[key] in ("Succeeded", "Failed"))
        if self.ledger.phases[key] != "Succeeded":
            figures.failed.append(f"pod {name}: {self.ledger.phases[key]}")

    def pods(self, name: str, number: int, at_once: int) -> Figures:
        with self.phase(name) as figures, ThreadPoolExecutor(at_once) as pool:
            figures.pods = number
            done = [pool.submit(self.one, name, f"p{i}", figures) for i in range(number)]
            for future in done:
                future.result()
        return figures

    def jobs(self, name: str, jobs: int, pods: int) -> Figures:
        with self.phase(name) as figures:
            figures.pods = jobs * pods
            template = _pod("", f"for i in $(seq {_LINES}); do echo line $i; done")
            for i in range(jobs):
                spec = {"completions": pods, "parallelism": pods, "backoffLimit": 0}
                body = {"metadata": {"name": f"j{i}"}, "spec": {**spec, "template": template}}
                self.batch.create_namespaced_job(name, body)
            keys = [f"{name}/j{i}" for i in range(jobs)]
            self.ledger.until(lambda: all(self.ledger.jobs.get(k) for k in keys))
            for job in self.batch.list_namespaced_job(name).items:
                if job.status.succeeded != pods:
                    figures.failed.append(f"job {job.metadata.name}: {job.status.succeeded}")
            self._read_logs(name, figures)
        return figures

    def _read_logs(self, namespace: str, figures: Figures) -> None:
        wanted = [f"line {i + 1}" for i in range(_LINES)]

        def lost(name: str) -> int:
            answer = self.core.read_namespaced_pod_log(name, namespace, _preload_content=False)
            got = answer.data.decode().splitlines()  # the client makes "b'...'" of it else
            return 0 if got == wanted else len(set(wanted) - set(got)) or 1

        names = [p.metadata.name for p in self.core.list_namespaced_pod(namespace).items]
        with ThreadPoolExecutor(4) as pool:
            figures.lost_lines += sum(pool.map(lost, names))
        if len(names) != figures.pods:
            figures.failed.append(f"{len(names)} pods instead of {figures.pods}")


def _pod(name: str, script: str) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"metadata": {"name": name} if name else {}, "spec": spec}


def _descendants(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


@contextmanager
def served() -> Iterator[Load]:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=serve, args=(theirs,))
    process.start()
    theirs.close()
    kubeconfig, folder = ours.recv()
    load = Load(kubeconfig, Path(folder), process.pid or 0)
    load.rest()
    try:
        yield load
    finally:
        ours.close()
        process.join(60)
        load.api.rest_client.pool_manager.clear()
        load.api.close()
        if Path(folder).exists() or process.exitcode != 0:
            raise SystemExit(f"the server ended with {process.exitcode}, or left {folder}")


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--at-once", type=int, default=100, help="pods that start together")
    parser.add_argument("--in-a-row", type=int, default=1000, help="pods, four at a time")
    parser.add_argument("--jobs", default="50x20", help="Jobs x pods of each")
    parser.add_argument("--rounds", type=int, default=1, help="how often all of it")
    given = parser.parse_args(words)
    jobs, pods = map(int, given.jobs.split("x"))
    good = True
    with served() as load:
        for turn in range(given.rounds):
            for run in (
                partial(load.pods, f"at-once-{turn}", given.at_once, given.at_once),
                partial(load.pods, f"in-a-row-{turn}", given.in_a_row, 4),
                partial(load.jobs, f"jobs-{turn}", jobs, pods),
            ):
                figures = run()
                print(json.dumps(asdict(figures)), flush=True)
                lost = figures.lost_lines or figures.lost_events or figures.repeated_events
                good &= not (lost or figures.failed or figures.left_processes)
                good &= not figures.left_files and figures.p99_ms < 50
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
