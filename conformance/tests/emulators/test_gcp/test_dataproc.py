"""The local Dataproc as google-cloud-dataproc sees it, sync and async. No Spark starts here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

from .clients import WORK

pytest.importorskip("google.cloud.dataproc_v1")

Client = Callable[..., Any]
ACCOUNT = "portaflow@portaflow-local.iam.gserviceaccount.com"


def test_a_cluster_lives_as_google_says(client: Client, clouds: Clouds) -> None:
    told = client(
        WORK
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
        WORK
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
        WORK
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


def test_who_proves_nothing_is_refused(client: Client) -> None:
    told = client(
        WORK
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
        WORK
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
