"""Faults on order and times-to-live of the local Dataproc, as Google's clients meet them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

from .clients import WORK

pytest.importorskip("google.cloud.dataproc_v1")

Client = Callable[..., Any]


def test_times_to_live_fire_by_the_clock_of_the_control(client: Client, clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="fail", operation="gcp:dataproc.CreateCluster"))
    told = client(
        WORK
        + """
now = int(time.time())
create("broken", lifecycle_config={"auto_delete_ttl": {"seconds": 4000}})
begun = [
    create("idle", lifecycle_config={"idle_delete_ttl": {"seconds": 600}}),
    create("stops", lifecycle_config={"idle_stop_ttl": {"seconds": 600}}),
    create("old", lifecycle_config={"auto_delete_ttl": {"seconds": 4000}}),
    create("until", lifecycle_config={"auto_delete_time": {"seconds": now + 4000}}),
    create("ever"),
]
for operation in begun:
    operation.result(timeout=60)
until(lambda: state("broken"), "ERROR")
def gone(*names):
    missing = [n for n in names if refused(clusters.get_cluster, **where, cluster_name=n)]
    return sorted(missing)
names = ["idle", "stops", "old", "until", "ever", "broken"]
told += [gone(*names)]
jump(700)
told += [until(lambda: state("stops"), "STOPPED"), until(lambda: gone(*names), ["idle"])]
jump(3600)
told += [until(lambda: gone(*names), ["broken", "idle", "old", "until"]), state("ever")]
"""
    )
    assert told == [
        *([], "STOPPED", ["idle"], ["broken", "idle", "old", "until"], "RUNNING"),
    ]


def test_a_cluster_that_is_ordered_to_fails_hangs_hides_or_dies(
    client: Client, clouds: Clouds
) -> None:
    for effect in ("fail", "hang"):
        clouds.control.order(Fault(effect=effect, operation="gcp:dataproc.CreateCluster"))
    clouds.control.order(Fault(effect="hide", seconds=500, operation="gcp:dataproc.CreateCluster"))
    clouds.control.order(Fault(effect="die", seconds=1000, operation="gcp:dataproc.CreateCluster"))
    told = client(
        WORK
        + """
told += [refused(create("fails").result, timeout=60), state("fails")]
hanging = create("hangs")
create("hides").result(timeout=60)
create("dies").result(timeout=60)
told += [hanging.done(), state("hangs"), state("hides"), state("dies")]
text = "status.state = RUNNING"
told += ["hides" in [c.cluster_name for c in clusters.list_clusters({**where, "filter": text})]]
told += [refused(submit, "on-dead", "fails")]
clusters.delete_cluster({**where, "cluster_name": "hangs"}).result(timeout=60)
told += [refused(clusters.get_cluster, **where, cluster_name="hangs")]
jump(1001)
told += [until(lambda: state("dies"), "ERROR")]
told += ["hides" in [c.cluster_name for c in clusters.list_clusters(where)]]
"""
    )
    assert told == [
        *("RESOURCE_EXHAUSTED", "ERROR", False, "CREATING", "RUNNING", "RUNNING"),
        *(False, "FAILED_PRECONDITION", "NOT_FOUND", "ERROR", True),
    ]


def test_throttles_errors_and_lost_answers_are_met_by_the_client(
    client: Client, clouds: Clouds
) -> None:
    order = clouds.control.order
    dataproc = "gcp:dataproc"
    ordered = [
        order(Fault(effect="reset-after", operation=f"{dataproc}.CreateCluster")),
        order(Fault(effect="reset-before", operation=f"{dataproc}.DeleteCluster")),
        order(Fault(effect="error", status=503, operation=f"{dataproc}.ListClusters", times=2)),
        order(Fault(effect="throttle", operation=f"{dataproc}.GetCluster")),
        order(Fault(effect="error", operation=f"{dataproc}.GetJob")),
        order(Fault(effect="latency", seconds=0.3, operation=f"{dataproc}.ListJobs")),
        order(Fault(effect="hang", operation=f"{dataproc}.GetBatch")),
    ]
    told = client(
        WORK
        + """
told += [refused(create, "lost")]
told += ["lost" in [c.cluster_name for c in clusters.list_clusters(where)]]
told += [refused(clusters.get_cluster, **where, cluster_name="lost")]
told += [state("lost") in ("CREATING", "RUNNING")]
told += [refused(jobs.get_job, **where, job_id="x", retry=None)]
begun = time.monotonic()
list(jobs.list_jobs(where))
told += [time.monotonic() - begun >= 0.3]
told += [refused(batches.get_batch, name=f"{parent}/batches/hang", timeout=1)]
clusters.delete_cluster({**where, "cluster_name": "lost"}).result(timeout=60)
"""
    )
    # The client retries what it could not reach: it meets the cluster that it has made itself.
    assert told == [
        *("ALREADY_EXISTS", True, "RESOURCE_EXHAUSTED", True),
        *("INTERNAL", True, "DEADLINE_EXCEEDED"),
    ]
    assert [fault.hit for fault in ordered] == [1, 1, 2, 1, 1, 1, 1]


def test_a_request_id_makes_it_safe_to_ask_again(client: Client, clouds: Clouds) -> None:
    ordered = [
        clouds.control.order(Fault(effect=effect, operation=f"gcp:dataproc.{call}"))  # type: ignore[arg-type]
        for call in ("CreateCluster", "SubmitJob", "CreateBatch")
        for effect in ("reset-after", "reset-before")
    ]
    clouds.control.order(Fault(effect="hang", operation="gcp:dataproc.SubmitJob", times=-1))
    clouds.control.order(Fault(effect="hang", operation="gcp:dataproc.CreateBatch", times=-1))
    told = client(
        WORK
        + """
