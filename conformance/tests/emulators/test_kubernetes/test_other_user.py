"""The stand-in started by another user than root: pods that are walled off all the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# A user without any right but to its files: who starts the tests may be root.
OTHER = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]

CLIENT = """
import json, os, sys, time
import kubernetes as k
from kubernetes.stream import stream

k.config.load_kube_config(os.environ["KUBECONFIG"])
core = k.client.CoreV1Api()
script = ("echo $$$$; echo shared > /e/f; cat /e/f; echo no > /etc/here; ls /etc/here;"
          " cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo ' end'; sleep 60")
security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
mounts = [{"name": "e", "mountPath": "/e"}]
container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script],
             "volumeMounts": mounts, "securityContext": security}
spec = {"restartPolicy": "Never", "containers": [container], "terminationGracePeriodSeconds": 0,
        "securityContext": {"runAsUser": 1234, "runAsNonRoot": True},
        "volumes": [{"name": "e", "emptyDir": {}}]}
core.create_namespaced_pod("default", {"metadata": {"name": "p"}, "spec": spec})
while (found := core.read_namespaced_pod("p", "default")).status.phase == "Pending":
    time.sleep(0.05)
read = ["sh", "-c", "until [ -s /e/f ]; do sleep 0.05; done; cat /e/f"]
socket = stream(core.connect_get_namespaced_pod_exec, "p", "default", command=read,
                stdout=True, _preload_content=False)
socket.run_forever(timeout=30)
beside = socket.read_stdout()
log = ""
while "end" not in log:
    log = core.read_namespaced_pod_log("p", "default", _preload_content=False).data.decode()
print(json.dumps({"phase": found.status.phase, "log": log.split(), "beside": beside}))
"""


def test_pods_are_walled_off(own_tmp: None, left: Callable[[], list[str]]) -> None:
    if shutil.which("unshare") is None or subprocess.run([*OTHER, "true"], check=False).returncode:
        pytest.skip("no user namespaces here")
    done = subprocess.run(
        [*OTHER, sys.executable, "-m", "portaflow", "emulate", "kubernetes", "--pace", "0.02",
         "--", sys.executable, "-c", CLIENT],
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["phase"] == "Running"
    assert told["log"] == ["1", "shared", "/etc/here", "default", "end"]
    assert told["beside"] == "shared\n"
    assert not Path("/etc/here").exists()
    assert left() == []
