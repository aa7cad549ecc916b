"""Probes and lifecycle hooks of pods that run."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import kubernetes
import pytest
from kubernetes.client import ApiException

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]

LOOP = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done"


def shell(script: str, **probe: Any) -> dict[str, Any]:
    return {"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, **probe}


@pytest.fixture
def main(core: Core, ns: str) -> Callable[[], Any]:
    """The status of the pod's container."""

    def read() -> Any:
        found = core.read_namespaced_pod("p", ns).status.container_statuses
        return found[0] if found else None

    return read


def events(core: Core, ns: str) -> dict[str, str]:
    return {e.reason: e.message for e in core.list_namespaced_event(ns).items}


def test_readiness_makes_a_pod_ready_and_unready(
    core: Core, ns: str, pod: Pods, running: Any, main: Any, until: Any, beside: Any
) -> None:
    script = f"(read x < /d/fifo; touch /d/ok; read x < /d/fifo; rm /d/ok) & {LOOP}"
    pod(
        "p", f"mkfifo /d/fifo; {script}", volumes=[{"name": "d", "emptyDir": {}}],
        container={
            "volumeMounts": [{"name": "d", "mountPath": "/d"}],
            "readinessProbe": shell("test -e /d/ok", failureThreshold=1),
        },
    )  # fmt: skip
    running()
    until(lambda: "Unhealthy" in events(core, ns))
    assert not main().ready
    assert main().started

    def ready() -> str:
        conditions = core.read_namespaced_pod("p", ns).status.conditions
        word: str = next(c.status for c in conditions if c.type == "Ready")
        return word

    assert ready() == "False"
    go = ("sh", "-c", "echo go > /d/fifo")
    assert beside(*go) == ("", 0)
    until(lambda: ready() == "True")
    assert beside(*go) == ("", 0)
    until(lambda: ready() == "False")
    assert main().restart_count == 0


def test_liveness_restarts_a_container(
    core: Core, ns: str, pod: Pods, main: Any, until: Any
) -> None:
    probe = shell("exit 3", failureThreshold=1)
    pod("p", LOOP, restartPolicy="Always", container={"livenessProbe": probe})
    until(lambda: main() and main().restart_count >= 1)
    told = events(core, ns)
    assert told["Unhealthy"].startswith("Liveness probe failed: exit code 3")
    assert told["Killing"] == "Container main failed liveness probe, will be restarted"


def test_liveness_ends_a_pod_that_is_never_restarted(pod: Pods, ended: Any) -> None:
    probe = {"tcpSocket": {"port": 1}, "periodSeconds": 1, "failureThreshold": 1}
    pod("p", "sleep 60", terminationGracePeriodSeconds=0, container={"livenessProbe": probe})
    done = ended()
    assert done.status.phase == "Failed"
    assert done.status.container_statuses[0].state.terminated.exit_code == 137


def test_startup_comes_before_the_others(
    core: Core, ns: str, pod: Pods, main: Any, until: Any
) -> None:
    """Served on a free port, asked for by name."""
    server = (
        "import http.server as h, socket, time; s = h.HTTPServer(('127.0.0.1', PORT),"
        " h.SimpleHTTPRequestHandler); s.serve_forever()"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    http = {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1}
    pod(
        "p", container={
            "command": ["python3", "-c", server.replace("PORT", str(port))],
            "ports": [{"name": "web", "containerPort": port}],
            "startupProbe": {**http, "failureThreshold": 60}, "livenessProbe": http,
            "readinessProbe": http,
        },
    )  # fmt: skip
    until(lambda: main() and main().state.running)
    assert (main().started, main().ready) in ((False, False), (True, False), (True, True))
    until(lambda: main().ready, 60)
    assert main().started
    assert main().restart_count == 0


def test_hooks_come_after_the_start_and_before_the_end(
    core: Core, ns: str, pod: Pods, running: Any, until: Any
) -> None:
    def hook(word: str) -> dict[str, Any]:
        return {"exec": {"command": ["sh", "-c", f"echo {word} > /proc/1/fd/1"]}}

    hooks = {"postStart": hook("started"), "preStop": hook("stopping")}
    pod(
        "p",
        f"trap 'echo asked; exit 0' TERM; {LOOP.partition('; ')[2]}",
        container={"lifecycle": hooks},
    )
    running()
    follow = core.read_namespaced_pod_log("p", ns, follow=True, _preload_content=False)
    assert {follow.readline(), follow.readline()} == {b"up\n", b"started\n"}
    core.delete_namespaced_pod("p", ns)
    assert follow.read() == b"stopping\nasked\n"
    follow.release_conn()
    until(lambda: not core.list_namespaced_pod(ns).items)


def test_hook_that_fails_ends_its_container(core: Core, ns: str, pod: Pods, ended: Any) -> None:
    hooks = {"postStart": {"exec": {"command": ["sh", "-c", "exit 4"]}}}
    pod("p", "sleep 60", terminationGracePeriodSeconds=0, container={"lifecycle": hooks})
    assert ended().status.phase == "Failed"
    assert "exit code 4" in events(core, ns)["FailedPostStartHook"]


def test_probe_without_a_handler_is_refused(pod: Pods) -> None:
    with pytest.raises(ApiException) as refused:
        pod(container={"livenessProbe": {"periodSeconds": 1}})
    assert refused.value.status == 422
    assert "must specify a handler type" in refused.value.body
