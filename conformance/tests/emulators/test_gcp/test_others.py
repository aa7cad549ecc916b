"""GKE and Secret Manager as Google's clients see them, and what the stand-in leaves behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Fault

from .clients import GKE, REFUSED

pytest.importorskip("google.cloud.container_v1")
pytest.importorskip("google.cloud.secretmanager_v1")
pytest.importorskip("kubernetes")

CLOUDS = ("gcp", "kubernetes")
Client = Callable[..., Any]

_BEGIN = REFUSED + "import time\n"


def test_a_cluster_of_gke_leads_to_the_local_kubernetes(client: Client, clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="fail", operation="gcp:container.CreateCluster", skip=2))
    told = client(
        REFUSED
        + GKE
        + """
import base64, os, tempfile
import google.auth, google.auth.transport.requests
import kubernetes
told += [[c.name for c in gke.list_clusters(parent=parent).clusters]]
operation = gke.create_cluster(parent=parent, cluster={"name": "mine", "initial_node_count": 1})
told += [refused(gke.create_cluster, parent=parent, cluster={"name": "mine"})]
told += [done(operation).operation_type.name]
old = {"project_id": "portaflow-local", "zone": "us-central1", "cluster_id": "mine"}
cluster = gke.get_cluster(old)
told += [cluster.status.name, cluster.name == gke.get_cluster(name=f"{parent}/clusters/mine").name]
credentials, _ = google.auth.default(["https://www.googleapis.com/auth/cloud-platform"])
credentials.refresh(google.auth.transport.requests.Request())
def namespaces(token):
    config = kubernetes.client.Configuration(host=f"https://{cluster.endpoint}")
    with tempfile.NamedTemporaryFile() as file:
        file.write(base64.b64decode(cluster.master_auth.cluster_ca_certificate))
        file.flush()
        config.ssl_ca_cert = file.name
        config.api_key = {"authorization": f"Bearer {token}"}
        api = kubernetes.client.CoreV1Api(kubernetes.client.ApiClient(config))
        try:
            return [n.metadata.name for n in api.list_namespace().items]
        except kubernetes.client.ApiException as error:
            return error.status
told += ["default" in namespaces(credentials.token), namespaces("made-up")]
told += [done(gke.create_cluster(parent=parent, cluster={"name": "fails"})).error.code]
told += [gke.get_cluster(name=f"{parent}/clusters/fails").status.name]
done(gke.delete_cluster(name=f"{parent}/clusters/mine"))
told += [refused(gke.get_cluster, name=f"{parent}/clusters/mine")]
everywhere = gke.list_clusters(parent="projects/portaflow-local/locations/-").clusters
told += [[c.name for c in everywhere]]
told += [refused(gke.list_node_pools, parent=f"{parent}/clusters/portaflow")]
"""
    )
    assert told == [
        *(["portaflow"], "ALREADY_EXISTS", "CREATE_CLUSTER", "RUNNING", True, True, 401),
        *(8, "ERROR", "NOT_FOUND", ["portaflow", "fails"], "UNIMPLEMENTED"),
    ]


def test_secrets_have_versions_and_are_not_in_the_log(client: Client, clouds: Clouds) -> None:
    told = client(
        _BEGIN
        + """
from google.cloud import secretmanager
secrets = secretmanager.SecretManagerServiceClient()
parent = "projects/portaflow-local"
replication = {"replication": {"automatic": {}}}
made = secrets.create_secret(parent=parent, secret_id="key", secret=replication)
told += [refused(secrets.create_secret, parent=parent, secret_id="key", secret=replication)]
told += [refused(secrets.access_secret_version, name=f"{made.name}/versions/latest")]
for word in (b"first-word", b"second-word"):
    version = secrets.add_secret_version(parent=made.name, payload={"data": word})
latest = secrets.access_secret_version(name=f"{made.name}/versions/latest")
told += [latest.payload.data.decode(), latest.name == version.name]
told += [secrets.access_secret_version(name=f"{made.name}/versions/1").payload.data.decode()]
wrong = {"data": b"x", "data_crc32c": 1}
told += [refused(secrets.add_secret_version, parent=made.name, payload=wrong)]
secrets.disable_secret_version(name=f"{made.name}/versions/1")
told += [refused(secrets.access_secret_version, name=f"{made.name}/versions/1")]
listed = secrets.list_secret_versions({"parent": made.name, "page_size": 1})
told += [[v.state.name for v in listed]]
told += [[s.name for s in secrets.list_secrets(parent=parent)] == [made.name]]
secrets.delete_secret(name=made.name)
told += [refused(secrets.get_secret, name=made.name)]
"""
    )
    assert told == [
        *("ALREADY_EXISTS", "NOT_FOUND", "second-word", True, "first-word"),
        *("INVALID_ARGUMENT", "FAILED_PRECONDITION", ["ENABLED", "DISABLED"], True, "NOT_FOUND"),
    ]
    added = clouds.control.seen("gcp:secretmanager.AddSecretVersion")
    assert [set(call.params) for call in added] == [{"parent"}] * 3


def test_the_async_clients_work_too(client: Client) -> None:
    told = client(
        REFUSED
        + GKE
        + """
import asyncio
from google.cloud import secretmanager
async def work():
    gke = container_v1.ClusterManagerAsyncClient()
    made = await gke.create_cluster(parent=parent, cluster={"name": "aio"})
    name = f"{parent}/operations/{made.name}"
    while (await gke.get_operation(name=name)).status.name != "DONE":
        await asyncio.sleep(0.02)
    told.append((await gke.get_cluster(name=f"{parent}/clusters/aio")).status.name)
    await gke.delete_cluster(name=f"{parent}/clusters/aio")
    secrets = secretmanager.SecretManagerServiceAsyncClient()
    made = await secrets.create_secret(parent="projects/portaflow-local", secret_id="aio",
                                       secret={"replication": {"automatic": {}}})
    await secrets.add_secret_version(parent=made.name, payload={"data": b"word"})
    latest = await secrets.access_secret_version(name=f"{made.name}/versions/latest")
    told.append(latest.payload.data.decode())
    await secrets.delete_secret(name=made.name)
asyncio.run(work())
"""
    )
    assert told == ["RUNNING", "word"]


_LEAVE = """
from google.cloud import dataproc_v1 as dataproc, storage
options = {"api_endpoint": "us-central1-dataproc.googleapis.com:443"}
where = {"project_id": "portaflow-local", "region": "us-central1"}
data = storage.Client().create_bucket("data")
data.blob("wait.py").upload_from_string("import time; time.sleep(300)")
clusters = dataproc.ClusterControllerClient(client_options=options)
clusters.create_cluster({**where, "cluster": {"cluster_name": "left"}}).result(timeout=60)
jobs = dataproc.JobControllerClient(client_options=options)
job = {"reference": {"job_id": "left"}, "placement": {"cluster_name": "left"},
       "pyspark_job": {"main_python_file_uri": "gs://data/wait.py"}}
jobs.submit_job({**where, "job": job})
while jobs.get_job(**where, job_id="left").status.state.name != "RUNNING":
    pass
"""


def test_nothing_is_left_of_a_cloud_in_which_a_job_runs(left: Callable[[], list[str]]) -> None:
    pytest.importorskip("pyspark")
    before = threading.enumerate()
    with emulate("gcp", pace=0) as clouds:
        done = subprocess.run(
            [sys.executable, "-c", _LEAVE],
            env=clouds.environ(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert any("SparkSubmit" in thing for thing in left())
    assert left() == []
    assert [t.name for t in threading.enumerate() if t not in before] == []
