"""What a container is given: environment, arguments, volumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes
import pytest
from kubernetes.client import ApiException

Core = kubernetes.client.CoreV1Api
Pods = Callable[..., Any]


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


def test_names_of_services_and_aliases(
    core: Core, ns: str, pod: Pods, ended: Any, log: Any
) -> None:
    spec = {"clusterIP": "None", "ports": [{"port": 80}]}
    core.create_namespaced_service(ns, {"metadata": {"name": "front"}, "spec": spec})
    script = (
        f"for n in front front.{ns}.svc front.{ns}.svc.cluster.local alias; do getent hosts $n;"
    )
    aliases = [{"ip": "127.0.0.9", "hostnames": ["alias"]}]
    pod("p", f"{script} done", hostAliases=aliases)
    assert ended().status.phase == "Succeeded"
    addresses = [line.split()[0] for line in log().splitlines()]
    assert addresses == ["127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.9"]