again = retry.Retry(retry.if_exception_type(exceptions.ServiceUnavailable), initial=0.01)
def asked(call, request):
    return call({**request, "request_id": "once"}, retry=again)
cluster = {**where, "cluster": {"cluster_name": "once"}}
first = asked(clusters.create_cluster, cluster)
told += [first.operation.name == asked(clusters.create_cluster, cluster).operation.name]
first.result(timeout=60)
told += [len([c for c in clusters.list_clusters(where) if c.cluster_name == "once"])]
work = {**where, "job": {"placement": {"cluster_name": "once"},
                         "pyspark_job": {"main_python_file_uri": "gs://none/none.py"}}}
names = {asked(jobs.submit_job, work).reference.job_id for _ in range(2)}
told += [{j.reference.job_id for j in jobs.list_jobs(where)} == names, len(names)]
work = {"parent": parent, "batch": {"pyspark_batch": {"main_python_file_uri": "gs://none/x.py"}}}
names = {asked(batches.create_batch, work).metadata.batch for _ in range(2)}
told += [{b.name for b in batches.list_batches(parent=parent)} == names, len(names)]
"""
    )
    assert told == [True, 1, True, 1, True, 1]
    assert [fault.hit for fault in ordered] == [1] * 6


def test_jobs_and_batches_hide_and_operations_time_out(client: Client, clouds: Clouds) -> None:
    for call in ("SubmitJob", "CreateBatch"):
        # The first fault that matches strikes: each of these has one call.
        clouds.control.order(Fault(effect="hide", seconds=500, operation=f"gcp:dataproc.{call}"))
        clouds.control.order(Fault(effect="hang", operation=f"gcp:dataproc.{call}"))
    told = client(
        WORK
        + """
import concurrent.futures
region = {**where, "region": "europe-west2"}
options = {"api_endpoint": "europe-west2-dataproc.googleapis.com:443"}
clusters = dataproc.ClusterControllerClient(client_options=options)
jobs = dataproc.JobControllerClient(client_options=options)
batches = dataproc.BatchControllerClient(client_options=options)
parent = "projects/portaflow-local/locations/europe-west2"
clusters.create_cluster({**region, "cluster": {"cluster_name": "hides"}}).result(timeout=60)
work = {"pyspark_batch": {"main_python_file_uri": "gs://none/none.py"}}
for name in ("hides", "hangs"):
    jobs.submit_job({**region, "job": job(name, "hides")})
    operation = batches.create_batch(parent=parent, batch_id=name, batch=work)
told += [[j.reference.job_id for j in jobs.list_jobs(region)]]
told += [[b.name.rpartition("/")[2] for b in batches.list_batches(parent=parent)]]
told += [jobs.get_job(**region, job_id="hides").reference.job_id]
told += [batches.get_batch(name=f"{parent}/batches/hides").name.rpartition("/")[2]]
try:
    operation.result(timeout=0.5)
except concurrent.futures.TimeoutError:
    told += ["late", operation.done()]
jump(501)
told += [[j.reference.job_id for j in jobs.list_jobs(region)]]
told += [[b.name.rpartition("/")[2] for b in batches.list_batches(parent=parent)]]
"""
    )
    assert told[:6] == [["hangs"], ["hangs"], "hides", "hides", "late", False]
    assert told[6:] == [["hangs", "hides"]] * 2


def test_a_quota_that_is_used_up_is_told(client: Client, clouds: Clouds) -> None:
    for call in ("CreateCluster", "SubmitJob", "CreateBatch"):
        clouds.control.order(Fault(effect="error", status=429, operation=f"gcp:dataproc.{call}"))
    told = client(
        WORK
        + """
work = {"pyspark_batch": {"main_python_file_uri": "gs://none/none.py"}}
told += [refused(create, "quota"), refused(submit, "quota", "quota")]
told += [refused(batches.create_batch, parent=parent, batch_id="quota", batch=work)]
told += [refused(clusters.get_cluster, **where, cluster_name="quota")]
"""
    )
    assert told == [*["RESOURCE_EXHAUSTED"] * 3, "NOT_FOUND"]


def test_a_batch_ends_with_its_time_to_live(client: Client, clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="hang", operation="gcp:dataproc.CreateBatch", times=2))
    asked = """
def batch(name, seconds):
    execution = {"execution_config": {"ttl": {"seconds": seconds}}} if seconds else {}
    return batches.create_batch(parent=parent, batch_id=name, batch={
        "pyspark_batch": {"main_python_file_uri": "gs://none/none.py"},
        "environment_config": execution})
def state(name):
    return batches.get_batch(name=f"{parent}/batches/{name}").state.name
"""
    told = client(
        WORK
        + asked
        + """
batch("short-ttl", 1200), batch("usual-ttl", 0)
jump(1201)
told += [until(lambda: state("short-ttl"), "CANCELLED"), state("usual-ttl")]
jump(4 * 3600)
told += [until(lambda: state("usual-ttl"), "CANCELLED")]
"""
    )
    assert told == ["CANCELLED", "PENDING", "CANCELLED"]
