"""Real containers by Podman: images from registries, cgroups, a root file system of their own.

What Podman is to know of this machine (its runtime, its storage, registries) is in its own files
of configuration, which the environment names: CONTAINERS_CONF and the like.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from portaflow.errors import PluginError

from .images import Image, PullError
from .process import Process, Sink
from .runtime import Order
from .security import Security

_LABEL = "portaflow.emulate"
_OOM = "oom"
_LOOK = 0.05  # seconds between two looks at a container that is being started
# What Podman itself reads: of a container these go on the command line.
_PODMANS = ("PATH", "HOME", "TMPDIR", "CONTAINERS_", "XDG_", "REGISTRY_", "STORAGE_")
# Ends the containers when the last writer to its input is gone, which is we, however we died.
_LEASH = r"""
read -r _
for pause in 0 0.3 1 3; do
    sleep "$pause"
    [ -z "$("$0" ps --all --quiet --filter "label=$1")" ] && break
    "$0" rm --all --force --time 0 --filter "label=$1"
done
"""


class Podman:
    """Containers of this stand-in have a label of their own, by which they are ended."""

    scheme = "podman"
    mounts = True

    def __init__(self, folder: Path, env: Mapping[str, str]) -> None:
        program = shutil.which("podman")
        if program is None:
            raise PluginError(
                "pods are to run by Podman, which is not here: install podman, or leave "
                "PORTAFLOW_EMULATE_PODS out"
            )
        self._program = program
        self._folder = folder
        self._label = f"{_LABEL}={uuid.uuid4().hex}"
        # Containers bring their own PATH and HOME.
        self.env: Mapping[str, str] = {k: v for k, v in env.items() if k.startswith("KUBERNETES_")}
        self._leash = subprocess.Popen(
            ["/bin/sh", "-c", _LEASH, program, self._label], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/",
        )  # fmt: skip

    async def ask(self, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Run podman; return its exit code, and what it says or complains of."""
        said: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        process = Process(
            [self._program, *words], env=env or os.environ, folder=self._folder, isolated=False,
            sink=lambda stream, data: said[stream].extend(data),
        )  # fmt: skip
        code = await process.ended
        return code, said["stderr" if code else "stdout"].decode(errors="replace").strip()

    async def has(self, reference: str) -> bool:
        code, _ = await self.ask("image", "exists", reference)
        return code == 0

    async def image(self, reference: str, *, pull: bool) -> Image:
        if pull:
            code, said = await self.ask("pull", "--quiet", reference)
            if code:
                told = said.splitlines()[-1] if said else f"podman ended with {code}"
                text = f'failed to pull and unpack image "{reference}": {told}'
                raise PullError("ErrImagePull", text)
        code, said = await self.ask("image", "inspect", reference)
        if code:
            raise PullError("ErrImagePull", said)
        config: dict[str, Any] = json.loads(said)[0].get("Config") or {}
        user = str(config.get("User") or "0").partition(":")[0]
        return Image(
            entrypoint=tuple(config.get("Entrypoint") or ()),
            arguments=tuple(config.get("Cmd") or ()),
            user=int(user) if user.isdigit() else 0,
        )

    async def start(self, order: Order, sink: Sink) -> Process:
        code, said = await self.ask("create", *self._options(order), env=_given(order.env))
        if code:
            raise OSError(said or f"podman ended with {code}")
        words = ["start", "--attach", *(["--interactive"] if order.stdin else []), order.name]
        begin = [shutil.which("setsid") or "setsid", "--ctty", "--wait"] if order.terminal else []
        (order.base / _OOM).unlink(missing_ok=True)
        contained = _Contained(
            self, order.name, [*begin, self._program, *words], order.base, sink,
            env=os.environ, isolated=False, stdin=order.stdin, terminal=order.terminal,
        )  # fmt: skip
        await contained.inside()
        return contained

    def _options(self, order: Order) -> list[str]:
        words = [
            "--name", order.name, "--label", self._label, "--pull", "never", "--network", "host",
            "--hostname", order.host, "--log-driver", "none",
        ]  # fmt: skip
        for key, value in order.env.items():
            words += ["--env", f"{key}={value}" if key.startswith(_PODMANS) else key]
        for mount in order.mounts:
            words += ["--volume", f"{mount.source}:{mount.target}{':ro' * mount.read_only}"]
        if order.work:
            words += ["--workdir", order.work]
        if order.memory is not None:
            words += ["--memory", str(order.memory), "--memory-swap", str(order.memory)]
        words += ["--interactive"] * order.stdin + ["--tty"] * order.terminal
        words += _safe(order.security)
        if order.command:
            words += ["--entrypoint", json.dumps([order.command[0]])]
        return [*words, order.image, *order.command[1:]]

    async def beside(
        self, container: Process, command: Sequence[str], env: Mapping[str, str], folder: Path,
        sink: Sink, security: Security, *, stdin: bool, terminal: bool,
    ) -> Process | None:  # fmt: skip
        if not isinstance(container, _Contained) or await container.inside() is None:
            return None
        words = ["exec", *["--interactive"] * stdin]
        begin: list[str] = []
        if terminal:
            words += ["--tty", "--env", "TERM=xterm"]
            begin = [shutil.which("setsid") or "setsid", "--ctty", "--wait"]
        return Process(
            [*begin, self._program, *words, container.name, *command], env=os.environ,
            folder=folder, sink=sink, isolated=False, stdin=stdin, terminal=terminal,
        )  # fmt: skip

    async def close(self) -> None:
        assert self._leash.stdin is not None
        self._leash.stdin.close()
        while self._leash.poll() is None:
            await asyncio.sleep(_LOOK)


