"""Pods that really run: what a container gets, how it ends, what is said of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from kubernetes.client import ApiException
from kubernetes.stream import stream

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]


@pytest.fixture
def log(core: Core, ns: str) -> Callable[..., str]:
    def read(name: str = "p", **options: Any) -> str:
        response = core.read_namespaced_pod_log(name, ns, _preload_content=False, **options)
        text: str = response.data.decode()
        return text

    return read


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


def test_environment(core: Core, ns: str, pod: Pods, ended: Any, log: Any) -> None:
    core.create_namespaced_config_map(ns, {"metadata": {"name": "c"}, "data": {"k": "from-map"}})
    core.create_namespaced_secret(ns, {"metadata": {"name": "s"}, "stringData": {"k": "hidden"}})

    def source(kind: str, **ref: str) -> dict[str, Any]:
        return {"valueFrom": {kind: ref}}

    env = [
        {"name": "PLAIN", "value": "v"},
        {"name": "EXPANDED", "value": "$(PLAIN)-$$(PLAIN)-$(UNKNOWN)"},
        {"name": "MAP", **source("configMapKeyRef", name="c", key="k")},
        {"name": "SECRET", **source("secretKeyRef", name="s", key="k")},
        {"name": "NAME", **source("fieldRef", fieldPath="metadata.name")},
        {"name": "LABEL", **source("fieldRef", fieldPath="metadata.labels['a']")},
        {"name": "CPU", **source("resourceFieldRef", resource="limits.cpu")},
    ]
    script = "echo $PLAIN $EXPANDED $MAP $SECRET $NAME $LABEL $CPU $P_k; hostname; env"
    pod(
        "p", script, metadata={"labels": {"a": "b"}},
        container={
            "env": env, "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "P_"}],
            "resources": {"limits": {"cpu": "1500m"}},
        },
    )  # fmt: skip
    assert ended().status.phase == "Succeeded"
    first, *rest = log().splitlines()
    assert first == "v v-$(PLAIN)-$(UNKNOWN) from-map hidden p b 2 from-map"
    assert "HOSTNAME=p" in rest
    assert not [line for line in rest if line.startswith(("KUBECONFIG", "PYTEST"))]


def test_args_stand_against_the_entrypoint_of_the_image(
    cluster: Any, pod: Pods, ended: Any, log: Any
) -> None:
    from portaflow_conformance.emulators.kubernetes import Image

    cluster.emulator.images.add("mine/tool", Image(("echo", "entry"), ("default",)))
    for name, given in (("a", {}), ("b", {"args": ["x"]}), ("c", {"command": ["echo", "only"]})):
        pod(name, container={"image": "mine/tool:1", "command": None, **given})
        ended(name)
    assert [log(n) for n in "abc"] == ["entry default\n", "entry x\n", "only\n"]


def test_volumes(core: Core, ns: str, pod: Pods, ended: Any, log: Any) -> None:
    core.create_namespaced_config_map(
        ns, {"metadata": {"name": "c"}, "data": {"a.txt": "A", "b.txt": "B"}}
    )  # fmt: skip
    core.create_namespaced_secret(ns, {"metadata": {"name": "s"}, "stringData": {"k": "hidden"}})
    writer = {
        "name": "writer", "image": "busybox", "command": ["sh", "-c", "echo shared > /deep/er/f"],
        "volumeMounts": [{"name": "e", "mountPath": "/deep/er"}],
    }  # fmt: skip
    items = {"name": "c", "items": [{"key": "b.txt", "path": "sub/b"}]}
    script = (
        "cat /config/a.txt /some/sub/b /one/a /secret/k /data/f; pwd; ls /config;"
        "echo no > /config/a.txt; touch /was-here"
    )
    pod(
        "p", script, initContainers=[writer],
        volumes=[
            {"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}},
            {"name": "i", "configMap": items}, {"name": "s", "secret": {"secretName": "s"}},
        ],
        container={
            "workingDir": "/data",
            "volumeMounts": [
                {"name": "e", "mountPath": "/data"}, {"name": "c", "mountPath": "/config"},
                {"name": "i", "mountPath": "/some"}, {"name": "s", "mountPath": "/secret"},
                {"name": "c", "mountPath": "/one/a", "subPath": "a.txt"},
            ],
        },
    )  # fmt: skip
    ended()
    text = log()
    assert text.startswith("ABAhiddenshared\n/data\na.txt\nb.txt\n")
    assert "Read-only file system" in text
    for path in ("/deep", "/was-here", "/config", "/one"):
        assert not Path(path).exists(), "a container wrote to the machine"


def test_pod_waits_for_its_config_map(
    core: Core, ns: str, pod: Pods, ended: Any, until: Any
) -> None:
    source = {"configMapKeyRef": {"name": "late", "key": "k"}}
    pod("p", 'test "$A" = v', container={"env": [{"name": "A", "valueFrom": source}]})

    def waits() -> Any:
        [status] = core.read_namespaced_pod("p", ns).status.container_statuses or [None]
        return status and status.state.waiting.reason == "CreateContainerConfigError"

    until(waits)
    core.create_namespaced_config_map(ns, {"metadata": {"name": "late"}, "data": {"k": "v"}})
    assert ended().status.phase == "Succeeded"


def test_image_that_is_not_there(core: Core, ns: str, pod: Pods, until: Any) -> None:
    pod(container={"image": "portaflow.invalid/none:1"})

    def waiting() -> Any:
        [status] = core.read_namespaced_pod("p", ns).status.container_statuses or [None]
        return status and status.state.waiting

    until(lambda: (w := waiting()) and w.reason == "ImagePullBackOff")
    assert "portaflow.invalid/none:1" in waiting().message
    assert core.read_namespaced_pod("p", ns).status.phase == "Pending"
    assert {"Failed", "BackOff"} <= set(reasons(core, ns))


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


def test_side_by_side_containers_share_a_volume(pod: Pods, ended: Any, log: Any) -> None:
    mount = {"volumeMounts": [{"name": "d", "mountPath": "/d"}]}
    script = "until test -e /d/go; do sleep 0.02; done; echo went"
    other = {"name": "other", "image": "busybox", "command": ["sh", "-c", script], **mount}
    body = {"volumes": [{"name": "d", "emptyDir": {}}], "restartPolicy": "Never"}
    main = {"name": "main", "image": "busybox", "command": ["sh", "-c", "touch /d/go"], **mount}
    pod("p", **body, containers=[main, other])
    assert ended().status.phase == "Succeeded"
    assert log(container="other") == "went\n"
    with pytest.raises(ApiException) as refused:
        log()
    assert "choose one of: [main other]" in str(refused.value.body)


def test_termination_message(pod: Pods, ended: Any) -> None:
    pod("p", "echo told > /dev/termination-log; exit 1")
    assert terminated(ended()).message == "told\n"


def test_log_options(pod: Pods, ended: Any, log: Any) -> None:
    pod("p", "for i in 1 2 3 4 5; do echo line $i; done; sleep 1.2; echo late")
    ended()
    assert log(tail_lines=2) == "line 5\nlate\n"
    assert log(tail_lines=0) == ""
    assert log(limit_bytes=9) == "line 1\nli"
    assert log(since_seconds=1) == "late\n"
    stamp, _, text = log(timestamps=True, tail_lines=1).partition(" ")
    assert text == "late\n"
    assert stamp.endswith("Z")
    assert len(stamp) == len("2026-01-02T03:04:05.123456789Z")
    assert log(follow=True) == log()


def test_follower_gets_every_line_through_rotation(
    pod: Pods, running: Any, ended: Any, log: Any
) -> None:
    pod(
        "p",
        "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo line $i of many; done; echo done",
    )
    running()
    text = log(follow=True)
    numbers = [int(line.split()[1]) for line in text.splitlines()[:-1]]
    assert numbers == list(range(1, 30001))
    ended()
    assert 0 < len(log()) < 2**18  # the newest file alone


@pytest.fixture(autouse=True, scope="module")
def small_logs(cluster: Any) -> None:
    """Let logs rotate early: the machine that containers share is told before any starts."""
    object.__setattr__(cluster.emulator.kubelet._machine, "log_size", 2**18)


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
        ({"container": {"livenessProbe": {"exec": {"command": ["true"]}}}}, "livenessProbe"),
    ],
)
def test_bad_pod_is_refused(pod: Pods, change: dict[str, Any], field: str) -> None:
    with pytest.raises(ApiException) as refused:
        pod("p", "true", **change)
    assert refused.value.status == 422
    assert field in refused.value.body
