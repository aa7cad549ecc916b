"""kubectl as Debian packs it, with the environment alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

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


@pytest.fixture(scope="module")
def binary() -> str:
    if shutil.which("kubectl") is None and os.getuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "kubernetes-client"]
        subprocess.run(command, check=False, timeout=240, capture_output=True)
    found = shutil.which("kubectl")
    if found is None:
        why = "no kubectl here (Debian: apt-get install kubernetes-client)"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(f"{why}: did not run")
    return found


Kubectl = Callable[..., str]


@pytest.fixture
def kubectl(cluster: Any, ns: str, binary: str) -> Kubectl:
    def run(*words: str, given: str = "", code: int = 0) -> str:
        done = subprocess.run(
            [binary, "-n", ns, *words], input=given, env=cluster.clouds.environ(),
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout

    return run


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
    assert kubectl("get", "pods", "-o", "name") == ""


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
