"""kubectl as Debian packs it, with the environment alone."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

POD = {
    "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
    "spec": {
        "restartPolicy": "Never",
        "containers": [{
            "name": "c", "image": "busybox", "command": [
                "sh", "-c", "echo up; trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done",
            ],
        }],
    },
}  # fmt: skip


Kubectl = Callable[..., str]


def test_pod_from_apply_to_delete(kubectl: Kubectl) -> None:
    assert "created" in kubectl("apply", "-f", "-", given=json.dumps(POD))
    assert "unchanged" in kubectl("apply", "-f", "-", given=json.dumps(POD))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=20s")
    assert kubectl("get", "pods").split()[:5] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert kubectl("exec", "-i", "p", "--", "cat", given="word") == "word"
    kubectl("exec", "p", "--", "sh", "-c", "exit 4", code=4)
    assert "up" in kubectl("logs", "p")
    assert "Started container: c" in kubectl("describe", "pod", "p")
    assert "deleted" in kubectl("delete", "pod", "p")
    assert "p" not in kubectl("get", "pods", "-o", "name").split("/")


def test_job(kubectl: Kubectl) -> None:
    container = {"name": "c", "image": "busybox", "command": ["echo", "from the job"]}
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": spec}
    kubectl("apply", "-f", "-", given=json.dumps(body))
    kubectl("wait", "--for=condition=Complete", "job/j", "--timeout=20s")
    assert "from the job" in kubectl("logs", "job/j")
    assert "deleted" in kubectl("delete", "job", "j")
    kubectl("wait", "--for=delete", "pods", "-l", "job-name=j", "--timeout=20s")


def test_watch_and_follow_tell_what_happens(
    cluster: Any, ns: str, binary: str, kubectl: Kubectl
) -> None:
    def begin(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [binary, "-n", ns, *words], env=cluster.clouds.environ(), text=True,
            stdout=subprocess.PIPE,
        )  # fmt: skip

    kubectl("apply", "-f", "-", given=json.dumps(POD))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=20s")
    with begin("get", "pods", "-w", "--no-headers") as watch, begin("logs", "-f", "p") as logs:
        try:
            assert logs.stdout is not None
            assert watch.stdout is not None
            assert logs.stdout.readline() == "up\n"
            assert watch.stdout.readline().split()[:3] == ["p", "1/1", "Running"]
            kubectl("delete", "pod", "p")
            assert logs.stdout.read() == "bye\n"
            assert logs.wait(20) == 0
            told = watch.stdout.readline().split()[2]
            while told == "Terminating":
                told = watch.stdout.readline().split()[2]
            assert told == "Completed"
        finally:
            watch.kill()
            logs.kill()


def test_objects_that_kubectl_sends_in_protobuf(kubectl: Kubectl) -> None:
    assert "created" in kubectl("create", "job", "j", "--image=busybox", "--", "echo", "made")
    kubectl("wait", "--for=condition=Complete", "job/j", "--timeout=20s")
    assert "made" in kubectl("logs", "job/j")
    kubectl("create", "configmap", "c", "--from-literal=a=b")
    assert kubectl("get", "configmap", "c", "-o", "jsonpath={.data.a}") == "b"
    kubectl("create", "secret", "generic", "s", "--from-literal=a=b")
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.a}") == "Yg=="
    kubectl("create", "serviceaccount", "one")
    kubectl("create", "service", "clusterip", "front", "--tcp=80:8080")
    port = "jsonpath={.spec.ports[0].port} {.spec.ports[0].targetPort}"
    assert kubectl("get", "service", "front", "-o", port) == "80 8080"


def test_copy_there_and_back(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("apply", "-f", "-", given=json.dumps(POD))
    kubectl("wait", "--for=condition=Ready", "pod/p", "--timeout=20s")
    here = tmp_path / "here"
    here.write_bytes(bytes(range(256)) * 1000)
    kubectl("cp", str(here), "p:/tmp/there")
    assert kubectl("exec", "p", "--", "wc", "-c", "/tmp/there").split()[0] == "256000"
    kubectl("cp", "p:/tmp/there", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == here.read_bytes()
    assert not Path("/tmp/there").exists()


def test_account_may_do_what_its_role_says(kubectl: Kubectl, ns: str) -> None:
    kubectl("create", "serviceaccount", "one")
    token = f"--token={kubectl('create', 'token', 'one').strip()}"
    assert kubectl("auth", "can-i", "list", "pods", token, code=1).strip() == "no"
    assert "cannot list" in kubectl("get", "pods", token, code=1)
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "b", "--role=reader", f"--serviceaccount={ns}:one")
    assert kubectl("auth", "can-i", "list", "pods", token).strip() == "yes"
    assert "No resources" in kubectl("get", "pods", token)
    assert kubectl("auth", "can-i", "delete", "pods", token, code=1).strip() == "no"
    assert "cannot" in kubectl("get", "pods", token, "-n", "default", code=1)
