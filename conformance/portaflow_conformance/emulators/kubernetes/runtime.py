"""What runs containers: how images are had, and how processes are started in them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .images import Image, Images
from .process import Process, Sink
from .sandbox import Mount, Sandbox
from .security import Security


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A container that shall start."""

    name: str  # on this machine, by which it can be told from all others
    host: str
    image: str
    command: Sequence[str]
    env: Mapping[str, str]
    mounts: Sequence[Mount]
    work: str  # the working folder; "" for the image's
    base: Path  # an empty folder of this machine
    security: Security
    memory: int | None  # bytes
    stdin: bool
    terminal: bool


class Runtime(Protocol):
    """`scheme` is that of the ids of containers, `env` what each container is given, and `mounts`
    whether it can have volumes.
    """

    scheme: str
    mounts: bool

    @property
    def env(self) -> Mapping[str, str]: ...

    async def has(self, reference: str) -> bool:
        """Whether the image is there and need not be pulled."""

    async def image(self, reference: str, *, pull: bool) -> Image:
        """Raises PullError."""

    async def start(self, order: Order, sink: Sink) -> Process:
        """Raises OSError and Unmountable when it cannot start."""

    async def beside(
        self, container: Process, command: Sequence[str], env: Mapping[str, str], folder: Path,
        sink: Sink, security: Security, *, stdin: bool, terminal: bool,
    ) -> Process | None:  # fmt: skip
        """Start another process in a container; None when that does not run. Raises OSError."""

    async def close(self) -> None:
        """The end; containers have ended."""


class HostProcesses:
    """Containers are processes of this machine, behind walls; images are names for it."""

    scheme = "process"

    def __init__(self, sandbox: Sandbox, images: Images, env: Mapping[str, str]) -> None:
        self._sandbox = sandbox
        self._images = images
        self.env = env
        self.mounts = sandbox.isolated

    async def has(self, reference: str) -> bool:
        return reference in self._images.pulled

    async def image(self, reference: str, *, pull: bool) -> Image:
        image = self._images.find(reference)
        self._images.pulled.add(reference)
        return image

    async def start(self, order: Order, sink: Sink) -> Process:
        _check(order)
        wrapped = self._sandbox.command(
            order.base, order.command, order.mounts, order.work or "/", order.security,
            terminal=order.terminal,
        )  # fmt: skip
        isolated = self._sandbox.isolated
        outside = Path(order.work) if not isolated and order.work else order.base
        return Process(
            wrapped, env=order.env, folder=outside, sink=sink, isolated=isolated,
            stdin=order.stdin, terminal=order.terminal, memory=order.memory,
        )  # fmt: skip

    async def beside(
        self, container: Process, command: Sequence[str], env: Mapping[str, str], folder: Path,
        sink: Sink, security: Security, *, stdin: bool, terminal: bool,
    ) -> Process | None:  # fmt: skip
        pid = await container.inside()
        if pid is None:
            return None
        words = self._sandbox.inside(pid, command, security, terminal=terminal)
        return Process(
            words, env=env, folder=folder, sink=sink, isolated=False, stdin=stdin,
            terminal=terminal,
        )  # fmt: skip

    async def close(self) -> None:
        pass


def _check(order: Order) -> None:
    """Refuse what cannot start, as a runtime does: before it runs, not with a code 127."""
    if not order.command:
        raise FileNotFoundError("no command specified")
    word = order.command[0]
    if "/" in word:
        inside = any(f"{word}/".startswith(f"{m.target.rstrip('/')}/") for m in order.mounts)
        if inside or not word.startswith("/") or os.access(word, os.X_OK):
            return
        raise FileNotFoundError(f'exec: "{word}": stat {word}: no such file or directory')
    if shutil.which(word, path=order.env.get("PATH", "")) is None:
        raise FileNotFoundError(f'exec: "{word}": executable file not found in $PATH')
