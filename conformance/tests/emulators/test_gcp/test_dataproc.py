"""The local Dataproc as google-cloud-dataproc sees it, sync and async. No Spark starts here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

from .clients import DATAPROC, REFUSED

pytest.importorskip("google.cloud.dataproc_v1")

Client = Callable[..., Any]
ACCOUNT = "portaflow@portaflow-local.iam.gserviceaccount.com"

_DATAPROC = (
    REFUSED
    + DATAPROC
    + """
import asyncio, time
from google.api_core import retry
def create(name, request_id="", labels={}, **config):
    cluster = {"cluster_name": name, "labels": labels, "config": config}
    return clusters.create_cluster({**where, "cluster": cluster, "request_id": request_id})
def state(name):
    return clusters.get_cluster(**where, cluster_name=name).status.state.name
def until(ask, *wanted):
    while (found := ask()) not in wanted:
        time.sleep(0.02)
    return found
def job(name, cluster, **more):
    return {"reference": {"job_id": name}, "placement": {"cluster_name": cluster},
            "pyspark_job": {"main_python_file_uri": "gs://none/none.py"}, **more}
def submit(name, cluster, request_id="", **more):
    return jobs.submit_job({**where, "job": job(name, cluster, **more), "request_id": request_id})
def job_state(name):
    return jobs.get_job(**where, job_id=name).status.state.name
"""
)


def test_a_cluster_lives_as_google_says(client: Client, clouds: Clouds) -> None:
    told = client(
        _DATAPROC
        + """
operation = create("life", "r-1", {"team": "a"})
told += [operation.metadata.operation_type]
told += [create("life", "r-1").operation.name == operation.operation.name]
made = operation.result(timeout=60)
told += [made.status.state.name, [s.state.name for s in made.status_history]]
told += [made.config.worker_config.num_instances, made.labels["goog-dataproc-cluster-name"]]
told += [refused(create, "life"), refused(create, "Life"), refused(create, "x", labels={"A": "b"})]
told += [refused(create, "x", worker_config={"num_instances": 1})]
told += [refused(create, "x", lifecycle_config={"idle_delete_ttl": {"seconds": 1}})]
told += [refused(create, "x", config_bucket="is-not-there")]
told += [refused(clusters.get_cluster, **where, cluster_name="none")]
paths = {"paths": ["config.worker_config.num_instances", "labels"]}
change = {"labels": {"team": "b"}, "config": {"worker_config": {"num_instances": 3}}}
made = clusters.update_cluster({**where, "cluster_name": "life", "cluster": change,
                                "update_mask": paths}).result(timeout=60)
told += [made.config.worker_config.num_instances, made.labels["team"]]
life = {**where, "cluster_name": "life"}
told += [clusters.stop_cluster(life).result(timeout=60).status.state.name]
told += [refused(submit, "early", "life")]
told += [clusters.start_cluster(life).result(timeout=60).status.state.name]
told += [refused(clusters.delete_cluster, {**life, "cluster_uuid": "other"})]
clusters.delete_cluster(life).result(timeout=60)
told += [refused(clusters.delete_cluster, life), refused(clusters.diagnose_cluster, life)]
"""
    )
    invalid = "INVALID_ARGUMENT"
    assert told == [
        *("CREATE", True, "RUNNING", ["CREATING"], 2, "life"),
        *("ALREADY_EXISTS", invalid, invalid, invalid, invalid, invalid, "NOT_FOUND"),
        *(3, "b", "STOPPED", "FAILED_PRECONDITION", "RUNNING"),
        *("NOT_FOUND", "NOT_FOUND", "UNIMPLEMENTED"),
    ]
    made = clouds.control.seen("gcp:dataproc.CreateCluster")[0]
    assert made.principal == ACCOUNT
    assert made.params["cluster"]["cluster_name"] == "life"


def test_lists_have_pages_and_filters(client: Client) -> None:
    told = client(
        _DATAPROC
        + """
for number in range(5):
    create(f"list-{number}", labels={"parity": str(number % 2), "n": str(number)})
def listed(text="", **more):
    return [c.cluster_name for c in clusters.list_clusters({**where, "filter": text, **more})]
