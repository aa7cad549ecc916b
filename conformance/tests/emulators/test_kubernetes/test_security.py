"""Security contexts: whom a container runs as, and what it may."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import kubernetes
import pytest

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]

root = pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes of others")
RESTRICTED = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"}, "readOnlyRootFilesystem": True,
}  # fmt: skip


@root
def test_restricted_container(pod: Pods, ended: Any, log: Any) -> None:
    script = (
        "id -u; id -g; id -G; touch /here 2>/dev/null || echo no; touch /d/x && echo yes;"
        "grep -E 'NoNewPrivs|CapBnd' /proc/self/status; python3 -c 'print(6*7)'; stat -c %g /d/x;"
        "echo told > /dev/termination-log"
    )
    pod(
        "p", script, volumes=[{"name": "d", "emptyDir": {}}],
        securityContext={"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456},
        container={
            "securityContext": RESTRICTED, "volumeMounts": [{"name": "d", "mountPath": "/d"}],
        },
    )  # fmt: skip
    done = ended("p", 40)
    user, group, groups, no, yes, privileges, bounds, number, owner = log().splitlines()
    assert (user, group, sorted(groups.split())) == ("1234", "2345", ["2345", "3456"])
    assert (no, yes, number, owner) == ("no", "yes", "42", "3456")
    assert privileges.split()[-1] == "1" or bounds.split()[-1] == "1"
    assert {privileges.split()[-1], bounds.split()[-1]} == {"1", "0" * 16}
    assert done.status.container_statuses[0].state.terminated.message == "told\n"


@root
def test_command_beside_a_container_runs_as_its_user(pod: Pods, running: Any, beside: Any) -> None:
    pod("p", "sleep 60", securityContext={"runAsUser": 1234})
    running()
    assert beside("id", "-u") == ("1234\n", 0)


@root
def test_secret_of_a_group(core: Core, ns: str, pod: Pods, ended: Any, log: Any) -> None:
    core.create_namespaced_secret(ns, {"metadata": {"name": "s"}, "stringData": {"k": "hidden"}})
    volume = {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}}
    for name, group in (("member", 3456), ("stranger", None)):
        security = {"runAsUser": 1234, **({"fsGroup": group} if group else {})}
        pod(
            name, "cat /s/k", volumes=[volume], securityContext=security,
            container={"volumeMounts": [{"name": "s", "mountPath": "/s"}]},
        )  # fmt: skip
    assert ended("member").status.phase == "Succeeded"
    assert log("member") == "hidden"
    assert ended("stranger").status.phase == "Failed"


@pytest.mark.parametrize(
    ("security", "told"),
    [
        ({"runAsNonRoot": True}, "container has runAsNonRoot and image will run as root"),
        ({"runAsNonRoot": True, "runAsUser": 0}, "runAsUser breaks non-root policy"),
    ],
)
def test_root_is_refused_where_it_must_not_be(
    core: Core, ns: str, pod: Pods, until: Any, security: dict[str, Any], told: str
) -> None:
    pod("p", securityContext=security)

    def waiting() -> Any:
        [status] = core.read_namespaced_pod("p", ns).status.container_statuses or [None]
        return status and status.state.waiting

    until(lambda: (w := waiting()) and w.reason == "CreateContainerConfigError")
    assert told in waiting().message


@root
def test_image_that_brings_a_user(cluster: Any, pod: Pods, ended: Any, log: Any) -> None:
    from portaflow_conformance.emulators.kubernetes import Image

    cluster.emulator.images.add("mine/user", Image(arguments=("id", "-u"), user=4321))
    pod(container={"image": "mine/user", "command": None}, securityContext={"runAsNonRoot": True})
    assert ended().status.phase == "Succeeded"
    assert log() == "4321\n"
