"""Each way in which a container fails is told in words, with who is to blame."""

from __future__ import annotations

from typing import Any

import pytest
from portaflow_conformance.emulators.control import Fault
from portaflow_kubernetes import verdict

from portaflow.backend import Cause, Size, State, Status
from portaflow.errors import RejectedError

from .field import Field

HANG = "echo ready; while :; do sleep 0.1; done"
POD = "kubernetes:kubelet.RunPod"


def test_too_much_memory(field: Field) -> None:
    eat = "exec python3 -c 'x = b\"a\" * 400_000_000; import time; time.sleep(30)'"
    status = field.wait(field.start(eat, size=Size(cpu=0.1, memory=0.0625)))
    assert (status.state, status.cause, status.exit_code) == (State.FAILED, Cause.USER, 137)
    assert status.reason.startswith("out of memory: it used more than its 64Mi")


def test_an_eviction(field: Field) -> None:
    field.control.order(Fault(effect="evict", operation=POD))
    status = field.wait(field.start(HANG))
    assert (status.state, status.cause) == (State.FAILED, Cause.INFRA)
    assert "ended from outside" in status.reason
    assert "low on resource: memory" in status.reason


def test_a_kill_from_outside(field: Field) -> None:
    field.control.order(Fault(effect="die", operation=POD))
    status = field.wait(field.start(HANG))
    assert (status.state, status.exit_code) == (State.FAILED, 137)
    assert "SIGKILL" in status.reason
    assert "killed from outside" in status.reason


def test_a_node_that_refuses_the_pod(field: Field) -> None:
    field.control.order(Fault(effect="fail", operation=POD))
    status = field.wait(field.start(HANG))
    assert (status.state, status.cause) == (State.FAILED, Cause.CAPACITY)
    assert "UnexpectedAdmissionError" in status.reason


def test_an_image_that_cannot_be_had_ends_soon_and_for_ever(field: Field) -> None:
    image = "nowhere.invalid/no/such:1"
    handle = field.start("exit 0", image=image)
    status = field.wait(handle)
    assert (status.state, status.cause) == (State.FAILED, Cause.USER)
    assert status.reason.startswith(f"image {image!r} cannot be had: ")
    assert "image_pull_secrets" in status.reason
    assert field.log(handle) == b""
    assert not list(field.driver.owned())


def test_an_image_may_come_late_when_nobody_says_that_it_is_not_there() -> None:
    message = 'Back-off pulling image "x"'
    early = told(waiting("ImagePullBackOff", message), waited=100)
    late = told(waiting("ImagePullBackOff", message), waited=130)
    assert early[0].state is State.PENDING
    assert early[1] is None
    assert late[1] is not None
    assert late[1].cause == Cause.INFRA.value


def test_a_name_that_no_image_can_have_is_refused_before_anything_runs(field: Field) -> None:
    for image in ("Not A Name", "https://registry.example.com/a", "a:b:c", "name@sha256:12", "a/"):
        with pytest.raises(RejectedError, match="no cluster takes such a name"):
            field.request("exit 0", image=image)
    for image in ("a", "localhost:5000/a/b__c:1", f"R.example/a-b@sha256:{'0' * 64}", "[::1]:1/a"):
        field.request("exit 0", image=image)
    _, end = told(waiting("InvalidImageName", "no"), waited=0)  # a node knows best
    assert end is not None
    assert end.cause == Cause.USER.value


def test_a_secret_that_is_not_there(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict, "_SETTLING", 0.2)
    handle = field.start("exit 0", secrets={"A": "no-such"})
    status = field.wait(handle)
    assert (status.state, status.cause) == (State.FAILED, Cause.USER)
    assert "no-such" in status.reason


def test_no_node_is_large_enough(field: Field) -> None:
    handle = field.start("exit 0", size=Size(cpu=100_000))
    status = field.until(handle, "Insufficient cpu")
    assert (status.state, status.cause) == (State.PENDING, Cause.CAPACITY)


def test_a_command_that_is_not_there(field: Field) -> None:
    status = field.wait(field.start("", command=("/no/such/program",), args=()))
    assert (status.state, status.cause, status.exit_code) == (State.FAILED, Cause.USER, 128)
    assert "/no/such/program" in status.reason


def test_a_pod_that_somebody_deletes(field: Field) -> None:
    handle = field.start(HANG)
    field.wait(handle, State.RUNNING)
    name = field.pods()[0]["metadata"]["name"]
    field.api.call("DELETE", field.inside(f"pods/{name}"))
    status = field.wait(handle)
    assert (status.state, status.cause) == (State.FAILED, Cause.INFRA)
    assert "its pod is gone" in status.reason


@pytest.mark.parametrize(
    ("finished", "cause"),
    [
        ("2026-11-01T12:00:30Z", Cause.INFRA),
        ("2026-11-01T12:00:00Z", Cause.INFRA),
        ("2026-11-01T11:59:59Z", Cause.USER),
        (None, Cause.INFRA),
    ],
)
def test_a_pod_that_is_being_deleted_was_so_before_its_end_or_after(
    finished: str | None, cause: Cause
) -> None:
    over = {"exitCode": 143, **({"finishedAt": finished} if finished else {})}
    states = [{"name": "main", "state": {"terminated": over}}]
    gone = pod({"phase": "Failed", "containerStatuses": states})
    until, grace = "2026-11-01T12:00:30Z", 30
    gone["metadata"] = {"deletionTimestamp": until, "deletionGracePeriodSeconds": grace}
    status = verdict.of_ended(failed_job(reason="BackoffLimitExceeded"), gone)
    assert (status.state, status.cause, status.exit_code) == (State.FAILED, cause, 143)


