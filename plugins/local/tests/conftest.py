"""A Podman of our own: real containers, no registry, nothing outside a folder in /tmp.

As root on Debian what is missing is installed by apt. Where it cannot be had the tests that
need it are skipped with the reason, but fail where CI is set: there they must run.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import pytest
from portaflow_local.spark import Config as SparkConfig
from portaflow_local.spark import LocalSpark

from portaflow.backend import Handle

from .field import Field
from .spark_field import group

_NEEDED = {"podman": "podman", "runc": "runc", "busybox": "busybox-static"}
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Podman:
    """A running `podman system service`."""

    url: str
    folder: Path
    registry: str  # host:port of a registry that has `here/busybox:1`
    env: dict[str, str] = field(repr=False)
    image: str = "portaflow-test/busybox:1"
    bare: str = "portaflow-test/bare:1"  # one program, no shell

    def run(self, *args: str) -> str:
        """Ask Podman past its socket: what the tests believe does not pass the backend."""
        done = subprocess.run(
            ["podman", *args], env=self.env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def sentinels(self) -> list[int]:
        """The processes that watch over this daemon."""
        return processes(f"portaflow_local.sentinel\0{self.url}")


def processes(words: str) -> list[int]:
    """The processes in whose command line `words` occur; its words are joined by NUL."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if words in line:
            found.append(int(folder.name))
    return found


@pytest.fixture(name="until")
def _until() -> Callable[..., Any]:
    return until


def until(what: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.01)
    return value


