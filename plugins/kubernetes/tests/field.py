"""A driver of the kubernetes backend on the stand-in, and what tests do with it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Control
from portaflow_kubernetes.api import Api
from portaflow_kubernetes.containers import Config, ContainerDriver, Kubernetes

from portaflow.backend import ContainerSpec, Handle, LogChunk, Request, Size, State, Status

PATIENCE = 60.0  # seconds for something to happen
GUIDE = Path(__file__).parents[3] / "docs" / "targets.md"


def prepare(clouds: Clouds, namespace: str) -> Api:
    """Make a namespace as the guide says that Spark needs it."""
    emulator: Any = clouds.emulators["kubernetes"]
    api = Kubernetes(Config(kubeconfig=emulator.kubeconfig, namespace=namespace)).api
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    told = re.search(r'```yaml title="spark.yaml"\n(.*?)```', GUIDE.read_text("utf-8"), re.DOTALL)
    assert told
    for thing in yaml.safe_load(told[1])["items"]:
        group = "apis" if "/" in thing["apiVersion"] else "api"
        where = f"/{group}/{thing['apiVersion']}/namespaces/{namespace}/{thing['kind'].lower()}s"
        api.call("POST", where, thing)
    return api


class Field:
    """A backend in a namespace of its own, and names that belong to this test alone."""

    plain = ContainerSpec(image="busybox", command=("true",), owner="o-1", ttl=60)

    def __init__(self, clouds: Clouds, backend: Kubernetes) -> None:
        self.clouds, self.backend = clouds, backend
        self.emulator: Any = clouds.emulators["kubernetes"]
        self.api = backend.api
        self.driver: ContainerDriver = backend.containers
        self.owner = f"o-{uuid4().hex[:8]}"

    @property
    def control(self) -> Control:
        return self.clouds.control

    @property
    def namespace(self) -> str:
        return self.api.namespace

    def with_config(self, **changes: Any) -> Kubernetes:
        return Kubernetes(replace(self.backend.config, **changes))

    def name(self) -> str:
        return f"pf-{uuid4().hex[:12]}-1"

    def make(self, path: str, thing: dict[str, Any]) -> dict[str, Any]:
        return self.api.call("POST", f"/api/v1/{path}", thing)

    def inside(self, what: str) -> str:
        return f"/api/v1/namespaces/{self.namespace}/{what}"

    def job(self, name: str) -> dict[str, Any]:
        return self.api.call("GET", f"/apis/batch/v1/namespaces/{self.namespace}/jobs/{name}")

    def jobs(self) -> list[dict[str, Any]]:
        return list(self.api.list(f"/apis/batch/v1/namespaces/{self.namespace}/jobs"))

    def pods(self) -> list[dict[str, Any]]:
        return list(self.api.list(self.inside("pods")))

    def spec(self, script: str, *args: str, **more: Any) -> ContainerSpec:
        """A small container; it does not run away when a test is broken."""
        small = {"owner": self.owner, "ttl": 120, "grace": 1, "size": Size(cpu=0.1, memory=0.125)}
        words = {"image": "busybox", "command": ("sh", "-c", script, "sh"), "args": args}
        return ContainerSpec(**{**small, **words, **more})

    def request(self, script: str, *args: str, name: str = "", **more: Any) -> Request:
        return self.driver.request(name or self.name(), self.spec(script, *args, **more))

    def start(self, script: str, *args: str, **more: Any) -> Handle:
        return self.driver.start(self.request(script, *args, **more))

    def status(self, handle: Handle) -> Status:
        status = self.driver.poll([handle])[handle.name]
        assert isinstance(status, Status), status
        return status

    def wait(self, handle: Handle, *states: State, seconds: float = PATIENCE) -> Status:
        """Poll until one of `states`, or the end when none is given."""
        deadline = time.monotonic() + seconds
        while True:
            status = self.status(handle)
            if status.state in states or (not states and status.state.final):
                return status
            assert time.monotonic() < deadline, f"{status} after {seconds} s"
            assert not status.state.final, status
            time.sleep(0.05)

    def until(self, handle: Handle, words: str, seconds: float = PATIENCE) -> Status:
        """Poll until the reason holds some words."""
        deadline = time.monotonic() + seconds
        while words not in (status := self.status(handle)).reason:
            assert time.monotonic() < deadline, f"{status} after {seconds} s"
            time.sleep(0.05)
        return status

    def until_true(self, truth: Callable[[], object], seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while not truth():
            assert time.monotonic() < deadline, f"not after {seconds} s"
            time.sleep(0.05)

    def log(self, handle: Handle, driver: ContainerDriver | None = None) -> bytes:
        data, chunk = b"", LogChunk(data=b"", cursor="", end=False)
        deadline = time.monotonic() + PATIENCE
        while not chunk.end:
            chunk = (driver or self.driver).logs(handle, chunk.cursor)
            data += chunk.data
            assert time.monotonic() < deadline, data[-200:]
        return data

    def logged(self, handle: Handle, words: bytes) -> LogChunk:
        """Read until some words were logged; the last chunk, whose cursor is behind them."""
        data, chunk = b"", LogChunk(data=b"", cursor="", end=False)
        deadline = time.monotonic() + PATIENCE
        while words not in data:
            chunk = self.driver.logs(handle, chunk.cursor)
            data += chunk.data
            assert time.monotonic() < deadline, data[-200:]
            assert not chunk.end, data[-200:]
        return chunk

    def close(self) -> None:
        self.api.call("DELETE", f"/api/v1/namespaces/{self.namespace}")
