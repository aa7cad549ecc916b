"""Dataproc, GKE and Secret Manager by REST, as Google's clients and plain HTTP speak it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

from .clients import DATAPROC, GKE

pytest.importorskip("google.cloud.dataproc_v1")
pytest.importorskip("google.cloud.container_v1")
pytest.importorskip("google.cloud.secretmanager_v1")
pytest.importorskip("kubernetes")

CLOUDS = ("gcp", "kubernetes")
Client = Callable[..., Any]

_REFUSED = """
from google.api_core import exceptions
def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except exceptions.GoogleAPICallError as error:
        return int(error.code)
    return 0
"""
_BY_REST = (
    _REFUSED
    + DATAPROC
    + """
import time
options = {"api_endpoint": f"{REGION}-dataproc.googleapis.com"}
rest = {"transport": "rest", "client_options": options}
clusters = dataproc.ClusterControllerClient(**rest)
jobs = dataproc.JobControllerClient(**rest)
batches = dataproc.BatchControllerClient(**rest)
"""
)
_PLAIN = """
import google.auth
from google.auth.transport.requests import AuthorizedSession
credentials, project = google.auth.default(["https://www.googleapis.com/auth/cloud-platform"])
session = AuthorizedSession(credentials)
dataproc = "https://europe-west1-dataproc.googleapis.com/v1/projects/portaflow-local"
clusters = f"{dataproc}/regions/europe-west1/clusters"
"""


def test_dataproc_is_spoken_to_by_rest(client: Client, clouds: Clouds) -> None:
    for kind in ("SubmitJob", "CreateBatch"):
        clouds.control.order(Fault(effect="hang", operation=f"gcp:dataproc.{kind}"))
    told = client(
        _BY_REST
        + """
def create(name, **more):
    return clusters.create_cluster({**where, "cluster": {"cluster_name": name, **more}})
operation = create("rest", labels={"team": "a"})
told += [operation.metadata.operation_type, operation.result(timeout=60).status.state.name]
told += [refused(create, "rest"), refused(create, "Rest")]
asked = {**where, "filter": "labels.team = a", "page_size": 1}
told += [[c.cluster_name for c in clusters.list_clusters(asked)]]
change = {"labels": {"team": "b"}, "config": {"worker_config": {"num_instances": 4}}}
changed = clusters.update_cluster({
    **where, "cluster_name": "rest", "cluster": change,
    "update_mask": {"paths": ["labels", "config.worker_config.num_instances"]}})
told += [changed.result(timeout=60).config.worker_config.num_instances]
work = {"pyspark_job": {"main_python_file_uri": "gs://none/none.py"},
        "reference": {"job_id": "rest"}, "placement": {"cluster_name": "rest"}}
told += [jobs.submit_job({**where, "job": work}).status.state.name]
told += [[j.reference.job_id for j in jobs.list_jobs({**where, "job_state_matcher": "ACTIVE"})]]
told += [jobs.cancel_job(**where, job_id="rest").status.state.name]
work = {"pyspark_batch": {"main_python_file_uri": "gs://none/none.py"}}
batch = batches.create_batch(parent=parent, batch_id="rest", batch=work)
batches.cancel_operation({"name": batch.operation.name})
told += [refused(batch.result, timeout=60)]
batches.delete_batch(name=f"{parent}/batches/rest")
told += [len(list(batches.list_batches(parent=parent)))]
told += [clusters.stop_cluster({**where, "cluster_name": "rest"}).result().status.state.name]
clusters.delete_cluster({**where, "cluster_name": "rest"}).result(timeout=60)
told += [refused(clusters.get_cluster, **where, cluster_name="rest")]
told += [refused(clusters.diagnose_cluster, **where, cluster_name="rest")]
"""
    )
    assert told == [
        *("CREATE", "RUNNING", 409, 400, ["rest"], 4),
        *("PENDING", ["rest"], "CANCEL_PENDING", 499, 0, "STOPPED", 404, 501),
    ]
    updated = clouds.control.seen("gcp:dataproc.UpdateCluster")[-1]
    assert updated.params["update_mask"] == "labels,config.workerConfig.numInstances"


def test_gke_and_secret_manager_are_spoken_to_by_rest(client: Client, clouds: Clouds) -> None:
    told = client(
        _REFUSED
        + GKE
        + """
