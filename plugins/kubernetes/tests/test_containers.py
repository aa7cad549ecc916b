"""Containers on the cluster: started once, told in words, stopped politely, found again."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from portaflow_conformance.emulators.control import Fault
from portaflow_kubernetes import logs
from portaflow_kubernetes.containers import Config, Kubernetes

from portaflow.backend import Cause, Handle, LogChunk, Size, State
from portaflow.errors import ConflictError, NotFoundError, RejectedError, UnavailableError
from portaflow.names import resource_name

from .field import Field

HANG = "echo ready; while :; do sleep 0.1; done"

# What another process does: it starts a container as portaflow would, and says so.
STARTER = """
import json, sys
from pathlib import Path
from portaflow_kubernetes import logs
from portaflow_kubernetes.containers import Config, Kubernetes
file, namespace, request = sys.argv[1:]
driver = Kubernetes(Config(kubeconfig=Path(file), namespace=namespace)).containers
print(driver.start(json.loads(request)).id, flush=True)
sys.stdin.read()
"""


def test_a_container_runs_and_its_log_is_whole(field: Field) -> None:
    script = 'echo "$V"; echo "$1"; echo err >&2; exit 3'
    handle = field.start(script, "$(V) $$x", env={"V": "a $(HOME)"})
    status = field.wait(handle)
    assert (status.state, status.exit_code, status.cause) == (State.FAILED, 3, Cause.USER)
    assert status.reason == "exit code 3\na $(HOME)\n$(V) $$x\nerr"
    assert field.log(handle) == b"a $(HOME)\n$(V) $$x\nerr\n"


def test_what_was_planned_is_what_is_sent(field: Field) -> None:
    request = field.request("true")
    field.driver.start(request)
    job = field.job(request["metadata"]["name"])
    for key in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished"):
        assert job["spec"][key] == request["spec"][key]
    sent, there = request["spec"]["template"]["spec"], job["spec"]["template"]["spec"]
    assert there | sent == there | {"containers": sent["containers"]}
    assert sent["containers"][0].items() <= there["containers"][0].items()


def test_by_default_a_pod_keeps_to_the_restricted_standard(field: Field) -> None:
    pod = field.request("true")["spec"]["template"]["spec"]
    assert pod["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert pod["automountServiceAccountToken"] is False


def test_settings_are_laid_over_the_pod_name_by_name() -> None:
    own = {"name": "main", "securityContext": {"readOnlyRootFilesystem": True}}
    cache = {"name": "cache", "emptyDir": {}}
    template = {"metadata": {"annotations": {"a": "b"}},
                "spec": {"containers": [own], "volumes": [cache]}}  # fmt: skip
    config = Config(
        namespace="ns", service_account="me", image_pull_secrets=("s",), run_as_user=0,
        node_selector={"gpu": "yes"}, tolerations=({"key": "gpu", "operator": "Exists"},),
        pod_template=template, keep=60,
    )  # fmt: skip
    driver = Kubernetes(config).containers
    spec = replace(Field.plain, mounts=("/data",), size=Size(cpu=0.5, memory=0.25, gpu=2, disk=20))
    request = driver.request("pf-x-1", spec)
    pod = request["spec"]["template"]["spec"]
    box = pod["containers"][0]
    assert request["metadata"]["namespace"] == "ns"
    assert request["spec"]["ttlSecondsAfterFinished"] == 60
    assert request["spec"]["template"]["metadata"]["annotations"] == {"a": "b"}
    assert pod["serviceAccountName"] == "me"
    assert pod["imagePullSecrets"] == [{"name": "s"}]
    assert pod["nodeSelector"] == {"gpu": "yes"}
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["securityContext"]["runAsNonRoot"] is False
    assert [v["name"] for v in pod["volumes"]] == ["mount-0", "cache"]
    assert box["image"] == "busybox"
    assert box["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }  # fmt: skip
    assert box["resources"]["limits"] == {
        "cpu": "500m", "memory": "256Mi", "ephemeral-storage": "20480Mi", "nvidia.com/gpu": "2",
    }  # fmt: skip


def test_a_secret_is_a_reference_and_no_word_of_its_container_is_told() -> None:
    driver = Kubernetes(Config()).containers
    request = driver.request("pf-x-1", replace(Field.plain, secrets={"A": "one", "B": "two/key"}))
    box = request["spec"]["template"]["spec"]["containers"][0]
    assert [e["valueFrom"]["secretKeyRef"] for e in box["env"]] == [
        {"name": "one", "key": "value"}, {"name": "two", "key": "key"},
    ]  # fmt: skip
    assert box["terminationMessagePolicy"] == "File"
    with pytest.raises(RejectedError, match="name of a Secret"):
        driver.request("pf-x-1", replace(Field.plain, secrets={"A": "a b"}))


def test_a_stop_is_polite_and_leaves_the_log(field: Field) -> None:
    handle = field.start("trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.1; done",
                         grace=20)  # fmt: skip
    field.logged(handle, b"ready")
    field.driver.stop(handle)
    field.driver.stop(handle)
    status = field.wait(handle)
    assert (status.state, status.reason) == (State.STOPPED, "it was asked to stop")
    assert field.log(handle, field.with_config().containers) == b"ready\nbye\n"


def test_what_is_stopped_before_it_has_a_place_ends_too(field: Field) -> None:
    handle = field.start(HANG, size=Size(cpu=100_000))
    field.until(handle, "no node takes it")
    field.driver.stop(handle)
    assert field.wait(handle).state is State.STOPPED
    assert not list(field.driver.owned(field.owner))
    assert not field.pods()


def test_a_time_to_live_is_the_clusters_to_enforce(field: Field) -> None:
    handle = field.start(HANG, ttl=1)
    status = field.wait(handle)
    assert (status.state, status.reason) == (State.STOPPED, "its time-to-live of 1 s was over")


def test_what_has_ended_goes_by_itself_with_its_pod(field: Field) -> None:
    backend = field.with_config(keep=2)
    handle = backend.containers.start(
        backend.containers.request(field.name(), field.spec("exit 0"))
    )
    field.wait(handle, State.SUCCEEDED)
    field.control.jump(3)
    field.until_true(lambda: not field.jobs() and not field.pods())
    told = field.with_config().containers.poll([handle])[handle.name]
    assert isinstance(told, NotFoundError)


def test_one_name_is_one_job_whoever_starts_it(field: Field) -> None:
    request = field.request("echo ran")
    drivers = [field.with_config().containers for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(lambda d: d.start(request), drivers))
    assert len({h.id for h in handles}) == 1
    field.wait(handles[0], State.SUCCEEDED)
    assert field.log(handles[0]) == b"ran\n"


@pytest.mark.parametrize("changed", ["request", "owner"])
def test_a_name_that_another_has_is_a_conflict(field: Field, changed: str) -> None:
    name = field.name()
    field.driver.start(field.request("exit 0", name=name))
    other = {"request": {}, "owner": {"owner": "somebody"}}[changed]
    script = "exit 1" if changed == "request" else "exit 0"
    with pytest.raises(ConflictError, match=name):
        field.driver.start(field.request(script, name=name, **other))


def test_a_job_of_somebody_else_is_neither_found_nor_stopped(field: Field) -> None:
    job = {
        "metadata": {"name": "theirs"},
        "spec": {"template": {"spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "busybox", "command": ["sleep", "60"]}]}}},
    }  # fmt: skip
    field.api.call("POST", f"/apis/batch/v1/namespaces/{field.namespace}/jobs", job)
    assert field.driver.find("theirs") is None
    field.driver.stop(Handle(name="theirs", id="x"))
    assert "activeDeadlineSeconds" not in field.job("theirs")["spec"]
    assert not list(field.driver.owned())


@pytest.mark.parametrize("effect", ["reset-before", "reset-after"])
def test_a_lost_answer_to_a_start_makes_no_second_job(field: Field, effect: str) -> None:
    request = field.request("echo once")
    field.control.order(Fault(effect=effect, operation="kubernetes:jobs.create"))
    with pytest.raises(UnavailableError):
        field.driver.start(request)
    found = field.driver.find(request["metadata"]["name"])
    assert (found is not None) == (effect == "reset-after")
    handle = field.driver.start(request)
    assert found in (None, handle)
    field.wait(handle, State.SUCCEEDED)
    assert len(field.jobs()) == len(field.pods()) == 1


def test_what_is_listed_late_is_found_and_not_invented(field: Field) -> None:
    field.control.order(Fault(effect="hide", operation="kubernetes:jobs.create", seconds=1.0))
    handle = field.start("echo here")
    seen = field.driver.poll([handle])[handle.name]
    assert isinstance(seen, NotFoundError)
    assert field.driver.find(handle.name) == handle
    field.until_true(lambda: not isinstance(field.driver.poll([handle])[handle.name], Exception))
    field.wait(handle, State.SUCCEEDED)


def test_a_status_call_that_fails_is_no_failed_job(field: Field) -> None:
    handle = field.start("exit 0")
    for effect in ("throttle", "error", "reset-before"):
        field.control.order(Fault(effect=effect, operation="kubernetes:jobs.list"))
        with pytest.raises(UnavailableError):
            field.driver.poll([handle])
    field.wait(handle, State.SUCCEEDED)


def test_many_jobs_are_asked_for_in_few_calls(field: Field) -> None:
    def start(number: int) -> Handle:  # suspended: they wait, so their pods are asked for, too
        request = field.request("true")
        return field.driver.start({**request, "spec": {**request["spec"], "suspend": True}})

    with ThreadPoolExecutor(8) as pool:
        handles = list(pool.map(start, range(126)))
    before = field.control.count("kubernetes:*")
    told = field.driver.poll(handles)
    assert field.control.count("kubernetes:*") - before == 4
    assert {getattr(status, "state", None) for status in told.values()} == {State.PENDING}
    assert len(told) == 126


def test_an_end_is_known_without_a_call_for_as_long_as_it_is_asked_for(field: Field) -> None:
    one, other = field.start("exit 3"), field.start("exit 0")
    end = field.wait(one)
    before = field.control.count("kubernetes:*")
    assert field.status(one) == end
    assert field.control.count("kubernetes:*") == before
    field.wait(other)
    assert field.driver._ended.keys() == {other.id}
    assert field.status(one) == end


def test_another_process_starts_and_dies_and_this_one_goes_on(field: Field) -> None:
    request = field.request("sleep 0.5; echo finished; exit 7")
    words = [str(field.emulator.kubeconfig), field.namespace, json.dumps(request)]
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, *words],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout
        uid = other.stdout.readline().strip()
        other.kill()
    handle = field.driver.find(request["metadata"]["name"])
    assert handle
    assert handle.id == uid
    assert field.wait(handle).exit_code == 7
    assert field.log(handle) == b"finished\n"
    assert field.driver.start(request) == handle


def test_hostile_names_are_legal_and_apart(field: Field) -> None:
    hostile = ["x" * 200, "x" * 200 + "y", "Zürich 🚀/../$(id)\n", "-.-", "a'b\"c;d"]
    names = [resource_name(text, text, "container", text) for text in hostile]
    handles = [field.start(f"echo {n}", name=name) for n, name in enumerate(names)]
    assert len({h.id for h in handles}) == len(hostile)
    for n, handle in enumerate(handles):
        field.wait(handle, State.SUCCEEDED)
        assert field.log(handle) == b"%d\n" % n
        assert field.driver.find(names[n]) == handle


def test_only_what_lives_is_owned(field: Field) -> None:
    alive, done = field.start(HANG), field.start("exit 0")
    field.wait(done, State.SUCCEEDED)
    field.wait(alive, State.RUNNING)
    assert list(field.driver.owned(field.owner)) == [alive]
    assert list(field.driver.owned()) == [alive]
    assert not list(field.driver.owned(field.owner + "x"))
    field.driver.stop(alive)
    field.wait(alive)
    assert not list(field.driver.owned())


def test_a_chunk_is_about_a_mebibyte(field: Field) -> None:
    handle = field.start("head -c 3000000 /dev/zero | tr '\\000' x")
    field.wait(handle, State.SUCCEEDED)
    chunk = LogChunk(data=b"", cursor="", end=False)
    sizes = []
    while not chunk.end:
        chunk = field.driver.logs(handle, chunk.cursor)
        sizes.append(len(chunk.data))
    assert sum(sizes) == 3_000_000
    assert max(sizes) <= logs.CHUNK
