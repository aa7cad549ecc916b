"""However the server ends, nothing of its pods stays: no process, no file, no mount."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.kubernetes import sandbox

Left = Callable[[], list[str]]


@contextmanager
def connected(kubeconfig: str) -> Iterator[kubernetes.client.CoreV1Api]:
    client = kubernetes.config.new_client_from_config(kubeconfig, persist_config=False)
    try:
        yield kubernetes.client.CoreV1Api(client)
    finally:
        client.rest_client.pool_manager.clear()
        client.close()


def alive(mark: str) -> list[str]:
    """The processes that have a word in their command."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(path.parent.name)
        except OSError:
            continue
    return found


@pytest.fixture
def mark() -> Iterator[str]:
    """A word for the commands of a test's pods; what a test that failed has left is ended."""
    word = uuid.uuid4().hex
    yield word
    for pid in alive(word):
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


def make_busy(core: kubernetes.client.CoreV1Api, mark: str, until: Any) -> None:
    """A pod whose children have left its process group, and one that does not heed SIGTERM."""
    core.create_namespaced_config_map("default", {"metadata": {"name": "c"}, "data": {"k": "v"}})
    for name, script in (
        ("leaver", f"setsid sh -c 'sleep 3600; :' {mark} & setsid sh -c 'sleep 3600; :' {mark}"),
        ("deaf", f"trap '' TERM INT HUP; sh -c 'sleep 3600; :' {mark}"),
    ):
        container = {
            "name": "main", "image": "busybox", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "c", "mountPath": "/c"}],
        }  # fmt: skip
        volumes = [{"name": "c", "configMap": {"name": "c"}}]
        spec = {"containers": [container], "volumes": volumes}
        core.create_namespaced_pod("default", {"metadata": {"name": name}, "spec": spec})
    until(lambda: len(alive(mark)) == 3)


def test_stop_ends_pods_that_run(own_tmp: None, left: Left, until: Any, mark: str) -> None:
    with emulate("kubernetes", pace=0.02) as clouds:
        with connected(clouds.env["KUBECONFIG"]) as core:
            make_busy(core, mark, until)
        assert left()
    assert alive(mark) == []
    assert left() == []
    assert os.environ["TMPDIR"] not in Path("/proc/self/mounts").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signal_ends_pods_that_run(
    own_tmp: None, left: Left, until: Any, mark: str, number: int
) -> None:
    command = [sys.executable, "-m", "portaflow", "emulate", "kubernetes", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            text = ""
            while not text.endswith("}\n") or text.count("{") != text.count("}"):
                line = server.stdout.readline()
                assert line, "the server has ended"
                text += line
            with connected(json.loads(text)["env"]["KUBECONFIG"]) as core:
                make_busy(core, mark, until)
            server.send_signal(number)
            assert server.wait(20) == (0 if number == signal.SIGTERM else -signal.SIGKILL)
        finally:
            server.kill()
    until(lambda: not alive(mark))
    until(lambda: not left())


def test_without_namespaces_pods_run_as_plain_processes(
    own_tmp: None, left: Left, until: Any, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_TOOLS", ("no-such-tool",))
    with (
        emulate("kubernetes", pace=0.02) as clouds,
        connected(clouds.env["KUBECONFIG"]) as core,
    ):

        def run(name: str, script: str, **more: Any) -> None:
            container = {"name": "main", "image": "b", "command": ["sh", "-c", script], **more}
            spec = {"containers": [container], "restartPolicy": "Never"}
            volumes = [{"name": "e", "emptyDir": {}}] if more else []
            body = {"metadata": {"name": name}, "spec": {**spec, "volumes": volumes}}
            core.create_namespaced_pod("default", body)

        def code(name: str) -> Any:
            status = core.read_namespaced_pod(name, "default").status
            [container] = status.container_statuses or [None]
            ended = container and container.state.terminated
            return ended and (ended.exit_code, ended.reason)

        run("ends", "echo here; exit 3")
        assert until(lambda: code("ends")) == (3, "Error")
        answer = core.read_namespaced_pod_log("ends", "default", _preload_content=False)
        assert answer.data == b"here\n"
        run("mounts", "true", volumeMounts=[{"name": "e", "mountPath": "/e"}])
        assert until(lambda: code("mounts")) == (128, "StartError")
        run("stays", f"sh -c 'sleep 3600; :' {mark}; :")
        until(lambda: alive(mark))
    assert alive(mark) == []
    assert left() == []
