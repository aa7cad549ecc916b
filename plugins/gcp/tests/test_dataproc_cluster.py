"""Clusters of Dataproc: one name is one cluster, whatever happens on the way; how each ends."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault
from portaflow_gcp import clients, connect
from portaflow_gcp.dataproc import Config, Dataproc

from portaflow.backend import Cause, ClusterSpec, Finding, Handle, Machines, Size, State, Verdict
from portaflow.errors import (
    ConflictError,
    DeniedError,
    NotFoundError,
    QuotaError,
    RejectedError,
    UnavailableError,
)

from .field import REGION, Field, gone, wait


def test_a_cluster_is_found_polled_and_stopped_from_another_driver(field: Field) -> None:
    handle = field.cluster()
    other = Dataproc(field.config).clusters
    assert other.find(handle.name) == handle
    assert list(other.owned(field.owner)) == [handle]
    assert list(other.owned(f"{field.owner}x")) == []
    assert handle in list(other.owned())
    other.stop(handle)
    assert list(other.owned(field.owner)) == []
    other.stop(handle)
    gone(other, handle)
    other.stop(handle)
    assert other.find(handle.name) is None


def test_one_name_is_one_cluster_or_a_conflict(field: Field) -> None:
    name = field.name()
    request = field.cluster_request(name)
    drivers = [Dataproc(field.config).clusters for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        handles = set(pool.map(lambda driver: driver.start(request), drivers))
    assert len(handles) == 1
    assert list(field.clusters.owned(field.owner)) == list(handles)
    for other in ({"workers": (2, 2)}, {"overrides": {"cluster": {"config": {}}}}):
        with pytest.raises(ConflictError, match=name):
            drivers[0].start(field.cluster_request(name, **other))


def test_the_cluster_of_somebody_else_is_not_adopted(field: Field) -> None:
    request = json.loads(json.dumps(field.cluster_request()))
    name = request["cluster"]["cluster_name"]
    request["cluster"]["labels"] = {"team": "a"}
    with pytest.raises(RejectedError, match=r"lack the labels portaflow-owner"):
        field.clusters.start(request)
    client = field.clusters._client
    del request["request_id"]
    client.call("cluster", "create_cluster", {**request, "project_id": client.project})
    assert field.clusters.find(name) is None
    with pytest.raises(ConflictError, match=name):
        field.clusters.start(field.cluster_request(name))
    field.clusters.stop(Handle(name=name, id=name))


def test_what_was_made_though_the_answer_was_lost_is_there_once(field: Field) -> None:
    request = field.cluster_request()
    field.fault("reset-after", "CreateCluster")
    with pytest.raises(UnavailableError):
        field.clusters.start(request)
    handle = Dataproc(field.config).clusters.start(request)
    assert list(field.clusters.owned(field.owner)) == [handle]
    assert field.clusters.find(handle.name) == handle
    wait(field.clusters, handle, State.RUNNING)


def test_what_is_not_listed_yet_is_known_all_the_same(field: Field) -> None:
    field.fault("hide", "CreateCluster", seconds=5.0)
    handle = field.clusters.start(field.cluster_request())
    other = Dataproc(field.config).clusters
    assert list(other.owned(field.owner)) == []
    assert other.find(handle.name) == handle
    wait(other, handle, State.RUNNING)
    field.control.jump(6)
    assert list(other.owned(field.owner)) == [handle]


@pytest.mark.parametrize("effect", ["throttle", "error", "reset-before"])
def test_a_call_that_fails_is_no_failed_cluster(field: Field, effect: str) -> None:
    handle = field.cluster()
    field.fault(effect, "ListClusters")
    with pytest.raises(UnavailableError):
        field.clusters.poll([handle])
    wait(field.clusters, handle, State.RUNNING)


def test_a_cluster_that_cannot_be_made_has_failed_and_is_deleted_when_it_is_seen(
    field: Field,
) -> None:
    field.fault("fail", "CreateCluster")
    field.fault("hang", "DeleteCluster")
    handle = field.clusters.start(field.cluster_request())
    for _ in range(2):  # while it is deleted, too
        seen = wait(Dataproc(field.config).clusters, handle, State.FAILED)
        assert (seen.cause, seen.reason[:22]) == (Cause.CAPACITY, "Insufficient resources")
    assert field.made("DeleteCluster", handle.name) == 1
    assert list(field.clusters.owned(field.owner)) == []


def test_a_cluster_that_dies_has_failed_and_is_deleted(field: Field) -> None:
    field.fault("die", "CreateCluster", seconds=1.0)
    handle = field.cluster()
    field.control.jump(2)
    seen = wait(field.clusters, handle, State.FAILED)
    assert (seen.cause, "master is unreachable" in seen.reason) == (Cause.INFRA, True)
    gone(field.clusters, handle)


def test_a_cluster_that_hangs_is_stopped(field: Field) -> None:
    field.fault("hang", "CreateCluster")
    handle = field.clusters.start(field.cluster_request())
    assert field.clusters.poll([handle])[handle.name].state is State.PENDING  # type: ignore[union-attr]
    field.clusters.stop(handle)
    gone(field.clusters, handle)


def test_a_cluster_ends_when_its_time_is_over(field: Field) -> None:
    handle = field.cluster(ttl=900)
    field.control.jump(800)
    wait(field.clusters, handle, State.RUNNING)
    field.control.jump(200)
    gone(field.clusters, handle)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"machine_type": "n9-huge-2"}, "n9-huge-2"),
        ({"image_version": "0.1"}, "0.1"),
        ({"staging_bucket": "nonesuch"}, "bucket does not exist 'nonesuch'"),
        ({"initialization_actions": ("gs://nonesuch/x.sh",)}, "gs://nonesuch/x.sh"),
        ({"region": "mars"}, "nobody answers for region 'mars'"),
    ],
)
def test_what_dataproc_refuses_is_named_and_leaves_nothing(
    cloud: Clouds, config: Any, words: str
) -> None:
    field = Field(cloud, **config)
    request = field.cluster_request()
    with pytest.raises(RejectedError, match=words) as caught:
        field.clusters.start(request)
    assert not caught.value.retryable
    here = Field(cloud)
    assert list(here.clusters.owned(field.owner)) == []


def test_who_may_not_is_told_what_to_do(field: Field) -> None:
    field.fault("deny", "CreateCluster")
    with pytest.raises(DeniedError, match="give the account a role"):
        field.clusters.start(field.cluster_request())


def test_who_is_not_known_is_told_how_to_log_in(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    from google.oauth2.credentials import Credentials

    wrong = connect.Gcp(connect.Access(project="p"))
    wrong._found = (Credentials(token="ya29.wrong"), "p")  # type: ignore[no-untyped-call]
    monkeypatch.setitem(connect._all, connect.Access(project="p"), wrong)
    clusters = Dataproc(Config(region=REGION, project="p")).clusters
    with pytest.raises(DeniedError, match="gcloud auth application-default login") as caught:
        clusters.start(field.cluster_request())
    assert "ya29" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_a_quota_of_machines_is_no_throttled_call() -> None:
    from google.api_core import exceptions

    for error in (exceptions.InvalidArgument, exceptions.ResourceExhausted):
        told = error("Insufficient 'CPUS' quota. Requested 12.0, available 4.0.")
        assert isinstance(clients._meant("cluster", told, ""), QuotaError)
    told = exceptions.ResourceExhausted("Quota exceeded for 'Requests per minute', limit 200")
    assert isinstance(clients._meant("cluster", told, ""), UnavailableError)


def test_what_dataproc_does_not_know_is_not_found(field: Field) -> None:
    known, unknown = field.cluster(), Handle(name="pf-x", id="pf-x")
    seen = field.clusters.poll([unknown, known])
    assert isinstance(seen["pf-x"], NotFoundError)
    assert seen[known.name].state is State.RUNNING  # type: ignore[union-attr]
    field.clusters.stop(unknown)
    assert field.clusters.find("pf-x") is None


def test_the_doctor_looks_at_the_account_the_region_and_what_is_left(field: Field) -> None:
    found = list(field.dataproc.check())
    assert [f.ok for f in found] == [True] * 4
    assert found[3].detail == "2000 of 2000 are free"
    found = list(Dataproc(Config(region="mars")).check())
    assert [f.ok for f in found] == [True, False, True, True]
    assert "correct `region`" in found[1].fix


def test_the_doctor_says_what_the_account_may_not(field: Field) -> None:
    def look(account: str) -> dict[str, Finding]:
        backend = Dataproc(Config(region=REGION, service_account=account))
        return {f.what.split()[0]: f for f in backend.check()}

    field.fault("deny", "CreateCluster", times=-1)
    field.fault("deny", "SubmitJob", times=-1)
    found = look("jobs@p.iam.gserviceaccount.com")
    assert found["permissions"].detail == "lacking: dataproc.clusters.create, dataproc.jobs.create"
    assert "roles/dataproc.editor" in found["permissions"].fix
    assert found["service"].ok
    assert not look("nobody@p")["service"].ok
    field.control.clear()
    for service in ("cloudresourcemanager", "iam", "compute"):  # no right to ask is no fault
        field.control.order(Fault(effect="deny", operation=f"gcp:{service}.*", times=-1))
    found = look("jobs@p.iam.gserviceaccount.com")
    assert all(f.ok for f in found.values())
    assert sum(f.detail.startswith("not known: HTTP 403") for f in found.values()) == 3


# -- requests: they are pure, and need no cloud


def request(spec: ClusterSpec, **config: Any) -> Any:
    driver = Dataproc(Config(**{"region": REGION, **config})).clusters
    return driver.request("pf-c-1", spec)


def test_a_request_says_all_of_a_cluster() -> None:
    spec = ClusterSpec(
        owner="me", ttl=7200, workers=(4, 4), size=Size(cpu=8, memory=32, disk=200), spot=True,
        spark_version="3.5", conf={"spark.x": "1, 2"},
    )  # fmt: skip
    said = request(
        spec, zone="europe-west1-b", service_account="a@b", subnet="sub", internal_ip_only=True,
        network_tags=("t",), idle_delete=60, initialization_actions=("gs://b/i.sh",),
        staging_bucket="s", temp_bucket="t", labels={"team": "x"},
    )  # fmt: skip
    cluster = said["cluster"]
    digest = cluster["labels"].pop("portaflow-request")
    assert said["request_id"] == digest
    assert cluster["labels"] == {
        "team": "x", "portaflow-owner": "me", "portaflow-ttl": "7200",
    }  # fmt: skip
    disk = {"boot_disk_size_gb": 200}
    assert cluster["config"] == {
        "gce_cluster_config": {
            "zone_uri": "europe-west1-b", "service_account": "a@b", "subnetwork_uri": "sub",
            "tags": ["t"], "internal_ip_only": True,
        },
        "master_config": {"num_instances": 1, "machine_type_uri": "e2-standard-4"},
        "worker_config": {
            "num_instances": 2, "machine_type_uri": "n2-standard-8", "disk_config": disk,
        },
        "secondary_worker_config": {
            "num_instances": 2, "disk_config": disk, "preemptibility": "SPOT",
        },
        "software_config": {
            "image_version": "2.3-debian12", "properties": {"spark:spark.x": "1, 2"},
        },
        "lifecycle_config": {
            "auto_delete_ttl": {"seconds": 7200}, "idle_delete_ttl": {"seconds": 300},
        },
        "initialization_actions": [{"executable_file": "gs://b/i.sh"}],
        "config_bucket": "s",
        "temp_bucket": "t",
    }  # fmt: skip


def test_a_cluster_of_one_worker_is_one_machine() -> None:
    config = request(ClusterSpec(size=Size(cpu=4, memory=16)))["cluster"]["config"]
    assert config["master_config"] == {"num_instances": 1, "machine_type_uri": "e2-standard-4"}
    assert "worker_config" not in config
    key = "dataproc:dataproc.allow.zero.workers"
    assert config["software_config"]["properties"] == {key: "true"}


def test_a_range_of_workers_needs_a_policy() -> None:
    spec = ClusterSpec(workers=(1, 8))
    with pytest.raises(RejectedError, match="`autoscaling_policy`"):
        request(spec)
    config = request(spec, autoscaling_policy="mine")["cluster"]["config"]
    assert config["autoscaling_config"] == {"policy_uri": "mine"}
    assert config["worker_config"]["num_instances"] == 2
    with pytest.raises(RejectedError, match="`network` and a `subnet`"):
        request(ClusterSpec(), network="a", subnet="b")


def test_fit_tells_what_is_not_simply_honoured() -> None:
    clusters = Dataproc(Config(region=REGION)).clusters
    fits = clusters.fit(ClusterSpec(ttl=5, spot=True, spark_version="1.0", workers=(1, 8)))
    assert {k: f.verdict for k, f in fits.items()} == {
        "ttl": Verdict.APPROXIMATED, "size": Verdict.APPROXIMATED, "spot": Verdict.APPROXIMATED,
        "workers": Verdict.REFUSED, "spark_version": Verdict.REFUSED,
    }  # fmt: skip
    assert clusters.fit(ClusterSpec(size=Size(cpu=1000)))["size"].verdict is Verdict.REFUSED
    assert "ttl" not in clusters.fit(ClusterSpec(ttl=600))


def test_what_is_billed_follows_from_the_request() -> None:
    clusters = Dataproc(Config(region=REGION, autoscaling_policy="p")).clusters
    spec = ClusterSpec(workers=(5, 5), spot=True)
    assert clusters.machines(clusters.request("pf-c-1", spec)) == [
        Machines(type="e2-standard-4"),
        Machines(type="e2-standard-2", least=2, most=2),
        Machines(type="e2-standard-2", least=3, most=3, spot=True),
    ]
    assert clusters.machines(clusters.request("pf-c-1", ClusterSpec(workers=(2, 8)))) is None