gke = container_v1.ClusterManagerClient(transport="rest")
told += [[c.name for c in gke.list_clusters(parent=parent).clusters]]
old = {"project_id": "portaflow-local", "zone": "us-central1", "cluster_id": "portaflow"}
named = gke.get_cluster(name=f"{parent}/clusters/portaflow")
told += [gke.get_cluster(old).endpoint == named.endpoint]
done(gke.create_cluster(parent=parent, cluster={"name": "rest", "initial_node_count": 2}))
told += [gke.get_cluster(name=f"{parent}/clusters/rest").initial_node_count]
done(gke.delete_cluster(name=f"{parent}/clusters/rest"))
told += [refused(gke.get_cluster, name=f"{parent}/clusters/rest")]
from google.cloud import secretmanager
secrets = secretmanager.SecretManagerServiceClient(transport="rest")
made = secrets.create_secret(parent="projects/portaflow-local", secret_id="key",
                             secret={"replication": {"automatic": {}}})
secrets.add_secret_version(parent=made.name, payload={"data": b"hush \\xff"})
latest = secrets.access_secret_version(name=f"{made.name}/versions/latest")
told += [latest.payload.data == b"hush \\xff", refused(secrets.get_secret, name=made.name + "s")]
"""
    )
    assert told == [["portaflow"], True, 2, 404, True, 404]
    assert "aHVz" not in repr(clouds.control.seen())  # "hus" by base64


def test_plain_http_with_a_token_is_answered_as_google_does(client: Client, clouds: Clouds) -> None:
    # It is still being made when it is to be stopped, and so cannot be.
    clouds.control.order(Fault(effect="hang", operation="gcp:dataproc.CreateCluster"))
    told = client(
        _PLAIN
        + """
made = session.post(clusters, params={"requestId": "r"}, json={
    "projectId": project, "clusterName": "plain", "config": {"workerConfig": {"numInstances": 3}}})
name = made.json()["name"]
told += [made.status_code, made.json()["metadata"]["@type"].rpartition(".")[2]]
told += [session.post(f"{clusters}?requestId=r", json={"clusterName": "x"}).json()["name"] == name]
found = session.get(f"{clusters}/plain").json()
told += [found["clusterName"], found["config"]["workerConfig"]["numInstances"]]
told += [session.post(f"{clusters}/plain:stop", json={}).json()["error"]["status"]]
told += [session.get(f"https://dataproc.googleapis.com/v1/{name}").json()["name"] == name]
listed = session.get(f"{dataproc}/regions/europe-west1/operations").json()["operations"]
told += [[o["name"] for o in listed] == [name]]
def error(answer):
    told = answer.json()["error"]
    return [answer.status_code, told["code"], told["status"]]
told += [error(session.get(f"{clusters}/none")), error(session.get(f"{clusters}?colour=red"))]
told += [error(session.post(clusters, json={"clusterNames": "x"}))]
told += [error(session.get("https://dataproc.googleapis.com/v2/none"))]
told += [error(session.post(f"{clusters}/plain:diagnose", json={}))]
import requests
told += [error(requests.get(clusters)), error(requests.get(
    clusters, headers={"Authorization": "Bearer made-up"}))]
"""
    )
    assert told == [
        *(200, "ClusterOperationMetadata", True, "plain", 3, "FAILED_PRECONDITION", True, True),
        *([404, 404, "NOT_FOUND"], [400, 400, "INVALID_ARGUMENT"], [400, 400, "INVALID_ARGUMENT"]),
        *([404, 404, "NOT_FOUND"], [501, 501, "UNIMPLEMENTED"]),
        *([401, 401, "UNAUTHENTICATED"], [401, 401, "UNAUTHENTICATED"]),
    ]


def test_faults_strike_rest_too(client: Client, clouds: Clouds) -> None:
    get = "gcp:dataproc.ListClusters"
    clouds.control.order(Fault(effect="throttle", operation=get))
    clouds.control.order(Fault(effect="error", status=503, operation=get))
    clouds.control.order(Fault(effect="reset-after", operation="gcp:dataproc.CreateCluster"))
    clouds.control.order(Fault(effect="hang", operation="gcp:dataproc.GetCluster"))
    told = client(
        _PLAIN
        + """
import requests
bare = requests.Session()  # Google's own tries again by itself
credentials.refresh(google.auth.transport.requests.Request())
bare.headers["Authorization"] = f"Bearer {credentials.token}"
told += [bare.get(clusters).status_code, bare.get(clusters).json()["error"]["status"]]
try:
    bare.post(clusters, json={"clusterName": "lost"})
except requests.ConnectionError:
    told += ["reset"]
told += ["lost" in [c["clusterName"] for c in bare.get(clusters).json()["clusters"]]]
try:
    bare.get(f"{clusters}/lost", timeout=0.5)
except requests.Timeout:
    told += ["timeout"]
"""
    )
    assert told == [429, "UNAVAILABLE", "reset", True, "timeout"]
