"""A driver of the docker backend on the tests' Podman, and what tests do with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

from portaflow_local.docker import Config, Docker, DockerDriver

from portaflow.backend import ContainerSpec, Handle, Request, Size, State

from .driven import Driven

# What another process does: it starts a container as portaflow would, and says so.
STARTER = """
import json, sys
from pathlib import Path
from portaflow.backend import ContainerSpec
from portaflow_local.docker import Config, Docker
url, root, cache, name, spec = sys.argv[1:]
driver = Docker(Config(url=url, root=Path(root), cache=cache)).containers
driver.start(driver.request(name, ContainerSpec(**json.loads(spec))))
print("started", flush=True)
sys.stdin.read()
"""


class Field(Driven):
    """A driver, and names that belong to this test alone."""

    patience, pause = 30.0, 0.02

    def __init__(self, podman: Any, folder: Path) -> None:
        self.podman = podman
        self.config = Config(
            url=podman.url, root=folder / "root", cache=str(podman.folder / "cache")
        )
        self.driver = self.new_driver()
        self.owner = f"o-{uuid4().hex[:8]}"
        self.names: list[str] = []

    def new_driver(self) -> DockerDriver:
        return Docker(self.config).containers

    def name(self) -> str:
        self.names.append(f"pf-{uuid4().hex[:12]}-1")
        return self.names[-1]

    def spec(self, *command: str, **more: Any) -> ContainerSpec:
        """A small container; it does not run away when a test is broken."""
        small = {"owner": self.owner, "ttl": 120, "grace": 1, "size": Size(cpu=0.5, memory=0.125)}
        return ContainerSpec(**{**small, "image": self.podman.image, "command": command, **more})

    def request(self, name: str, *command: str, **more: Any) -> Request:
        """A request with an override of the user's merged in: no network, which is slow."""
        request = self.driver.request(name, self.spec(*command, **more))
        host = {**request["create"]["HostConfig"], "NetworkMode": "none"}
        return {**request, "create": {**request["create"], "HostConfig": host}}

    def start(self, *command: str, **more: Any) -> Handle:
        return self.driver.start(self.request(self.name(), *command, **more))

    def running(self, handle: Handle) -> bool:
        return self.status(handle).state is State.RUNNING

    def process(self, name: str, **spec: Any) -> subprocess.Popen[str]:
        """Another process that has started a container and is still there."""
        words = [self.config.url, str(self.config.root), self.config.cache, name, json.dumps(spec)]
        process = subprocess.Popen(
            [sys.executable, "-c", STARTER, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        return process