told += [listed("labels.parity = *", page_size=2)]
told += [listed("labels.parity = 1 AND status.state = ACTIVE"), listed("clusterName=list-3")]
told += [listed("labels.parity = 0 labels.n=4"), refused(listed, "colour = red")]
told += [refused(listed, "labels.parity = 0 OR labels.parity = 1")]
elsewhere = {**where, "region": "europe-west1"}
told += [[c.cluster_name for c in clusters.list_clusters(elsewhere)]]
"""
    )
    names = [f"list-{number}" for number in range(5)]
    assert told == [
        *(names, ["list-1", "list-3"], ["list-3"], ["list-4"]),
        *("INVALID_ARGUMENT", "INVALID_ARGUMENT", []),
    ]


def test_the_async_clients_work_too(client: Client, clouds: Clouds) -> None:
    for kind in ("SubmitJob", "CreateBatch"):
        clouds.control.order(Fault(effect="hang", operation=f"gcp:dataproc.{kind}"))
    told = client(
        _DATAPROC
        + """
async def work():
    client = dataproc.ClusterControllerAsyncClient(client_options=options)
    cluster = {"cluster_name": "aio"}
    operation = await client.create_cluster({**where, "cluster": cluster})
    made = await operation.result(timeout=60)
    told.append(made.status.state.name)
    listed = await client.list_clusters({**where, "filter": "clusterName=aio"})
    told.append([cluster.cluster_name async for cluster in listed])
    jobs = dataproc.JobControllerAsyncClient(client_options=options)
    made = await jobs.submit_job({**where, "job": job("aio", "aio")})
    told.append([job.status.state.name async for job in await jobs.list_jobs(where)])
    await jobs.cancel_job(**where, job_id="aio")
    while not (found := await jobs.get_job(**where, job_id="aio")).done:
        await asyncio.sleep(0.02)
    told.append(found.status.state.name)
    await jobs.delete_job(**where, job_id="aio")
    batches = dataproc.BatchControllerAsyncClient(client_options=options)
    work = {"pyspark_batch": {"main_python_file_uri": "gs://none/none.py"}}
    operation = await batches.create_batch(parent=parent, batch_id="aio-batch", batch=work)
    told.append([b.state.name async for b in await batches.list_batches(parent=parent)])
    await operation.cancel()
    try:
        await operation.result(timeout=60)
    except exceptions.GoogleAPICallError as error:  # this client makes no Cancelled of it
        told.append(error.message)
    await batches.delete_batch(name=f"{parent}/batches/aio-batch")
    await (await client.delete_cluster({**where, "cluster_name": "aio"})).result(timeout=60)
    try:
        await client.get_cluster({**where, "cluster_name": "aio"})
    except exceptions.NotFound:
        told.append("gone")
asyncio.run(work())
"""
    )
    cancelled = "The batch was cancelled."
    assert told == ["RUNNING", ["aio"], ["PENDING"], "CANCELLED", ["PENDING"], cancelled, "gone"]


def test_times_to_live_fire_by_the_clock_of_the_control(client: Client, clouds: Clouds) -> None:
    ask = """
create("idle", lifecycle_config={"idle_delete_ttl": {"seconds": 600}}).result(timeout=60)
create("old", lifecycle_config={"auto_delete_ttl": {"seconds": 4000}}).result(timeout=60)
create("ever").result(timeout=60)
"""
    client(_DATAPROC + ask)
    gone = """
def there(name):
    return refused(clusters.get_cluster, **where, cluster_name=name) == ""
"""
    clouds.control.jump(700)
    told = client(
        _DATAPROC
        + gone
        + "told += [until(lambda: there('idle'), False), there('old'), there('ever')]"
    )
    assert told == [False, True, True]
    clouds.control.jump(3600)
    told = client(_DATAPROC + gone + "told += [until(lambda: there('old'), False), there('ever')]")
    assert told == [False, True]


def test_a_cluster_that_is_ordered_to_fails_hangs_hides_or_dies(
    client: Client, clouds: Clouds
) -> None:
    for effect in ("fail", "hang"):
        clouds.control.order(Fault(effect=effect, operation="gcp:dataproc.CreateCluster"))
    clouds.control.order(Fault(effect="hide", seconds=500, operation="gcp:dataproc.CreateCluster"))
    clouds.control.order(Fault(effect="die", seconds=1000, operation="gcp:dataproc.CreateCluster"))
    told = client(
        _DATAPROC
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
"""
    )
    assert told == [
        *("RESOURCE_EXHAUSTED", "ERROR", False, "CREATING", "RUNNING", "RUNNING"),
        *(False, "FAILED_PRECONDITION", "NOT_FOUND"),
    ]
    clouds.control.jump(1001)
    told = client(
        _DATAPROC
        + """
told += [until(lambda: state("dies"), "ERROR")]
told += ["hides" in [c.cluster_name for c in clusters.list_clusters(where)]]
"""
    )
    assert told == ["ERROR", True]


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
        _DATAPROC
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


