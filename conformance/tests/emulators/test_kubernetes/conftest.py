"""A cluster for each file of tests, a namespace for each test, and the official client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import kubernetes
import pytest
from kubernetes.stream import stream
from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Control
from portaflow_conformance.emulators.kubernetes import KubernetesEmulator


@dataclass
class Cluster:
    """A stand-in that runs, and what the official client made of its kubeconfig offers."""

    clouds: Clouds
    emulator: KubernetesEmulator
    config: kubernetes.client.Configuration
    _made: list[kubernetes.client.ApiClient] = field(default_factory=list)

    @property
    def control(self) -> Control:
        return self.clouds.control

    def connect(self, context: str = "portaflow") -> kubernetes.client.ApiClient:
        client = kubernetes.config.new_client_from_config(
            str(self.emulator.kubeconfig), context, persist_config=False
        )
        self._made.append(client)
        return client

    def close(self) -> None:
        for client in self._made:
            client.rest_client.pool_manager.clear()
            client.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with emulate("kubernetes", pace=0.02) as clouds:
        emulator = clouds.emulators["kubernetes"]
        assert isinstance(emulator, KubernetesEmulator)
        one = Cluster(clouds, emulator, kubernetes.client.Configuration())
        yield one
        one.close()


@pytest.fixture(scope="module")
def client(cluster: Cluster) -> kubernetes.client.ApiClient:
    return cluster.connect()


@pytest.fixture(scope="module")
def core(client: kubernetes.client.ApiClient) -> kubernetes.client.CoreV1Api:
    return kubernetes.client.CoreV1Api(client)


@pytest.fixture(scope="module")
def batch(client: kubernetes.client.ApiClient) -> kubernetes.client.BatchV1Api:
    return kubernetes.client.BatchV1Api(client)


@pytest.fixture
def ns(cluster: Cluster, core: kubernetes.client.CoreV1Api) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    yield name
    cluster.control.clear()
    core.delete_namespace(name)


def make_pod(name: str = "p", script: str = "true", **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    container |= spec.pop("container", {})
    meta = {"name": name, **spec.pop("metadata", {})}
    body = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, **spec}
    return {"metadata": meta, "spec": {"containers": [container], **body}}


Pods = Callable[..., Any]


@pytest.fixture
def pod(core: kubernetes.client.CoreV1Api, ns: str) -> Pods:
    """Create a pod: `pod("p", "echo hi", container={...}, restartPolicy="Always")`."""

    def create(name: str = "p", script: str = "true", **spec: Any) -> Any:
        return core.create_namespaced_pod(ns, make_pod(name, script, **spec))

    return create


Until = Callable[..., Any]


@pytest.fixture(scope="session")
def until() -> Until:
    """Look again and again until `found()` is true; fail after some seconds."""

    def wait(found: Callable[[], Any], seconds: float = 20.0) -> Any:
        end = time.monotonic() + seconds
        while not (value := found()):
            assert time.monotonic() < end, f"{seconds} s were not enough"
            time.sleep(0.01)
        return value

    return wait


@pytest.fixture
def ended(core: kubernetes.client.CoreV1Api, ns: str, until: Until) -> Callable[[str], Any]:
    """Wait until a pod has its final phase; return it."""

    def wait(name: str = "p", seconds: float = 20.0) -> Any:
        def look() -> Any:
            found = core.read_namespaced_pod(name, ns)
            return found if found.status.phase in ("Succeeded", "Failed") else None

        return until(look, seconds)

    return wait


@pytest.fixture
def running(core: kubernetes.client.CoreV1Api, ns: str, until: Until) -> Callable[[str], Any]:
    """Wait until a pod runs; return it."""

    def wait(name: str = "p") -> Any:
        def look() -> Any:
            found = core.read_namespaced_pod(name, ns)
            assert found.status.phase in ("Pending", "Running")
            return found if found.status.phase == "Running" else None

        return until(look)

    return wait


_WEBSOCKETS = (1, 31)  # from which on kubectl has them


def _version(kubectl: str) -> tuple[int, int]:
    command = [kubectl, "version", "--client", "-o", "json"]
    done = subprocess.run(command, check=True, timeout=60, capture_output=True)
    told = json.loads(done.stdout)["clientVersion"]
    return int(told["major"]), int(told["minor"].rstrip("+"))


@pytest.fixture(scope="session")
def binary() -> str:
    if shutil.which("kubectl") is None and os.getuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "kubernetes-client"]
        subprocess.run(command, check=False, timeout=240, capture_output=True)
    found = shutil.which("kubectl")
    why = "no kubectl here (Debian: apt-get install kubernetes-client)" if found is None else ""
    if found is not None and (version := _version(found)) < _WEBSOCKETS:
        why = f"kubectl {'.'.join(map(str, version))} speaks SPDY alone; 1.31 is needed"
    if found is None or why:
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(f"{why}: did not run")
    return found


@pytest.fixture
def kubectl(cluster: Any, ns: str, binary: str) -> Callable[..., str]:
    """kubectl in the test's namespace, with the environment alone: what it says, of both kinds."""

    def run(*words: str, given: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [binary, "-n", ns, *words], input=given, env=cluster.clouds.environ(),
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def log(core: kubernetes.client.CoreV1Api, ns: str) -> Callable[..., str]:
    """Read a pod's log, as the official client gets it."""

    def read(name: str = "p", **options: Any) -> str:
        response = core.read_namespaced_pod_log(name, ns, _preload_content=False, **options)
        text: str = response.data.decode()
        return text

    return read


@pytest.fixture
def beside(core: kubernetes.client.CoreV1Api, ns: str) -> Callable[..., tuple[str, int]]:
    """Run a command beside the pod's container; return what it says and how it ends."""

    def run(*command: str, name: str = "p") -> tuple[str, int]:
        socket = stream(
            core.connect_get_namespaced_pod_exec, name, ns, command=list(command), stdout=True,
            stderr=True, _preload_content=False,
        )  # fmt: skip
        socket.run_forever(timeout=30)
        said = socket.read_stdout() if socket.peek_stdout() else ""
        code = socket.returncode
        socket.sock.shutdown()  # the client leaves it open when the server ends
        return said, code

    return run