def _given(env: Mapping[str, str]) -> dict[str, str]:
    """Podman's environment, with what the container is to get by name: no value is seen in the
    list of processes.
    """
    return {**os.environ, **{k: v for k, v in env.items() if not k.startswith(_PODMANS)}}


def _safe(security: Security) -> list[str]:
    words: list[str] = []
    if security.user is not None or security.group is not None:
        group = "" if security.group is None else f":{security.group}"
        words += ["--user", f"{security.user or 0}{group}"]
    for number in security.groups:
        words += ["--group-add", str(number)]
    words += ["--read-only"] * security.read_only
    words += ["--security-opt", "no-new-privileges"] * (not security.escalates)
    for capability in security.dropped:
        words += ["--cap-drop", capability]
    return words


class _Contained(Process):
    """The podman that is attached to a container, and so ends as it does."""

    def __init__(
        self,
        podman: Podman,
        name: str,
        command: Sequence[str],
        folder: Path,
        sink: Sink,
        **more: Any,
    ) -> None:
        self._last = b""  # of what was complained of: why it could not start

        def take(stream: str, data: bytes) -> None:
            self._last = data if stream == "stderr" else self._last
            sink(stream, data)

        super().__init__(command, folder=folder, sink=take, **more)
        self._folder = folder
        self.name = name
        self._podman = podman
        self._asked: set[asyncio.Task[Any]] = set()

    async def _state(self) -> dict[str, Any]:
        code, said = await self._podman.ask("container", "inspect", self.name)
        state: dict[str, Any] = json.loads(said)[0]["State"] if not code else {}
        return state

    async def inside(self) -> int | None:
        while not self.ended.done():
            if (await self._state()).get("Running"):
                return self.pid
            await asyncio.sleep(_LOOK)
        return None

    def signal(self, number: int) -> None:
        name = signal.Signals(number).name
        asking = asyncio.ensure_future(self._podman.ask("kill", "--signal", name, self.name))
        self._asked.add(asking)
        asking.add_done_callback(self._asked.discard)

    async def limit(self) -> None:
        """The kernel does it."""

    async def conclude(self) -> str:
        state = await self._state()
        # Where the kernel tells of it by version 1 of cgroups, the container's monitor leaves a
        # file instead.
        self.oom = bool(state.get("OOMKilled")) or (self._folder / _OOM).exists()
        await self._podman.ask("rm", "--force", "--time", "0", self.name)
        never = str(state.get("StartedAt", "0001")).startswith("0001")
        return self._last.decode(errors="replace").strip() or "no process" if never else ""
