"""What a namespace demands of its pods: quotas, limits, security; and the token it gives them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import kubernetes
import pytest
from kubernetes.client import ApiException

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]

RESTRICTED = {
    "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
    "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip


def refusal(make: Callable[[], Any]) -> str:
    with pytest.raises(ApiException) as refused:
        make()
    assert refused.value.status == 403
    message: str = json.loads(refused.value.body)["message"]
    return message


def test_quota(core: Core, ns: str, pod: Pods, ended: Any) -> None:
    hard = {"pods": "1", "requests.cpu": "1"}
    core.create_namespaced_resource_quota(ns, {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    assert "must specify requests.cpu for: p" in refusal(lambda: pod("p"))
    asks = {"resources": {"requests": {"cpu": "500m"}}}
    pod("p", "sleep 60", container=asks)
    assert core.read_namespaced_resource_quota("q", ns).status.used == {
        "pods": "1", "requests.cpu": "500m",
    }  # fmt: skip
    told = refusal(lambda: pod("q", container=asks))
    assert told == (
        'pods "q" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1'
    )
    core.delete_namespaced_pod("p", ns, grace_period_seconds=0)
    pod("q", container=asks)
    ended("q")
    assert core.read_namespaced_resource_quota("q", ns).status.used["pods"] == "0"


def test_quota_of_any_kind(core: Core, ns: str) -> None:
    """One is there in each namespace: kube-root-ca.crt."""
    hard = {"hard": {"count/configmaps": "2", "secrets": "0"}}
    core.create_namespaced_resource_quota(ns, {"metadata": {"name": "q"}, "spec": hard})
    core.create_namespaced_config_map(ns, {"metadata": {"name": "c"}})
    body = {"metadata": {"name": "d"}}
    assert "used: count/configmaps=2" in refusal(
        lambda: core.create_namespaced_config_map(ns, body)
    )
    assert "used: secrets=0" in refusal(lambda: core.create_namespaced_secret(ns, body))


def test_job_tells_that_a_quota_stops_it(
    core: Core, batch: kubernetes.client.BatchV1Api, ns: str, until: Any
) -> None:
    hard = {"hard": {"pods": "0"}}
    core.create_namespaced_resource_quota(ns, {"metadata": {"name": "q"}, "spec": hard})
    container = {"name": "c", "image": "busybox", "command": ["true"]}
    spec = {"restartPolicy": "Never", "containers": [container]}
    batch.create_namespaced_job(
        ns, {"metadata": {"name": "j"}, "spec": {"template": {"spec": spec}}}
    )

    def told() -> list[str]:
        events = core.list_namespaced_event(ns).items
        return [e.message for e in events if e.reason == "FailedCreate"]

    assert "exceeded quota: q" in until(told)[0]


def test_limit_range_fills_in_and_refuses(core: Core, ns: str, pod: Pods) -> None:
    limit = {
        "type": "Container", "default": {"memory": "64Mi"}, "defaultRequest": {"memory": "32Mi"},
        "max": {"memory": "128Mi"},
    }  # fmt: skip
    core.create_namespaced_limit_range(ns, {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})
    [container] = pod("p").spec.containers
    assert container.resources.limits == {"memory": "64Mi"}
    assert container.resources.requests == {"memory": "32Mi"}
    much = {"resources": {"limits": {"memory": "1Gi"}}}
    assert "maximum memory usage per Container is 128Mi" in refusal(
        lambda: pod("q", container=much)
    )


def test_restricted_namespace_lets_restricted_pods_in(core: Core, ns: str, pod: Pods) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.patch_namespace(ns, {"metadata": {"labels": labels}})
    told = refusal(lambda: pod("p"))
    assert 'violates PodSecurity "restricted:latest"' in told
    for word in ("allowPrivilegeEscalation", "capabilities", "runAsNonRoot", "seccompProfile"):
        assert word in told
    pod("p", container={"securityContext": RESTRICTED})
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    core.patch_namespace(ns, {"metadata": {"labels": labels}})
    pod("q")
    bad = {"securityContext": {"privileged": True}}
    assert "privileged" in refusal(lambda: pod("r", container=bad))


def test_pod_speaks_to_the_api_as_its_account(
    core: Core, client: kubernetes.client.ApiClient, ns: str, pod: Pods, ended: Any
) -> None:
    """By the official client, as Spark's driver and Airflow's worker do."""
    script = (
        "import kubernetes as k; k.config.load_incluster_config(); api = k.client.CoreV1Api();"
        f"print([p.metadata.name for p in api.list_namespaced_pod('{ns}').items])"
    )
    command = {"command": ["python3", "-c", script]}
    pod("stranger", container=command)
    assert ended("stranger", 60).status.phase == "Failed"
    said = core.read_namespaced_pod_log("stranger", ns, _preload_content=False).data.decode()
    assert f"system:serviceaccount:{ns}:default" in said
    assert "cannot list resource" in said
    rbac = kubernetes.client.RbacAuthorizationV1Api(client)
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": ns}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    body = {"metadata": {"name": "b"}, "subjects": [subject], "roleRef": role}
    rbac.create_namespaced_role_binding(ns, body)
    pod("known", container=command)
    assert ended("known", 60).status.phase == "Succeeded"
    said = core.read_namespaced_pod_log("known", ns, _preload_content=False).data.decode()
    assert said == "['known', 'stranger']\n"


def test_token_ends_with_its_pod(
    cluster: Any, core: Core, ns: str, pod: Pods, running: Any, beside: Any, until: Any
) -> None:
    pod("p", "sleep 60", terminationGracePeriodSeconds=0)
    running()
    token, _ = beside("cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    stranger = cluster.connect()
    stranger.configuration.api_key = {"authorization": f"Bearer {token}"}
    stranger.configuration.refresh_api_key_hook = None

    def status() -> int:
        with pytest.raises(ApiException) as refused:
            Core(stranger).list_namespaced_pod(ns)
        code: int = refused.value.status
        return code

    assert status() == 403
    core.delete_namespaced_pod("p", ns)
    until(lambda: status() == 401)


def test_pod_without_a_token(ns: str, pod: Pods, ended: Any) -> None:
    made = pod("p", "ls /var/run/secrets/kubernetes.io", automountServiceAccountToken=False)
    assert made.spec.volumes is None
    assert ended().status.phase == "Failed"


def test_headless_service_is_taken(core: Core, ns: str) -> None:
    """As Spark makes one for its driver."""
    ports = [{"name": "driver", "port": 7078, "targetPort": 7078}]
    spec = {"clusterIP": "None", "selector": {"spark-role": "driver"}, "ports": ports}
    core.create_namespaced_service(ns, {"metadata": {"name": "driver-svc"}, "spec": spec})
    found = core.read_namespaced_service("driver-svc", ns)
    assert (found.spec.cluster_ip, found.spec.ports[0].protocol) == ("None", "TCP")
    spec = {"type": "LoadBalancer", "ports": [{"port": 80}]}
    with pytest.raises(ApiException) as refused:
        core.create_namespaced_service(ns, {"metadata": {"name": "s"}, "spec": spec})
    assert "not implemented by this stand-in" in refused.value.body


def test_review_tells_what_an_account_may(
    cluster: Any, core: Core, client: kubernetes.client.ApiClient, ns: str
) -> None:
    """As the API server does it: of the groups, those count that the question names."""
    api, rbac = kubernetes.client.AuthorizationV1Api, kubernetes.client.RbacAuthorizationV1Api
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["create"]}]
    rbac(client).create_namespaced_role(ns, {"metadata": {"name": "r"}, "rules": rules})
    group = f"system:serviceaccounts:{ns}"
    subject = {"kind": "Group", "name": group, "apiGroup": "rbac.authorization.k8s.io"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
    body = {"metadata": {"name": "b"}, "subjects": [subject], "roleRef": role}
    rbac(client).create_namespaced_role_binding(ns, body)

    def allowed(verb: str, user: str = "one", where: str = ns, **more: Any) -> bool:
        asked = {"verb": verb, "resource": "pods", "namespace": where}
        name = f"system:serviceaccount:{ns}:{user}" if user else ""
        spec = {"user": name, "resourceAttributes": asked, **more}
        told = [
            api(client).create_namespaced_local_subject_access_review(ns, {"spec": spec}),
            api(client).create_subject_access_review({"spec": spec}),
        ]
        assert told[0].status.allowed == told[1].status.allowed
        return bool(told[0].status.allowed)

    assert allowed("create", groups=[group])
    assert not allowed("create")
    assert not allowed("delete", groups=[group])
    assert not allowed("create", groups=["system:authenticated"])
    for wrong in ({"user": ""}, {"where": "default"}):
        with pytest.raises(ApiException) as refused:
            allowed("create", **wrong)
        assert refused.value.status == 422
    viewer = api(cluster.connect("viewer"))
    with pytest.raises(ApiException) as refused:
        viewer.create_namespaced_local_subject_access_review(ns, {"spec": {"user": "x"}})
    assert refused.value.status == 403


def test_node_lists_the_images_that_it_has(core: Core, pod: Pods, ended: Any) -> None:
    def there() -> list[str]:
        [node] = core.list_node().items
        return [name for image in node.status.images or () for name in image.names]

    name = "registry.example.com/some/thing:7"
    assert name not in there()
    pod("a", container={"image": name})
    ended("a")
    pod("b", container={"image": "thing"})
    ended("b")
    assert {name, "docker.io/library/thing:latest"} <= {*there()}
