"""Jobs: retries, deadlines, indexes, what becomes of them."""

from __future__ import annotations

from typing import Any

import kubernetes
import pytest
from portaflow_conformance.emulators.control import Fault

Core = kubernetes.client.CoreV1Api
Batch = kubernetes.client.BatchV1Api


def make_job(script: str, **spec: Any) -> dict[str, Any]:
    container = {"name": "main", "image": "busybox", "command": ["sh", "-c", script]}
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"metadata": {"name": "j"}, "spec": {"template": {"spec": pod}, **spec}}


@pytest.fixture
def over(batch: Batch, ns: str, until: Any) -> Any:
    def wait() -> Any:
        def look() -> Any:
            found = batch.read_namespaced_job("j", ns)
            types = [c.type for c in found.status.conditions or []]
            return found if {"Complete", "Failed"} & set(types) else None

        return until(look)

    return wait


def last(job: Any) -> tuple[str, str]:
    condition = job.status.conditions[-1]
    return condition.type, condition.reason


def test_job_completes(batch: Batch, core: Core, ns: str, over: Any) -> None:
    batch.create_namespaced_job(ns, make_job("true", completions=3, parallelism=2))
    assert core.list_namespaced_pod(ns, label_selector="job-name=j").items  # at once
    done = over()
    assert last(done)[0] == "Complete"
    assert done.status.succeeded == 3


def test_job_fails_after_its_retries(batch: Batch, ns: str, over: Any) -> None:
    batch.create_namespaced_job(ns, make_job("exit 3", backoffLimit=1))
    done = over()
    assert last(done) == ("Failed", "BackoffLimitExceeded")
    assert done.status.failed == 2


def test_deadline_fails_a_job_and_ends_its_pod(
    batch: Batch, core: Core, ns: str, over: Any
) -> None:
    batch.create_namespaced_job(ns, make_job("sleep 60", activeDeadlineSeconds=1))
    assert last(over()) == ("Failed", "DeadlineExceeded")
    assert not core.list_namespaced_pod(ns).items


def test_indexes(batch: Batch, core: Core, ns: str, over: Any) -> None:
    body = make_job(
        'test "$JOB_COMPLETION_INDEX" -lt 3', completions=3, parallelism=3, completionMode="Indexed"
    )
    batch.create_namespaced_job(ns, body)
    assert over().status.completed_indexes == "0-2"


def test_failure_policy(batch: Batch, ns: str, over: Any) -> None:
    rule = {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}
    batch.create_namespaced_job(ns, make_job("exit 42", podFailurePolicy={"rules": [rule]}))
    assert last(over()) == ("Failed", "PodFailurePolicy")


def test_suspended_job_waits(batch: Batch, core: Core, ns: str, over: Any) -> None:
    batch.create_namespaced_job(ns, make_job("true", suspend=True))
    assert not core.list_namespaced_pod(ns).items
    batch.patch_namespaced_job("j", ns, {"spec": {"suspend": False}})
    assert over().status.succeeded == 1


def test_time_to_live_by_the_clock(
    cluster: Any, batch: Batch, ns: str, over: Any, until: Any
) -> None:
    batch.create_namespaced_job(ns, make_job("true", ttlSecondsAfterFinished=3600))
    over()
    cluster.control.jump(3601)
    until(lambda: not batch.list_namespaced_job(ns).items)


def test_evicted_pod_is_replaced(
    cluster: Any, batch: Batch, core: Core, ns: str, over: Any
) -> None:
    cluster.control.order(Fault(effect="evict", operation="kubernetes:kubelet.RunPod"))
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    body = make_job("sleep 1", backoffLimit=0, podFailurePolicy={"rules": [rule]})
    batch.create_namespaced_job(ns, body)
    assert last(over())[0] == "Complete"
    assert "Evicted" in [p.status.reason for p in core.list_namespaced_pod(ns).items]
