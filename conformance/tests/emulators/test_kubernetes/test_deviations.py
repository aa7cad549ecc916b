"""Each way in which the local Kubernetes is known to differ from a cluster, as it is now."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from kubernetes.client import ApiException
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.kubernetes import sandbox

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]


def get(core: Core, path: str, **headers: str) -> Any:
    """Ask as the official client does, but for the headers."""
    config = core.api_client.configuration
    key = config.get_api_key_with_prefix("authorization", "BearerToken") or ""
    given = {"Authorization": key, **{k.replace("_", "-"): v for k, v in headers.items()}}
    pool = core.api_client.rest_client.pool_manager
    return pool.request("GET", f"{config.host}{path}", headers=given)


def refused(make: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(ApiException) as error:
        make()
    return error.value.status, error.value.body


def test_deviation_kubernetes_images(pod: Pods, ended: Any, log: Any) -> None:
    pod("p", container={
        "image": "nobody.example.org/nothing/like:this", "command": ["hostname", "-s"],
    })  # fmt: skip
    assert ended().status.phase == "Succeeded"


def test_deviation_kubernetes_accounts(core: Core, ns: str) -> None:
    def accounts(namespace: str) -> list[str]:
        found = core.list_namespaced_service_account(namespace).items
        return sorted(account.metadata.name for account in found)

    assert (accounts("default"), accounts(ns)) == (["default", "spark"], ["default"])


def test_deviation_kubernetes_spark(pod: Pods, ended: Any, log: Any) -> None:
    pyspark = pytest.importorskip("pyspark")
    version = "/opt/spark/bin/spark-submit --version 2>&1 | grep -m1 -o 'version .*'"
    pod("p", version, container={"image": "apache/spark:3.5.7"}, securityContext={
        "runAsUser": 185, "runAsNonRoot": True,
    })  # fmt: skip
    assert ended(seconds=120).status.phase == "Succeeded"
    assert log() == f"version {pyspark.__version__}\n"


def test_deviation_kubernetes_network(pod: Pods, running: Any) -> None:
    addresses = []
    for name in ("p", "q"):
        pod(name, "sleep 60", terminationGracePeriodSeconds=0)
        addresses.append(running(name).status.pod_ip)
    assert addresses == ["127.0.0.1", "127.0.0.1"]


def test_deviation_kubernetes_names(
    core: Core, ns: str, pod: Pods, running: Any, beside: Any
) -> None:
    pod("p", "sleep 60", terminationGracePeriodSeconds=0)
    running()
    spec = {"clusterIP": "None", "ports": [{"port": 80}]}
    core.create_namespaced_service(ns, {"metadata": {"name": "front"}, "spec": spec})
    assert beside("getent", "hosts", f"front.{ns}.svc") == ("", 2)


def test_deviation_kubernetes_limits(pod: Pods, ended: Any, log: Any) -> None:
    """The container is in the server's own group, which has no limit of the pod's."""
    limits = {"limits": {"cpu": "10m", "memory": "64Mi"}}
    pod("p", "cat /proc/self/cgroup", container={"resources": limits})
    ended()
    assert log() == Path("/proc/self/cgroup").read_text()


def test_deviation_kubernetes_security(pod: Pods, ended: Any, log: Any) -> None:
    profile = {"seccompProfile": {"type": "RuntimeDefault"}}
    pod("p", "grep Seccomp: /proc/self/status", securityContext=profile)
    ended()
    ours = Path("/proc/self/status").read_text()
    assert log() in ours


def test_deviation_kubernetes_probes(pod: Pods) -> None:
    code, body = refused(lambda: pod(container={"readinessProbe": {"grpc": {"port": 1}}}))
    assert code == 422
    assert "not implemented by this stand-in" in body


def test_deviation_kubernetes_exec(core: Core, ns: str, pod: Pods, running: Any) -> None:
    pod("p", "sleep 60", terminationGracePeriodSeconds=0)
    running()
    path = f"/api/v1/namespaces/{ns}/pods/p/exec?command=true&stdout=true"
    answer = get(core, path, Upgrade="SPDY/3.1", Connection="Upgrade")
    assert answer.status == 400
    assert "other than by websocket" in answer.json()["message"]


def test_deviation_kubernetes_bodies(core: Core) -> None:
    answer = get(core, "/api/v1/namespaces", Accept="application/vnd.kubernetes.protobuf")
    assert answer.headers["Content-Type"].startswith("application/json")


def test_deviation_kubernetes_placement(pod: Pods, ended: Any) -> None:
    term = {"matchExpressions": [{"key": "no", "operator": "In", "values": ["such"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    made = pod(affinity={"nodeAffinity": required}, priorityClassName="high")
    assert made.spec.affinity.node_affinity
    assert made.spec.priority_class_name == "high"
    assert ended().status.phase == "Succeeded"


def test_deviation_kubernetes_walls(
    monkeypatch: pytest.MonkeyPatch, own_tmp: None, until: Any
) -> None:
    """Where no namespaces can be had, which is what another user than root may find."""
    monkeypatch.setattr(sandbox, "_TOOLS", ("no-such-tool",))
    with emulate("kubernetes", pace=0.02) as clouds:
        client = kubernetes.config.new_client_from_config(
            clouds.env["KUBECONFIG"], persist_config=False
        )
        core = Core(client)
        script = f"test -e /proc/{os.getpid()}/stat"  # that of the server, from within
        container = {"name": "c", "image": "busybox", "command": ["sh", "-c", script]}
        spec = {"restartPolicy": "Never", "containers": [container]}
        core.create_namespaced_pod("default", {"metadata": {"name": "p"}, "spec": spec})

        def phase() -> bool:
            word: str = core.read_namespaced_pod("p", "default").status.phase
            assert word != "Failed"
            return word == "Succeeded"

        until(phase)
        client.rest_client.pool_manager.clear()
        client.close()


def test_deviation_kubernetes_claims(core: Core, ns: str, pod: Pods) -> None:
    body = {"metadata": {"name": "c"}}
    code, told = refused(lambda: core.create_namespaced_persistent_volume_claim(ns, body))
    assert (code, "not implemented by this stand-in" in told) == (403, True)
    core.delete_collection_namespaced_persistent_volume_claim(ns)
    assert core.list_namespaced_persistent_volume_claim(ns).items == []
    volume = {"name": "v", "persistentVolumeClaim": {"claimName": "c"}}
    code, body = refused(lambda: pod(volumes=[volume]))
    assert code == 422
    assert "spec.volumes[0].persistentVolumeClaim" in body


def test_deviation_kubernetes_sidecars(pod: Pods) -> None:
    side = {"name": "s", "image": "busybox", "restartPolicy": "Always"}
    code, body = refused(lambda: pod(initContainers=[side]))
    assert code == 422
    assert "spec.initContainers[0].restartPolicy" in body


def test_deviation_kubernetes_kinds(client: kubernetes.client.ApiClient, ns: str) -> None:
    apps, batch = kubernetes.client.AppsV1Api(client), kubernetes.client.BatchV1Api(client)
    code, body = refused(lambda: apps.list_namespaced_deployment(ns))
    assert (code, "apps/v1 deployments" in body) == (404, True)
    code, body = refused(lambda: batch.list_namespaced_cron_job(ns))
    assert (code, "batch/v1 cronjobs" in body) == (404, True)


def test_deviation_kubernetes_openapi(core: Core) -> None:
    assert "components" not in get(core, "/openapi/v3/api/v1").json()


def test_deviation_kubernetes_jobs(
    core: Core, batch: kubernetes.client.BatchV1Api, ns: str
) -> None:
    container = {"name": "c", "image": "busybox", "command": ["true"]}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    batch.create_namespaced_job(ns, {"metadata": {"name": "j"}, "spec": {"template": template}})
    [pod] = core.list_namespaced_pod(ns, label_selector="job-name=j").items
    assert pod.metadata.finalizers is None
