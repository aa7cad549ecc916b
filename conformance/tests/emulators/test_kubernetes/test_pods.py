"""Pods that really run: how they start and end, what is said of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from kubernetes.client import ApiException

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]


def terminated(pod: Any, number: int = 0) -> Any:
    return pod.status.container_statuses[number].state.terminated


def reasons(core: Core, ns: str, name: str = "p") -> list[str]:
    chosen = f"involvedObject.name={name}"
    return [e.reason for e in core.list_namespaced_event(ns, field_selector=chosen).items]


def test_pod_runs_to_its_end(pod: Pods, ended: Any, log: Any, core: Core, ns: str) -> None:
    pod("p", "echo out; echo err >&2")
    done = ended()
    assert done.status.phase == "Succeeded"
    assert (terminated(done).exit_code, terminated(done).reason) == (0, "Completed")
    assert sorted(log().split()) == ["err", "out"]
    assert reasons(core, ns)[0] == "Scheduled"
    assert {"Pulled", "Created", "Started"} <= set(reasons(core, ns))


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("exit 7", 7, "Error"),
        ("kill -KILL $$$$; sleep 9", 137, "Error"),
        ("nope-nope", 127, "Error"),
    ],
)
def test_exit_code_is_told(pod: Pods, ended: Any, script: str, code: int, reason: str) -> None:
    # A first process of a namespace cannot kill itself; $$ is how a pod writes a dollar.
    pod("p", f"sh -c '{script}'; exit $?")
    done = ended()
    assert done.status.phase == "Failed"
    assert (terminated(done).exit_code, terminated(done).reason) == (code, reason)


def test_command_that_is_not_there_cannot_start(pod: Pods, ended: Any) -> None:
    pod(container={"command": ["no-such-program"]})
    done = ended()
    assert (terminated(done).exit_code, terminated(done).reason) == (128, "StartError")
    assert "no-such-program" in terminated(done).message


def test_image_that_is_not_there(core: Core, ns: str, pod: Pods, until: Any) -> None:
    pod(container={"image": "portaflow.invalid/none:1"})

    def waiting() -> Any:
        [status] = core.read_namespaced_pod("p", ns).status.container_statuses or [None]
        return status and status.state.waiting

    until(lambda: (w := waiting()) and w.reason == "ImagePullBackOff")
    assert "portaflow.invalid/none:1" in waiting().message
    assert core.read_namespaced_pod("p", ns).status.phase == "Pending"
    assert {"Failed", "BackOff"} <= set(reasons(core, ns))


def test_pod_is_pending_until_each_container_has_begun(
    core: Core, ns: str, pod: Pods, until: Any, log: Any
) -> None:
    beside = {"name": "beside", "image": "busybox", "command": ["sleep", "60"]}
    late = {"name": "late", "image": "busybox", "command": ["echo", "hi"]}
    late["envFrom"] = [{"configMapRef": {"name": "later"}}]
    pod("p", containers=[beside, late])

    def status() -> Any:
        return core.read_namespaced_pod("p", ns).status

    until(lambda: any(c.state.running for c in status().container_statuses or []))
    assert status().phase == "Pending"
    core.create_namespaced_config_map(ns, {"metadata": {"name": "later"}})
    until(lambda: status().phase == "Running")
    until(lambda: log(container="late") == "hi\n")
    assert status().phase == "Running"


def test_init_containers_come_first_and_may_fail(pod: Pods, ended: Any, log: Any) -> None:
    def init(name: str, script: str) -> dict[str, Any]:
        return {"name": name, "image": "busybox", "command": ["sh", "-c", script]}

    pod("p", "echo never", initContainers=[init("one", "echo 1"), init("two", "exit 4")])
    done = ended()
    assert done.status.phase == "Failed"
    codes = [s.state.terminated.exit_code for s in done.status.init_container_statuses]
    assert codes == [0, 4]
    assert log(container="one") == "1\n"
    with pytest.raises(ApiException) as refused:
        log(container="main")
    assert refused.value.status == 400
    assert "PodInitializing" in str(refused.value.body)


def test_failed_container_is_restarted(
    core: Core, ns: str, pod: Pods, ended: Any, log: Any
) -> None:
    script = "n=$(cat /d/n || echo 0); echo run $n; echo $((n+1)) > /d/n; test $n -ge 2"
    pod(
        "p", script, restartPolicy="OnFailure", volumes=[{"name": "d", "emptyDir": {}}],
        container={"volumeMounts": [{"name": "d", "mountPath": "/d"}]},
    )  # fmt: skip
    done = ended()
    [status] = done.status.container_statuses
    assert (done.status.phase, status.restart_count) == ("Succeeded", 2)
    assert status.last_state.terminated.exit_code == 1
    assert log() == "run 2\n"
    assert log(previous=True) == "run 1\n"
    assert "BackOff" in reasons(core, ns)


def test_memory_limit_ends_a_container(pod: Pods, ended: Any) -> None:
    hog = "import time; b = bytearray(200 * 2**20); time.sleep(30)"
    pod(container={"command": ["python3", "-c", hog], "resources": {"limits": {"memory": "64Mi"}}})
    done = ended()
    assert (terminated(done).exit_code, terminated(done).reason) == (137, "OOMKilled")


def test_pod_that_never_fits_is_unschedulable(core: Core, ns: str, pod: Pods, until: Any) -> None:
    pod(container={"resources": {"requests": {"nvidia.com/gpu": "1"}}})

    def told() -> Any:
        found = core.read_namespaced_pod("p", ns)
        assert found.status.phase == "Pending"
        return [c for c in found.status.conditions or [] if c.reason == "Unschedulable"]

    [condition] = until(told)
    assert condition.message == "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
    assert reasons(core, ns) == ["FailedScheduling"]


def test_pods_wait_for_room(core: Core, ns: str, pod: Pods, ended: Any, running: Any) -> None:
    half = {"resources": {"requests": {"cpu": "40"}}}
    pod("one", "sleep 60", container=half)
    running("one")
    pod("two", "true", container=half)
    assert core.read_namespaced_pod("two", ns).spec.node_name is None
    core.delete_namespaced_pod("one", ns, grace_period_seconds=0)
    assert ended("two").status.phase == "Succeeded"


def test_deadline_ends_a_pod(pod: Pods, ended: Any) -> None:
    pod("p", "sleep 60", activeDeadlineSeconds=1, terminationGracePeriodSeconds=0)
    done = ended()
    assert (done.status.phase, done.status.reason) == ("Failed", "DeadlineExceeded")


def test_deletion_asks_first(core: Core, ns: str, pod: Pods, running: Any, until: Any) -> None:
    script = "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    pod("p", script)
    running()
    follow = core.read_namespaced_pod_log("p", ns, follow=True, _preload_content=False)
    assert follow.readline() == b"up\n"
    start = time.monotonic()
    core.delete_namespaced_pod("p", ns)
    assert core.read_namespaced_pod("p", ns).metadata.deletion_timestamp
    assert follow.read() == b"asked\n"
    follow.release_conn()
    until(lambda: not core.list_namespaced_pod(ns).items)
    assert time.monotonic() - start < 4  # its grace is 5 s


def test_grace_has_an_end(core: Core, ns: str, pod: Pods, running: Any, until: Any) -> None:
    pod("p", "trap '' TERM; sleep 60")
    running()
    core.delete_namespaced_pod("p", ns, grace_period_seconds=1)
    until(lambda: not core.list_namespaced_pod(ns).items)


def test_nothing_runs_after_the_hard_end(
    core: Core, ns: str, pod: Pods, running: Any, until: Any
) -> None:
    mark = f"3600.{os.getpid()}"
    pod("p", f"setsid sleep {mark} & sleep {mark} & wait")
    running()

    def alive() -> list[str]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if words[:2] == [b"sleep", mark.encode()]:
                found.append(path.parent.name)
        return found

    until(lambda: len(alive()) == 2)
    core.delete_namespaced_pod("p", ns, grace_period_seconds=0)
    until(lambda: not alive(), 5)


def test_containers_see_their_own_processes_alone(pod: Pods, ended: Any, log: Any) -> None:
    pod("p", "ls /proc | grep -c '^[0-9]'; kill -TERM -1 2>/dev/null; echo alive")
    ended()
    number, word = log().split()
    assert int(number) < 8
    assert word == "alive"


def test_termination_message(pod: Pods, ended: Any) -> None:
    pod("p", "echo told > /dev/termination-log; exit 1")
    assert terminated(ended()).message == "told\n"


def test_eviction_through_the_api_deletes(
    core: Core, ns: str, pod: Pods, running: Any, until: Any
) -> None:
    pod("p", "sleep 60", terminationGracePeriodSeconds=0)
    running()
    core.create_namespaced_pod_eviction("p", ns, {"metadata": {"name": "p"}})
    until(lambda: not core.list_namespaced_pod(ns).items)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"containers": []}, "spec.containers"),
        ({"restartPolicy": "Sometimes"}, "spec.restartPolicy"),
        ({"container": {"image": ""}}, "spec.containers[0].image"),
        (
            {"container": {"volumeMounts": [{"name": "v", "mountPath": "/v"}]}},
            "volumeMounts[0].name",
        ),
        ({"volumes": [{"name": "v", "persistentVolumeClaim": {}}]}, "persistentVolumeClaim"),
        ({"container": {"livenessProbe": {"grpc": {"port": 1}}}}, "livenessProbe.grpc"),
    ],
)
def test_bad_pod_is_refused(pod: Pods, change: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiException) as refused:
        pod("p", "true", **change)
    assert refused.value.status == 422
    assert field in refused.value.body


def test_when_a_pods_end_was_asked_for_is_told_while_a_finalizer_holds_it(
    core: Core, ns: str, pod: Pods, running: Any, log: Any, until: Any
) -> None:
    """A kubelet that is done shortens the grace, and the time of its end by as much."""
    pod("p", "trap 'exit 0' TERM; echo up; sleep 600 & wait")
    running()
    until(lambda: "up" in log())
    core.patch_namespaced_pod("p", ns, {"metadata": {"finalizers": ["mine/one"]}})
    meta = core.delete_namespaced_pod("p", ns, grace_period_seconds=25).metadata
    asked = meta.deletion_timestamp - timedelta(seconds=25)

    def held() -> Any:
        meta = core.read_namespaced_pod("p", ns).metadata
        return meta if meta.deletion_grace_period_seconds == 0 else None

    assert until(held).deletion_timestamp == asked
    core.patch_namespaced_pod("p", ns, {"metadata": {"finalizers": None}})