@pytest.fixture(scope="session")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    _install(tmp_path_factory.getbasetemp().parent / "apt.lock")
    # Not below pytest's folder: a path to a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pf-podman-"))
    registry = _Registry()
    env = {**os.environ, "PATH": _PATH, **_configuration(folder, registry.address)}
    socket = folder / "socket"
    with (folder / "service.log").open("wb") as log:
        service = subprocess.Popen(
            ["podman", "system", "service", "--time=0", f"unix://{socket}"],
            env=env, stdout=log, stderr=log, start_new_session=True,
            cwd=folder,  # where a container's monitor leaves a file `oom`
        )  # fmt: skip
    ours = Podman(f"unix://{socket}", folder, registry.address, env)
    try:
        try:
            until(socket.exists)
            _make_images(ours, registry)
        except AssertionError as error:
            _without(f"Podman does not work here: {error}\n{(folder / 'service.log').read_text()}")
        yield ours
        left = ours.run("ps", "--quiet")
        ours.run("rm", "--all", "--force", "--time=0")
        until(lambda: not ours.sentinels(), 15)  # ends when there is nothing to watch
        assert not left, "a test has left a container that runs"
    finally:
        for pid in ours.sentinels():
            os.kill(pid, signal.SIGKILL)
        subprocess.run(["podman", "rm", "-af", "-t0"], env=env, capture_output=True, timeout=60)
        service.terminate()
        service.wait(30)
        registry.close()
        mounts = Path("/proc/mounts").read_text().splitlines()
        for mount in [m.split()[1] for m in mounts if str(folder) in m]:
            subprocess.run(["umount", "--lazy", mount], capture_output=True, timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def field(podman: Any, tmp_path: Path) -> Iterator[Field]:
    field = Field(podman, tmp_path)
    yield field
    for name in field.names:
        field.driver.stop(Handle(name=name, id=name))  # a build
    podman.run("rm", "--force", "--time=0", "--ignore", *field.names) if field.names else None


def _without(reason: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def _install(lock: Path) -> None:
    if sys.platform != "linux":
        _without("Podman runs on Linux only")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        missing = [p for name, p in _NEEDED.items() if not shutil.which(name, path=_PATH)]
        if not missing:
            return
        install = f"apt-get install --no-install-recommends {' '.join(missing)}"
        if os.geteuid() != 0 or not shutil.which("apt-get"):
            _without(f"real containers need {', '.join(missing)}; as root: {install}")
        wait = ["-y", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        for words in (["update"], ["install", "--no-install-recommends", *missing]):
            done = subprocess.run(
                ["apt-get", *wait, *words], capture_output=True, text=True, timeout=600,
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            )  # fmt: skip
            if done.returncode and words[0] == "install":
                _without(f"{install} failed: {done.stderr[-2000:]}")


def _configuration(folder: Path, registry: str) -> dict[str, str]:
    """Podman's settings: all of its state in `folder`, and what a machine without systemd,
    without CAP_SYS_RESOURCE or inside a container itself needs to run containers at all."""
    files, threads = (
        min(1024, hard) if (hard := resource.getrlimit(kind)[1]) > 0 else 1024
        for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC)
    )
    texts = {
        "containers.conf": f"""
            [containers]
            default_ulimits = ["nofile={files}:{files}", "nproc={threads}:{threads}"]
            log_driver = "k8s-file"
            [engine]
            runtime = "runc"
            cgroup_manager = "cgroupfs"
            events_logger = "file"
            lock_type = "file"
            tmp_dir = "{folder}/tmp"
        """,
        "registries.conf": f"""
            short-name-mode = "permissive"
            [[registry]]
            location = "{registry}"
            insecure = true
        """,
    }
    env = {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
    }
    for name, text in texts.items():
        (folder / name).write_text("\n".join(map(str.strip, text.splitlines())))
    for driver in ("overlay", "vfs"):  # the one that is slow works on every filesystem
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "{driver}"\n'
            f'graphroot = "{folder}/{driver}"\nrunroot = "{folder}/run-{driver}"\n'
        )
        done = subprocess.run(
            ["podman", "info"], env={**os.environ, "PATH": _PATH, **env}, capture_output=True,
            timeout=60,
        )  # fmt: skip
        if not done.returncode:
            return env
    _without(f"podman info: {done.stderr.decode(errors='replace')}")


def _make_images(podman: Podman, registry: _Registry) -> None:
    """Images out of one static program: there is no registry to get one from."""
    program = shutil.which("busybox", path=_PATH)
    assert program, "busybox-static was not installed"
    program = os.path.realpath(program)  # the program itself goes into the image
    names = subprocess.run([program, "--list"], capture_output=True, text=True).stdout.split()
    trees: dict[str, dict[str, list[str]]] = {
        podman.image: {"bin/busybox": names},
        podman.bare: {"sleep": []},
    }
    for tag, tree in trees.items():
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            everybodys = tarfile.TarInfo("tmp")
            everybodys.type, everybodys.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(everybodys)
            for path, links in tree.items():
                tar.add(program, path)
                for name in links:
                    link = tarfile.TarInfo(f"bin/{name}")
                    link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                    if name != "busybox":
                        tar.addfile(link)
        archive = podman.folder / "layer.tar"
        archive.write_bytes(layer.getvalue())
        podman.run("import", "--quiet", str(archive), tag)
        if tag == podman.image:
            registry.offer("here/busybox", layer.getvalue())


class _Registry:
    """A registry with one image; one that is refused and one in trouble, by their names."""

    def __init__(self) -> None:
        self._blobs: dict[str, tuple[str, bytes]] = {}
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, kind, body = registry.answer(self.path)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *args: Any) -> None:
                """Be silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, str, bytes]:
        troubles = {"/denied/": (403, "DENIED"), "/busy/": (503, "UNAVAILABLE")}
        for part, (code, word) in troubles.items():
            if part in path:
                return code, "application/json", _error(word)
        if path == "/v2/":
            return 200, "application/json", b"{}"
        kind, blob = self._blobs.get(path, ("", b""))
        if not blob:
            return 404, "application/json", _error("MANIFEST_UNKNOWN")
        return 200, kind, blob

    def offer(self, name: str, layer: bytes) -> None:
        family = "application/vnd.docker"
        config = {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, ""),
            "os": "linux",
            "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{family}.distribution.manifest.v2+json",
            "config": self._blob(
                name, f"{family}.container.image.v1+json", json.dumps(config).encode()
            ),
            "layers": [self._blob(name, f"{family}.image.rootfs.diff.tar", layer)],
        }
        body = json.dumps(manifest).encode()
        for tag in ("1", _digest(body)):
            self._blobs[f"/v2/{name}/manifests/{tag}"] = (str(manifest["mediaType"]), body)

    def _blob(self, name: str, kind: str, data: bytes) -> dict[str, Any]:
        self._blobs[f"/v2/{name}/blobs/{_digest(data)}"] = ("application/octet-stream", data)
        return {"mediaType": kind, "size": len(data), "digest": _digest(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _error(code: str) -> bytes:
    return json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()


@pytest.fixture
def spark(tmp_path: Path) -> Iterator[LocalSpark]:
    """The backend in a folder of its own. Nothing that a test leaves there outlives it."""
    backend = LocalSpark(SparkConfig(root=tmp_path / "local"))
    yield backend
    for driver in (backend.jobs, backend.clusters):
        for handle in driver.owned():
            os.killpg(group(driver, handle), signal.SIGKILL)
