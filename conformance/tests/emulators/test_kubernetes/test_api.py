"""The API server as the official client sees it: objects, versions, watches, refusals."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes
import pytest
import websocket
from kubernetes.client import ApiException
from kubernetes.watch import Watch

Core = kubernetes.client.CoreV1Api
Batch = kubernetes.client.BatchV1Api


def config_map(name: str, data: dict[str, str] | None = None, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **meta}, "data": data or {}}


def test_object_is_made_read_changed_and_deleted(core: Core, ns: str) -> None:
    made = core.create_namespaced_config_map(ns, config_map("c", {"a": "1"}))
    assert made.metadata.uid
    assert made.metadata.resource_version
    made.data["b"] = "2"
    replaced = core.replace_namespaced_config_map("c", ns, made)
    assert replaced.data == {"a": "1", "b": "2"}
    assert int(replaced.metadata.resource_version) > int(made.metadata.resource_version)
    with pytest.raises(ApiException) as stale:
        core.replace_namespaced_config_map("c", ns, made)
    assert (stale.value.status, stale.value.reason) == (409, "Conflict")
    assert core.delete_namespaced_config_map("c", ns).status == "Success"
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("c", ns)
    assert gone.value.status == 404
    assert '"reason":"NotFound"' in gone.value.body


def test_second_of_one_name_conflicts(core: Core, ns: str) -> None:
    core.create_namespaced_config_map(ns, config_map("c"))
    with pytest.raises(ApiException) as twice:
        core.create_namespaced_config_map(ns, config_map("c"))
    assert twice.value.status == 409
    assert '"AlreadyExists"' in twice.value.body


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"metadata": {"name": "UPPER"}}, "metadata.name"),
        ({"metadata": {"name": "c", "labels": {"a": "not a label"}}}, "metadata.labels"),
        ({"metadata": {"name": "c"}, "data": {"not a key": ""}}, "data[not a key]"),
        ({"metadata": {}}, "metadata.name"),
    ],
)
def test_invalid_object_is_refused_with_its_field(
    core: Core, ns: str, body: dict[str, Any], field: str
) -> None:
    with pytest.raises(ApiException) as refused:
        core.create_namespaced_config_map(ns, body)
    assert refused.value.status == 422
    assert f'"field":"{field}"' in refused.value.body


def test_nothing_is_made_in_a_namespace_that_is_not_there(core: Core) -> None:
    with pytest.raises(ApiException) as refused:
        core.create_namespaced_config_map("nowhere", config_map("c"))
    assert refused.value.status == 404


def test_names_are_generated(core: Core, ns: str) -> None:
    body = {"metadata": {"generateName": "c-"}}
    names = {core.create_namespaced_config_map(ns, body).metadata.name for _ in range(5)}
    assert len(names) == 5
    assert all(name.startswith("c-") and len(name) == 7 for name in names)


def test_selectors_choose(core: Core, ns: str) -> None:
    for name, labels in (("a", {"x": "1"}), ("b", {"x": "2", "y": ""}), ("c", {})):
        core.create_namespaced_config_map(ns, config_map(name, labels=labels))

    def names(**query: str) -> set[str]:
        found = core.list_namespaced_config_map(ns, **query).items
        return {o.metadata.name for o in found} - {"kube-root-ca.crt"}

    assert names(label_selector="x=1") == {"a"}
    assert names(label_selector="x in (1, 2),!y") == {"a"}
    assert names(label_selector="x!=1") == {"b", "c"}
    assert names(label_selector="x notin (1)") == {"b", "c"}
    assert names(label_selector="y") == {"b"}
    assert names(field_selector="metadata.name=c") == {"c"}
    with pytest.raises(ApiException) as refused:
        names(field_selector="data.a=1")
    assert refused.value.status == 400


def test_list_comes_in_pages_of_one_version(core: Core, ns: str) -> None:
    for number in range(5):
        core.create_namespaced_config_map(ns, config_map(f"c{number}"))
    first = core.list_namespaced_config_map(ns, limit=2)
    assert first.metadata.remaining_item_count == 4  # one is everywhere: kube-root-ca.crt
    core.delete_namespaced_config_map("c4", ns)
    names = [o.metadata.name for o in first.items]
    token = first.metadata._continue
    while token:
        page = core.list_namespaced_config_map(ns, limit=2, _continue=token)
        assert page.metadata.resource_version == first.metadata.resource_version
        names += [o.metadata.name for o in page.items]
        token = page.metadata._continue
    assert names == ["c0", "c1", "c2", "c3", "c4", "kube-root-ca.crt"]
    with pytest.raises(ApiException) as refused:
        core.list_namespaced_config_map(ns, limit=2, _continue="nonsense")
    assert refused.value.status == 410


def test_watch_tells_each_change_once_from_a_version_on(core: Core, ns: str) -> None:
    core.create_namespaced_config_map(ns, config_map("before"))
    version = core.list_namespaced_config_map(ns).metadata.resource_version
    core.create_namespaced_config_map(ns, config_map("c", {"a": "1"}))
    core.patch_namespaced_config_map("c", ns, {"data": {"a": "2"}})

    def later() -> None:
        core.delete_namespaced_config_map("c", ns)

    seen = []
    watch = Watch()
    threading.Timer(0.1, later).start()
    for event in watch.stream(core.list_namespaced_config_map, ns, resource_version=version):
        seen.append((event["type"], event["object"].metadata.name))
        if event["type"] == "DELETED":
            watch.stop()
    assert seen == [("ADDED", "c"), ("MODIFIED", "c"), ("DELETED", "c")]


def test_watch_with_a_selector_tells_when_an_object_leaves_it(core: Core, ns: str) -> None:
    version = core.list_namespaced_config_map(ns).metadata.resource_version
    core.create_namespaced_config_map(ns, config_map("c", labels={"a": "1"}))
    core.create_namespaced_config_map(ns, config_map("d", labels={"a": "2"}))
    core.patch_namespaced_config_map("c", ns, {"metadata": {"labels": {"a": "2"}}})
    core.patch_namespaced_config_map("d", ns, {"metadata": {"labels": {"a": "1"}}})
    stream = Watch().stream(
        core.list_namespaced_config_map, ns, resource_version=version, label_selector="a=1",
        timeout_seconds=1,
    )  # fmt: skip
    seen = [(e["type"], e["object"].metadata.name) for e in stream]
    assert seen == [("ADDED", "c"), ("DELETED", "c"), ("ADDED", "d")]


def test_watch_from_the_start_gets_what_is_there(core: Core, ns: str) -> None:
    core.create_namespaced_config_map(ns, config_map("c"))
    stream = Watch().stream(core.list_namespaced_config_map, ns, timeout_seconds=1)
    seen = [(e["type"], e["object"].metadata.name) for e in stream]
    assert ("ADDED", "c") in seen


def test_bookmarks_carry_the_version(core: Core, ns: str) -> None:
    version = core.list_namespaced_config_map(ns).metadata.resource_version
    core.create_namespaced_secret("default", {"metadata": {"generateName": "s-"}})
    stream = core.list_namespaced_config_map(
        ns, watch=True, resource_version=version, timeout_seconds=1, allow_watch_bookmarks=True,
        _preload_content=False,
    )  # fmt: skip
    text = stream.data.decode()
    assert '"BOOKMARK"' in text
    assert '"ConfigMap"' in text


def test_old_version_is_gone(core: Core, ns: str) -> None:
    for number in range(5001):  # more than the history holds
        core.patch_namespaced_config_map("kube-root-ca.crt", ns, {"data": {"n": str(number)}})
    with pytest.raises(ApiException) as gone:
        next(Watch().stream(core.list_namespaced_config_map, ns, resource_version="1"))
    assert gone.value.status == 410


Messages = Callable[[str], Any]


@pytest.fixture
def watched(cluster: Any, client: kubernetes.client.ApiClient, ns: str) -> Iterator[Messages]:
    """Watch config maps by websocket, as clients for Java do; opened when first asked."""
    open_: list[Any] = []

    def begin(query: str) -> Any:
        settings = client.configuration
        url = f"{settings.host}/api/v1/namespaces/{ns}/configmaps?watch=true&{query}"
        token = settings.get_api_key_with_prefix("BearerToken")
        open_.append(websocket.create_connection(
            url.replace("https", "wss", 1), header=[f"authorization: {token}"], timeout=20,
            sslopt={"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": settings.ssl_ca_cert},
        ))  # fmt: skip
        return open_[-1]

    yield begin
    for socket in open_:
        socket.shutdown()


def test_watch_by_websocket_sends_each_change_as_a_message(
    core: Core, ns: str, watched: Messages
) -> None:
    socket = watched("labelSelector=a=1")
    core.create_namespaced_config_map(ns, config_map("c", labels={"a": "1"}))
    core.create_namespaced_config_map(ns, config_map("d", labels={"a": "2"}))
    core.delete_namespaced_config_map("c", ns)
    seen = [json.loads(socket.recv()) for _ in range(2)]
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in seen] == [
        ("ADDED", "c"), ("DELETED", "c"),
    ]  # fmt: skip
    socket.send_close()
    assert socket.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE


def test_watch_by_websocket_ends_in_time_or_when_its_version_is_gone(
    cluster: Any, ns: str, watched: Messages
) -> None:
    socket = watched("timeoutSeconds=1")
    assert json.loads(socket.recv())["type"] == "ADDED"
    assert socket.recv_data()[0] == websocket.ABNF.OPCODE_CLOSE
    cluster.emulator.store.expire()
    told = json.loads(watched("resourceVersion=1").recv())
    assert (told["type"], told["object"]["code"]) == ("ERROR", 410)


def test_three_kinds_of_patch(core: Core, ns: str) -> None:
    spec = {
        "restartPolicy": "Never", "nodeSelector": {"no": "such"},
        "containers": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}],
    }  # fmt: skip
    core.create_namespaced_pod(ns, {"metadata": {"name": "p", "labels": {"l": "1"}}, "spec": spec})

    def patch(body: Any, kind: str) -> Any:
        return core.patch_namespaced_pod("p", ns, body, _content_type=kind)

    one = {"spec": {"containers": [{"name": "b", "image": "b:2"}]}}
    patched = patch(one, "application/strategic-merge-patch+json")
    assert [c.image for c in patched.spec.containers] == ["a:1", "b:2"]
    patched = patch(
        {"metadata": {"labels": {"l": None, "m": "2"}}}, "application/merge-patch+json"
    )  # fmt: skip
    assert patched.metadata.labels == {"m": "2"}
    step = {"op": "replace", "path": "/spec/containers/0/image", "value": "a:3"}
    patched = patch([step], "application/json-patch+json")
    assert [c.image for c in patched.spec.containers] == ["a:3", "b:2"]
    with pytest.raises(ApiException) as refused:
        patch({"spec": {"restartPolicy": "Always"}}, "application/merge-patch+json")
    assert refused.value.status == 422


def test_dry_run_makes_nothing(core: Core, ns: str) -> None:
    made = core.create_namespaced_config_map(ns, config_map("c"), dry_run="All")
    assert made.metadata.name == "c"
    with pytest.raises(ApiException):
        core.read_namespaced_config_map("c", ns)


def test_secret_text_is_coded(core: Core, ns: str) -> None:
    body = {"metadata": {"name": "s"}, "stringData": {"k": "v"}}
    assert core.create_namespaced_secret(ns, body).data == {"k": "dg=="}


def test_without_a_token_is_401_and_without_rights_403(cluster: Any, core: Core, ns: str) -> None:
    core.create_namespaced_secret(ns, {"metadata": {"name": "s"}})
    viewer = Core(cluster.connect("viewer"))
    viewer.list_namespaced_pod(ns)
    for call in (
        lambda: viewer.create_namespaced_config_map(ns, config_map("c")),
        lambda: viewer.read_namespaced_secret("s", ns),
    ):
        with pytest.raises(ApiException) as forbidden:
            call()
        assert forbidden.value.status == 403
        assert "cannot" in forbidden.value.body
    stranger = cluster.connect()
    stranger.configuration.api_key = {"authorization": "Bearer wrong"}
    stranger.configuration.refresh_api_key_hook = None
    with pytest.raises(ApiException) as unknown:
        Core(stranger).list_namespaced_pod(ns)
    assert unknown.value.status == 401


def test_token_of_an_account_is_known_and_may_do_nothing(cluster: Any, core: Core, ns: str) -> None:
    body = {"spec": {"expirationSeconds": 600}}
    token = core.create_namespaced_service_account_token("default", ns, body).status.token
    other = cluster.connect()
    other.configuration.api_key = {"authorization": f"Bearer {token}"}
    other.configuration.refresh_api_key_hook = None
    with pytest.raises(ApiException) as forbidden:
        Core(other).list_namespaced_pod(ns)
    assert forbidden.value.status == 403
    assert f"system:serviceaccount:{ns}:default" in forbidden.value.body
    cluster.control.jump(601)
    with pytest.raises(ApiException) as old:
        Core(other).list_namespaced_pod(ns)
    assert old.value.status == 401


def test_namespace_goes_with_all_that_is_in_it(core: Core, until: Any, ns: str) -> None:
    core.create_namespace({"metadata": {"name": f"{ns}-x"}})
    core.create_namespaced_config_map(f"{ns}-x", config_map("c"))
    core.delete_namespace(f"{ns}-x")
    until(lambda: f"{ns}-x" not in [o.metadata.name for o in core.list_namespace().items])
    with pytest.raises(ApiException):
        core.read_namespaced_config_map("c", f"{ns}-x")


def test_dependents_go_with_their_owner(core: Core, ns: str) -> None:
    owner = core.create_namespaced_config_map(ns, config_map("owner"))
    ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}
    core.create_namespaced_config_map(ns, config_map("child", ownerReferences=[ref]))
    core.create_namespaced_config_map(ns, config_map("kept", ownerReferences=[ref]))
    core.patch_namespaced_config_map("kept", ns, {"metadata": {"ownerReferences": None}})
    core.delete_namespaced_config_map("owner", ns)
    names = [o.metadata.name for o in core.list_namespaced_config_map(ns).items]
    assert names == ["kept", "kube-root-ca.crt"]


def test_orphans_stay_when_asked_for(core: Core, ns: str) -> None:
    owner = core.create_namespaced_config_map(ns, config_map("owner"))
    ref = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid}
    core.create_namespaced_config_map(ns, config_map("child", ownerReferences=[ref]))
    core.delete_namespaced_config_map("owner", ns, propagation_policy="Orphan")
    assert core.read_namespaced_config_map("child", ns).metadata.owner_references is None


def test_deletion_waits_for_finalizers_and_honours_preconditions(core: Core, ns: str) -> None:
    core.create_namespaced_config_map(ns, config_map("c", finalizers=["mine/one"]))
    wrong = {"preconditions": {"uid": "another"}}
    with pytest.raises(ApiException) as refused:
        core.delete_namespaced_config_map("c", ns, body=wrong)
    assert refused.value.status == 409
    core.delete_namespaced_config_map("c", ns)
    assert core.read_namespaced_config_map("c", ns).metadata.deletion_timestamp
    core.patch_namespaced_config_map("c", ns, {"metadata": {"finalizers": None}})
    with pytest.raises(ApiException) as gone:
        core.read_namespaced_config_map("c", ns)
    assert gone.value.status == 404


def test_what_is_not_served_is_named(client: kubernetes.client.ApiClient) -> None:
    apps = kubernetes.client.AppsV1Api(client)
    with pytest.raises(ApiException) as refused:
        apps.list_namespaced_deployment("default")
    assert refused.value.status == 404
    assert "not implemented by this stand-in: apps/v1 deployments" in refused.value.body