def test_who_proves_nothing_is_refused(client: Client) -> None:
    told = client(
        _DATAPROC
        + """
import grpc
from google.auth.credentials import AnonymousCredentials
transport = dataproc.services.cluster_controller.transports.ClusterControllerGrpcTransport
credentials = AnonymousCredentials()
nobody = dataproc.ClusterControllerClient(
    transport=transport(host=options["api_endpoint"], credentials=credentials))
told += [refused(nobody.list_clusters, where)]
"""
    )
    assert told == ["UNAUTHENTICATED"]


def test_jobs_and_batches_are_checked_found_once_and_cancelled(
    client: Client, clouds: Clouds
) -> None:
    for kind in ("SubmitJob", "CreateBatch"):
        clouds.control.order(Fault(effect="hang", operation=f"gcp:dataproc.{kind}"))
        clouds.control.order(Fault(effect="fail", operation=f"gcp:dataproc.{kind}"))
    told = client(
        _DATAPROC
        + """
create("work").result(timeout=60)
told += [submit("one", "work", "r-2").status.state.name]
told += [submit("other", "work", "r-2").reference.job_id, refused(submit, "one", "work")]
told += [refused(submit, "x", "none"), refused(submit, "not a name", "work")]
told += [refused(submit, "x", "work", pyspark_job={"args": ["x"]})]
told += [refused(submit, "x", "work", hive_job={"query_file_uri": "gs://a/b"})]
submit("two", "work", labels={"k": "v"})
told += [until(lambda: job_state("two"), "ERROR")]
def listed(**more):
    return [j.reference.job_id for j in jobs.list_jobs({**where, **more})]
told += [listed(), listed(job_state_matcher="ACTIVE"), listed(filter="labels.k = v")]
told += [listed(page_size=1)]
told += [refused(jobs.delete_job, **where, job_id="one")]
told += [jobs.cancel_job(**where, job_id="one").status.state.name]
told += [until(lambda: job_state("one"), "CANCELLED")]
told += [refused(jobs.cancel_job, **where, job_id="one")]
jobs.delete_job(**where, job_id="one")
told += [refused(jobs.get_job, **where, job_id="one")]

def batch(name, request_id="", **more):
    asked = {"pyspark_batch": {"main_python_file_uri": "gs://none/none.py"}, **more}
    return batches.create_batch({"parent": parent, "batch_id": name, "batch": asked,
                                 "request_id": request_id})
first = batch("b-one", "r-3")
told += [batch("b-else", "r-3").operation.name == first.operation.name, refused(batch, "b-one")]
told += [refused(batch, "B"), batches.get_batch(name=f"{parent}/batches/b-one").state.name]
told += [refused(batches.delete_batch, name=f"{parent}/batches/b-one")]
told += [refused(batch("b-two", labels={"k": "v"}).result, timeout=60)]
listed = batches.list_batches({"parent": parent, "page_size": 1})
told += [[b.name.rpartition("/")[2] for b in listed]]
failed = batches.list_batches({"parent": parent, "filter": "state = FAILED AND labels.k=v"})
told += [[b.state.name for b in failed]]
first.cancel()
told += [until(lambda: batches.get_batch(name=f"{parent}/batches/b-one").state.name, "CANCELLED")]
told += [first.cancelled()]
batches.delete_batch(name=f"{parent}/batches/b-one")
told += [refused(batches.get_batch, name=f"{parent}/batches/b-one")]
"""
    )
    invalid = "INVALID_ARGUMENT"
    assert told == [
        *("PENDING", "one", "ALREADY_EXISTS", "NOT_FOUND", invalid, invalid, "UNIMPLEMENTED"),
        *("ERROR", ["two", "one"], ["one"], ["two"], ["two", "one"], "FAILED_PRECONDITION"),
        *("CANCEL_PENDING", "CANCELLED", "FAILED_PRECONDITION", "NOT_FOUND"),
        *(True, "ALREADY_EXISTS", invalid, "PENDING", "FAILED_PRECONDITION", "ABORTED"),
        *(["b-two", "b-one"], ["FAILED"], "CANCELLED", True, "NOT_FOUND"),
    ]
