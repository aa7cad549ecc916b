"""Images that are folders: a Dockerfile is read, and its requirements.txt is installed.

Nothing is built as Docker would: the folder is put where the Dockerfile's WORKDIR is, and
`python` is that of an environment with the requirements, made once and kept in the user's
cache. So of a Dockerfile only that counts which says how the command runs.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from portaflow.errors import RunError

from ..spark import Connector, SparkMissingError, cache_folder
from .images import Image, PullError
from .network import Network
from .process import Process, Sink
from .runtime import Order, Runtime
from .sandbox import Mount
from .security import Security
from .sparkimage import NAME as SPARK
from .sparkimage import SparkImage

ENVIRONMENT = "/opt/image"  # where a container sees the environment of its image
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SILENT = (  # what they do is done by the environment and the copy, or needs no doing
    "FROM", "RUN", "COPY", "ADD", "LABEL", "EXPOSE", "ARG", "MAINTAINER", "USER", "STOPSIGNAL",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FolderImage:
    """What a folder brings as an image: how its commands run, and its environment."""

    folder: Path
    work: str
    image: Image
    environment: Path

    @classmethod
    def of(cls, folder: Path) -> FolderImage:
        """Read the Dockerfile, and make the environment if nobody has. Raises RunError."""
        file = folder / "Dockerfile"
        try:
            text = file.read_text("utf-8")
        except OSError as error:
            raise RunError(f"{file}: {error.strerror}; an image is a folder with one") from error
        env: dict[str, str] = {}
        work = "/"
        entrypoint: tuple[str, ...] = ()
        arguments: tuple[str, ...] = ()
        for name, rest in _instructions(text, file):
            match name:
                case "ENV":
                    env |= _variables(rest, env)
                case "WORKDIR":
                    work = os.path.normpath(os.path.join(work, _filled(rest, env)))
                case "ENTRYPOINT":
                    entrypoint = _words(rest)
                case "CMD":
                    arguments = _words(rest)
        env.setdefault("PATH", _PATH)
        env["PATH"] = f"{ENVIRONMENT}/bin:{env['PATH']}"
        image = Image(entrypoint, arguments, tuple(env.items()))
        return cls(folder, work, image, _environment(folder / "requirements.txt"))

    def mounts(self, base: Path) -> list[Mount]:
        """What a container sees of it: a copy of its own of the files, and the environment."""
        copy = base.with_name(f"{base.name}-image")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.folder, copy, ignore=shutil.ignore_patterns("__pycache__"))
        copy.chmod(0o755)
        environment = Mount(self.environment, ENVIRONMENT, read_only=True)
        return [environment, *([Mount(copy, self.work)] if self.work != "/" else [])]

    def program(self, command: Sequence[str]) -> Sequence[str]:
        """The command with its program where the container has it: nobody outside sees it."""
        if command and "/" not in command[0] and (self.environment / "bin" / command[0]).exists():
            return [f"{ENVIRONMENT}/bin/{command[0]}", *command[1:]]
        return command


def _instructions(text: str, file: Path) -> Iterator[tuple[str, str]]:
    joined = re.sub(r"\\[ \t]*\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, rest = line.partition(" ")
        if name.upper() not in ("ENV", "WORKDIR", "ENTRYPOINT", "CMD", *_SILENT):
            raise RunError(f"{file}: {name} is not known to local images; build it by Podman")
        yield name.upper(), rest.strip()


def _variables(text: str, env: Mapping[str, str]) -> dict[str, str]:
    """`A=1 B="2 3"`, or the old `A 1`."""
    words = shlex.split(text)
    if words and "=" not in words[0]:
        name, _, value = text.partition(" ")
        return {name: _filled(value.strip(), env)}
    pairs = (word.partition("=") for word in words)
    return {name: _filled(value, env) for name, _, value in pairs}


def _filled(text: str, env: Mapping[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda m: env.get(m[1], ""), text)


def _words(text: str) -> tuple[str, ...]:
    """A list in JSON, or a line for a shell."""
    try:
        found = json.loads(text)
    except ValueError:
        return ("/bin/sh", "-c", text)
    return tuple(map(str, found)) if isinstance(found, list) else ("/bin/sh", "-c", text)


def _environment(requirements: Path) -> Path:
    """The environment with what a file requires; made once, however many ask."""
    wanted = requirements.read_bytes() if requirements.is_file() else b""
    version = f"{sys.version} {sysconfig.get_platform()}".encode()
    folder = cache_folder() / "images" / hashlib.sha256(version + b"\0" + wanted).hexdigest()[:20]
    ready = folder / ".ready"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.exists():
            return folder
        shutil.rmtree(folder, ignore_errors=True)  # what one that was killed has left
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], requirements)
        if wanted.strip():
            pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
            options = ["--quiet", "--disable-pip-version-check", "-r", str(requirements)]
            _run([*pip, "install", *options], requirements)
        ready.touch()
    return folder


def _run(command: Sequence[str], requirements: Path) -> None:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise RunError(f"{requirements}: its environment cannot be made: {said}")


class WithFolders:
    """A runtime that knows images which are folders beside those of another runtime, and gives
    its containers a network.
    """

    def __init__(
        self, inner: Runtime, images: Mapping[str, FolderImage], network: Network | None,
        folder: Path, connectors: Sequence[Connector],
    ) -> None:  # fmt: skip
        self._inner, self._images, self._network = inner, images, network
        self._folder, self._connectors = folder, connectors
        self._spark: SparkImage | None = None
        self._making = asyncio.Lock()
        self.scheme, self.mounts = inner.scheme, inner.mounts

    @property
    def env(self) -> Mapping[str, str]:
        network = self._network.env() if self._network else {}
        return {**network, **self._inner.env}

    async def _found(self, reference: str) -> FolderImage | SparkImage | None:
        if found := self._images.get(reference):
            return found
        if reference.partition(":")[0].removeprefix("docker.io/") != SPARK or not self.mounts:
            return None
        async with self._making:
            if self._spark is None:
                try:  # as a pull is, it may be slow
                    self._spark = await asyncio.to_thread(
                        SparkImage, self._folder, self._connectors
                    )
                except SparkMissingError as error:
                    raise PullError("ErrImagePull", f"{reference}: {error}") from error
            return self._spark

    async def has(self, reference: str) -> bool:
        return await self._found(reference) is not None or await self._inner.has(reference)

    async def image(self, reference: str, *, pull: bool) -> Image:
        if found := await self._found(reference):
            return found.image
        return await self._inner.image(reference, pull=pull)

    async def start(self, order: Order, sink: Sink) -> Process:
        if self._network:
            order = replace(order, mounts=[self._network.mount(), *order.mounts])
        if found := await self._found(order.image):
            order = replace(
                order, mounts=[*found.mounts(order.base), *order.mounts],
                work=order.work or found.work,
            )  # fmt: skip
            if isinstance(found, FolderImage):
                order = replace(order, command=found.program(order.command))
        return await self._inner.start(order, sink)

    async def beside(
        self, container: Process, command: Sequence[str], env: Mapping[str, str], folder: Path,
        sink: Sink, security: Security, *, stdin: bool, terminal: bool,
    ) -> Process | None:  # fmt: skip
        return await self._inner.beside(
            container, command, env, folder, sink, security, stdin=stdin, terminal=terminal
        )

    async def close(self) -> None:
        await self._inner.close()
