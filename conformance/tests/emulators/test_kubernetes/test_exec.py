"""Commands beside a container, and its own streams, by websocket."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes
import pytest
from kubernetes.stream import stream

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]


def test_exec(core: Core, ns: str, pod: Pods, running: Any) -> None:
    pod("p", "sleep 60", container={"env": [{"name": "A", "value": "b"}]})
    running()

    def run(script: str) -> Any:
        return stream(
            core.connect_get_namespaced_pod_exec, "p", ns, command=["sh", "-c", script],
            stdout=True, stderr=True, stdin=True, tty=False, _preload_content=False,
        )  # fmt: skip

    socket = run("echo $A; echo err >&2; read x; echo got $x; exit 3")
    socket.write_stdin("word\n")
    socket.run_forever(timeout=10)
    assert socket.read_stdout() == "b\ngot word\n"
    assert socket.read_stderr() == "err\n"
    assert socket.returncode == 3
    socket.sock.shutdown()  # the client leaves it open when the server ends
    big = run("head -c 3000000 /dev/zero | tr '\\0' x")
    big.run_forever(timeout=10)
    assert len(big.read_stdout()) == 3000000
    assert big.returncode == 0
    big.sock.shutdown()


def test_exec_needs_a_container_that_runs(core: Core, ns: str, pod: Pods, ended: Any) -> None:
    pod("p", "true")
    ended()
    config = core.api_client.configuration
    key = config.get_api_key_with_prefix("authorization", "BearerToken")
    response = core.api_client.rest_client.pool_manager.request(
        "GET",
        f"{config.host}/api/v1/namespaces/{ns}/pods/p/exec?command=true&stdout=true",
        headers={"Authorization": key or ""},
    )
    assert response.status == 400
    assert "completed pod" in response.json()["message"]


def test_signal_that_airflow_sends_to_its_sidecar(
    core: Core, ns: str, pod: Pods, running: Any, ended: Any
) -> None:
    pod("p", "trap 'exit 0' INT; echo up; while :; do sleep 0.1; done;")
    running()
    follow = core.read_namespaced_pod_log("p", ns, follow=True, _preload_content=False)
    assert follow.readline() == b"up\n"
    socket = stream(
        core.connect_get_namespaced_pod_exec, "p", ns, stdout=True, stderr=True,
        command=["sh", "-c", f"kill -{int(signal.SIGINT)} $(pgrep -u $(id -u) -f sh)"],
        _preload_content=False,
    )  # fmt: skip
    socket.run_forever(timeout=10)
    socket.sock.shutdown()  # the client leaves it open when the server ends
    assert ended().status.phase == "Succeeded"
    assert follow.read() == b""
    follow.release_conn()


@pytest.fixture
def typed(cluster: Any, ns: str, binary: str) -> Iterator[Callable[..., Typed]]:
    """Begin kubectl with a terminal of its own."""
    begun: list[Typed] = []

    def begin(*words: str) -> Typed:
        begun.append(Typed([binary, "-n", ns, *words], cluster.clouds.environ()))
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


class Typed:
    """A command at a terminal: what it shows, and what is typed."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self._ours, theirs = os.openpty()
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 77, 0, 0))
        self._process = subprocess.Popen(
            command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def until(self, text: str, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} was not shown: {self.shown!r}"
            try:
                self.shown += os.read(self._ours, 4096).decode(errors="replace")
            except OSError:
                assert text in self.shown, self.shown
                return

    def wait(self) -> int:
        return self._process.wait(30)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(30)
        os.close(self._ours)


def test_terminal(pod: Pods, running: Any, typed: Any) -> None:
    pod("p", "sleep 60")
    running()
    shell = typed("exec", "-it", "p", "--", "sh")
    shell.type("tty; stty size; echo $((6*7))\n")
    shell.until("42")
    assert "/dev/pts/" in shell.shown or "not a tty" not in shell.shown
    shell.until("33 77")
    shell.type("exit 5\n")
    assert shell.wait() == 5


def test_interrupt_at_a_terminal_reaches_the_command(pod: Pods, running: Any, typed: Any) -> None:
    pod("p", "sleep 60")
    running()
    script = "trap 'echo interrupted; exit 3' INT; echo up; while :; do sleep 0.05; done"
    shell = typed("exec", "-it", "p", "--", "sh", "-c", script)
    shell.until("up")
    shell.type("\x03")
    shell.until("interrupted")
    assert shell.wait() == 3


def test_attach_to_a_container_that_reads(
    pod: Pods, running: Any, ended: Any, log: Any, kubectl: Any
) -> None:
    script = "read x; echo got $x; read y; echo and $y"
    pod("p", script, container={"stdin": True, "stdinOnce": True})
    running()
    assert "got one\nand two" in kubectl("attach", "-i", "p", given="one\ntwo\n")
    assert ended().status.phase == "Succeeded"
    assert log() == "got one\nand two\n"


def test_run_at_a_terminal(ns: str, typed: Any, core: Core, until: Any) -> None:
    words = ("run", "p", "--image=busybox", "--restart=Never", "-it", "--rm", "--", "sh")
    shell = typed(*words)
    until(lambda: core.list_namespaced_pod(ns).items, 30)
    shell.type("echo $((6*7))\n")
    shell.until("42")
    shell.type("exit 0\n")
    shell.until("deleted")
    assert shell.wait() == 0
    assert not core.list_namespaced_pod(ns).items


def test_client_that_goes_ends_its_command(
    core: Core, ns: str, pod: Pods, running: Any, log: Any, until: Any
) -> None:
    pod("p", "while :; do pgrep -f 'sleep 3[3]' >/dev/null && echo there || echo gone;"
        " sleep 0.1; done")  # fmt: skip
    running()
    socket = stream(
        core.connect_get_namespaced_pod_exec, "p", ns, command=["sleep", "33"], stdout=True,
        _preload_content=False,
    )  # fmt: skip
    until(lambda: "there" in log(tail_lines=1))
    socket.close()
    socket.sock.shutdown()
    until(lambda: "gone" in log(tail_lines=1))
