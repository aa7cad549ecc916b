"""Server-side apply by kubectl: owners of fields, conflicts, and what an apply takes away."""

from __future__ import annotations

import json
from typing import Any

import kubernetes

Core = kubernetes.client.CoreV1Api


def config_map(**data: str) -> str:
    meta = {"name": "c", "labels": {"l": "1"}}
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})


def owners(core: Core, ns: str) -> dict[tuple[str, str], set[str]]:
    """Who owns which entries of the data."""
    found = core.read_namespaced_config_map("c", ns).metadata.managed_fields or []
    return {
        (e.manager, e.operation): set(e.fields_v1.get("f:data") or {}) for e in found
    }  # fmt: skip


def apply(kubectl: Any, body: str, *words: str, **more: Any) -> Any:
    return kubectl("apply", "--server-side", "-f", "-", *words, given=body, **more)


def test_apply_makes_and_changes_and_takes_away(kubectl: Any, core: Core, ns: str) -> None:
    assert "serverside-applied" in apply(kubectl, config_map(a="1", b="1"))
    assert owners(core, ns) == {("kubectl", "Apply"): {"f:a", "f:b"}}
    version = core.read_namespaced_config_map("c", ns).metadata.resource_version
    apply(kubectl, config_map(a="1", b="1"))
    assert core.read_namespaced_config_map("c", ns).metadata.resource_version == version
    core.patch_namespaced_config_map("c", ns, {"data": {"other": "x"}})
    apply(kubectl, config_map(a="2"))
    assert core.read_namespaced_config_map("c", ns).data == {"a": "2", "other": "x"}


def test_field_of_another_is_a_conflict_unless_forced(kubectl: Any, core: Core, ns: str) -> None:
    apply(kubectl, config_map(a="1"))
    core.patch_namespaced_config_map("c", ns, {"data": {"a": "2"}}, field_manager="other")
    assert owners(core, ns) == {("kubectl", "Apply"): set(), ("other", "Update"): {"f:a"}}
    told = apply(kubectl, config_map(a="3"), code=1)
    assert 'conflict with "other" using v1: .data.a' in told
    apply(kubectl, config_map(a="2"))  # the same value: both own it
    assert owners(core, ns) == {("kubectl", "Apply"): {"f:a"}, ("other", "Update"): {"f:a"}}
    apply(kubectl, config_map(a="3"), "--force-conflicts")
    assert core.read_namespaced_config_map("c", ns).data == {"a": "3"}
    assert owners(core, ns) == {("kubectl", "Apply"): {"f:a"}}


def test_two_managers_share_a_list(kubectl: Any, core: Core, ns: str) -> None:
    def pod(*names: str) -> str:
        containers = [{"name": n, "image": f"{n}:1"} for n in names]
        spec = {"nodeSelector": {"no": "such"}, "containers": containers}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
        return json.dumps(body)

    apply(kubectl, pod("a", "b"), "--field-manager=one")
    told = apply(
        kubectl, pod("a").replace("a:1", "a:2"), "--field-manager=two", code=1
    )  # fmt: skip
    assert '.spec.containers[name="a"].image' in told
    apply(kubectl, pod("a").replace("a:1", "a:2"), "--field-manager=two", "--force-conflicts")
    images = {c.name: c.image for c in core.read_namespaced_pod("p", ns).spec.containers}
    assert images == {"a": "a:2", "b": "b:1"}


def test_from_client_side_to_server_side(kubectl: Any, core: Core, ns: str) -> None:
    kubectl("apply", "-f", "-", given=config_map(a="1"))
    apply(kubectl, config_map(a="2"))
    assert core.read_namespaced_config_map("c", ns).data == {"a": "2"}
    assert {who for who, what in owners(core, ns).items() if what} == {("kubectl", "Apply")}


def test_unknown_fields_are_refused_told_or_dropped(kubectl: Any, core: Core, ns: str) -> None:
    body = json.dumps({**json.loads(config_map(a="1")), "nonsense": 1})
    told = kubectl("apply", "--validate=strict", "-f", "-", given=body, code=1)
    assert 'unknown field "nonsense"' in told
    assert not [c for c in core.list_namespaced_config_map(ns).items if c.metadata.name == "c"]
    assert 'unknown field "nonsense"' in kubectl("apply", "--validate=warn", "-f", "-", given=body)
    assert "nonsense" not in kubectl("apply", "--validate=ignore", "-f", "-", given=body)
    assert "nonsense" not in json.loads(kubectl("get", "configmap", "c", "-o", "json"))
