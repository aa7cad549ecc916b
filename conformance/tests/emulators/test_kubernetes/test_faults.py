"""Each fault on order, as the official client meets it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import kubernetes
import pytest
from kubernetes.client import ApiException
from kubernetes.watch import Watch
from portaflow_conformance.emulators.control import Fault
from urllib3.exceptions import HTTPError, ReadTimeoutError

Core = kubernetes.client.CoreV1Api
Order = Callable[..., Fault]

CREATE = "kubernetes:configmaps.create"
GET = "kubernetes:configmaps.get"
RUN = "kubernetes:kubelet.RunPod"
BODY = {"metadata": {"name": "c"}}


@pytest.fixture
def order(cluster: Any) -> Order:
    def give(effect: Any, operation: str, **more: Any) -> Fault:
        fault: Fault = cluster.control.order(Fault(effect=effect, operation=operation, **more))
        return fault

    return give


def is_there(core: Core, ns: str) -> bool:
    names = [c.metadata.name for c in core.list_namespaced_config_map(ns).items]
    return "c" in names


@pytest.mark.parametrize(
    ("effect", "given", "status"),
    [("throttle", 500, 429), ("error", 500, 500), ("error", 503, 503)],
)
def test_refused_call_has_no_effect(
    core: Core, ns: str, order: Order, effect: str, given: int, status: int
) -> None:
    fault = order(effect, CREATE, status=given, times=-1)
    with pytest.raises(ApiException) as refused:
        core.create_namespaced_config_map(ns, BODY)
    assert refused.value.status == status
    assert f'"code":{status}' in refused.value.body
    assert fault.hit >= 1
    assert not is_there(core, ns)


def test_throttle_passes(core: Core, ns: str, order: Order) -> None:
    """The client heeds Retry-After by itself for a request that it may repeat."""
    fault = order("throttle", GET)
    start = time.monotonic()
    assert core.read_namespaced_config_map("kube-root-ca.crt", ns).data
    assert fault.hit == 1
    assert time.monotonic() - start > 0.9  # of Retry-After: 1


def test_latency(core: Core, ns: str, order: Order) -> None:
    order("latency", GET, seconds=0.5)
    start = time.monotonic()
    core.read_namespaced_config_map("kube-root-ca.crt", ns)
    assert time.monotonic() - start >= 0.5
    order("latency", GET, seconds=30, times=-1)
    with pytest.raises((ReadTimeoutError, HTTPError)):
        core.read_namespaced_config_map("kube-root-ca.crt", ns, _request_timeout=0.1)


@pytest.mark.parametrize(("effect", "made"), [("reset-before", False), ("reset-after", True)])
def test_lost_request_and_lost_response(
    cluster: Any, core: Core, ns: str, order: Order, effect: str, made: bool
) -> None:
    fault = order(effect, CREATE, times=-1)
    with pytest.raises((HTTPError, ApiException, ConnectionError)):
        core.create_namespaced_config_map(ns, BODY)
    assert fault.hit >= 1
    cluster.control.clear()
    assert is_there(core, ns) is made


def test_new_object_is_not_listed_for_a_while(
    cluster: Any, core: Core, ns: str, order: Order
) -> None:
    order("hide", CREATE, seconds=3600)
    core.create_namespaced_config_map(ns, BODY)
    assert not is_there(core, ns)
    assert core.read_namespaced_config_map("c", ns).metadata.uid
    cluster.control.jump(3601)
    assert is_there(core, ns)


def test_watch_expires(core: Core, ns: str, order: Order) -> None:
    version = core.list_namespaced_config_map(ns).metadata.resource_version
    order("expire-watch", "kubernetes:*.watch", times=-1)
    with pytest.raises(ApiException) as gone:
        next(Watch().stream(core.list_namespaced_config_map, ns, resource_version=version))
    assert gone.value.status == 410


def test_watch_expires_in_the_middle(core: Core, ns: str, order: Order) -> None:
    order("expire-watch", "kubernetes:configmaps.watch", times=-1, seconds=0.3)
    stream = Watch().stream(core.list_namespaced_config_map, ns)
    assert next(stream)["object"].metadata.name == "kube-root-ca.crt"
    with pytest.raises(ApiException) as gone:
        next(stream)
    assert gone.value.status == 410


@pytest.mark.parametrize("operation", [RUN, "kubernetes:pods.create"])
def test_pod_that_fails_to_start(pod: Any, ended: Any, order: Order, operation: str) -> None:
    order("fail", operation)
    pod("p", "echo never")
    done = ended()
    assert (done.status.phase, done.status.reason) == ("Failed", "UnexpectedAdmissionError")
    pod("q", "true")
    assert ended("q").status.phase == "Succeeded"


def test_pod_that_dies(pod: Any, ended: Any, order: Order) -> None:
    order("die", RUN)
    pod("p", "sleep 60")
    done = ended()
    [status] = done.status.container_statuses
    assert (done.status.phase, status.state.terminated.exit_code) == ("Failed", 137)


def test_pod_that_hangs(
    core: Core, ns: str, pod: Any, ended: Any, until: Any, order: Order
) -> None:
    order("hang", RUN)
    pod("p", "true")
    order("hang", RUN, seconds=0.3)
    pod("q", "true")
    assert ended("q").status.phase == "Succeeded"  # its hanging came to an end
    waits = core.read_namespaced_pod("p", ns)
    assert (waits.status.phase, waits.spec.node_name) == ("Pending", "portaflow")
    core.delete_namespaced_pod("p", ns)
    until(lambda: [p.metadata.name for p in core.list_namespaced_pod(ns).items] == ["q"])


def test_pod_that_is_evicted(pod: Any, ended: Any, order: Order) -> None:
    order("evict", RUN)
    pod("p", "sleep 60")
    done = ended()
    assert (done.status.phase, done.status.reason) == ("Failed", "Evicted")
    assert "DisruptionTarget" in [c.type for c in done.status.conditions]


def test_faults_strike_by_the_log_of_calls(cluster: Any, core: Core, ns: str, order: Order) -> None:
    order("error", CREATE, status=500, times=-1)
    before = cluster.control.count(CREATE)
    with pytest.raises(ApiException):
        core.create_namespaced_config_map(ns, BODY)
    call = cluster.control.seen(CREATE)[-1]
    assert cluster.control.count(CREATE) > before
    assert (call.fault, call.params["namespace"]) == ("error", ns)
    assert call.principal