def test_a_suspended_job_waits_and_says_so(field: Field) -> None:
    request = field.request("exit 0")
    handle = field.driver.start({**request, "spec": {**request["spec"], "suspend": True}})
    field.until(handle, "suspended")


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("PreemptionByScheduler", Cause.PREEMPTED),
        ("DeletionByTaintManager", Cause.INFRA),
        ("EvictionByEvictionAPI", Cause.INFRA),
        ("TerminationByKubelet", Cause.INFRA),
    ],
)
def test_what_was_taken_away_is_not_the_users_fault(reason: str, cause: Cause) -> None:
    taken = {"type": "DisruptionTarget", "status": "True", "reason": reason}
    status = ended({"conditions": [taken], "phase": "Failed"})
    assert status.cause is cause
    assert status.state is State.FAILED


def test_a_full_disk_is_the_users() -> None:
    message = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."
    status = ended({"phase": "Failed", "reason": "Evicted", "message": message})
    assert status.cause is Cause.USER
    assert message in status.reason


def test_a_pod_that_nobody_knows_any_more_is_told_by_its_job() -> None:
    why = {"reason": "PodFailurePolicy", "message": "Pod a/b has condition DisruptionTarget"}
    status = verdict.of_ended(failed_job(**why), None)
    assert status.cause is Cause.INFRA
    assert "taken away" in status.reason
    assert "Pod a/b" in status.reason


def test_a_quota_is_waited_for_and_a_missing_account_is_not() -> None:
    quota = "FailedCreate: pods is forbidden: exceeded quota: small"
    account = 'FailedCreate: error looking up service account a/b: serviceaccount "b" not found'
    job = {"metadata": {}, "spec": {}}
    status, end = verdict.of_pending(job, None, quota, 1000)
    assert (status.cause, end) == (Cause.CAPACITY, None)
    status, end = verdict.of_pending(job, None, account, 1000)
    assert end is not None
    assert end.cause == Cause.DENIED.value
    assert verdict.of_pending(job, None, account, 1)[1] is None


@pytest.mark.parametrize(
    ("asked", "limited", "fits"),
    [
        ("pods=1", "pods=1", True),
        ("pods=1", "pods=0", False),
        ("cpu=500m,memory=2Gi", "cpu=1,memory=4Gi", True),
        ("cpu=500m,memory=2Gi", "cpu=1,memory=2G", False),
        ("cpu=much", "cpu=1", True),
        ("cpu", "cpu", True),
        ("pods=1", "", True),
    ],
)
def test_what_is_more_than_all_of_a_quota_is_not_waited_for(
    asked: str, limited: str, fits: bool
) -> None:
    told = f"pods is forbidden: exceeded quota: small, requested: {asked}, used: {asked}"
    status, end = verdict.of_pending(
        {"metadata": {}, "spec": {}}, None, f"{told}, limited: {limited}", 1
    )
    assert (status.state, status.cause) == (State.PENDING, Cause.CAPACITY)
    assert (end is None) is fits
    assert end is None or (told in end.why and "a larger quota" in end.why)
    assert end is None or end.cause == Cause.USER.value


def test_executors_that_wait_are_told_as_containers_that_wait() -> None:
    full = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no"}
    lost, at_work = executor("a", phase="Pending", conditions=[full]), executor("b")
    made = executor("c", phase="Pending")
    image = executor("d", **waiting("InvalidImageName", "oh")["status"])
    assert of_executors(lost)[0] == Status(
        state=State.PENDING, cause=Cause.CAPACITY, reason="executor a: no node takes it: no"
    )
    assert of_executors(made, lost)[0].state is State.PENDING
    assert of_executors(at_work, lost)[0] == Status(
        state=State.RUNNING, reason="executor a: no node takes it: no"
    )
    for pods in ((), (made,), (at_work,), (at_work, made)):
        assert of_executors(*pods) == (verdict.RUNNING, None)
    assert of_executors(image)[1] is not None
    assert of_executors(image, at_work)[1] is None
    assert of_executors(image, made)[1] is None


def test_executors_that_the_cluster_refuses_are_waited_for_only_when_they_may_come() -> None:
    status, end = of_executors(refusal="pods is forbidden: exceeded quota: small")
    assert (status.state, status.cause, end) == (State.PENDING, Cause.CAPACITY, None)
    assert status.reason == "it has no executor: pods is forbidden: exceeded quota: small"
    status, end = of_executors(refusal="pods is forbidden: User x cannot create resource")
    assert status.state is State.PENDING
    assert end is not None
    assert end.cause == Cause.DENIED.value


def of_executors(*pods: dict[str, Any], refusal: str = "") -> Any:
    return verdict.of_executors({"metadata": {}, "spec": {}}, pods, refusal, 1000)


def executor(name: str, **status: Any) -> dict[str, Any]:
    return {**pod({"phase": "Running", **status}), "metadata": {"name": name}}


def failed_job(**why: str) -> dict[str, Any]:
    condition = {"type": "Failed", "status": "True", **why}
    return {"metadata": {}, "spec": {}, "status": {"conditions": [condition]}}


def ended(status: dict[str, Any]) -> Any:
    return verdict.of_ended(failed_job(reason="BackoffLimitExceeded"), pod(status))


def pod(status: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "main", "image": "x"}]}, "status": status}


def waiting(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    return pod({"phase": "Pending", "containerStatuses": [{"name": "main", "state": state}]})


def told(pod: dict[str, Any], waited: float) -> Any:
    return verdict.of_pending({"metadata": {}, "spec": {}}, pod, "", waited)
