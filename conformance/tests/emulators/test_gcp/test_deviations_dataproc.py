"""Where the local Dataproc, GKE, Secret Manager and IAM differ: each fails when it has gone."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import Any

import pytest

from .clients import GKE, REFUSED, WORK

pytest.importorskip("google.cloud.dataproc_v1")
pytest.importorskip("google.cloud.container_v1")
pytest.importorskip("google.cloud.secretmanager_v1")
pytest.importorskip("kubernetes")

CLOUDS = ("gcp", "kubernetes")
Client = Callable[..., Any]

_FACTS = """
import json, os, socket, sys, urllib.request
try:
    urllib.request.urlopen("https://example.com", timeout=20)
except OSError as error:
    outside = str(error)
print("facts " + json.dumps([socket.gethostname(), sys.executable, outside,
                             os.path.exists(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])]))
"""


@pytest.fixture(scope="module")
def facts(python: Client) -> Any:
    """What a batch that asks for an image sees of where it runs. It starts no Spark."""
    from portaflow_conformance.emulators.gcp.driver import GCS
    from portaflow_conformance.emulators.spark import Spark

    pytest.importorskip("pyspark")
    Spark(GCS).prepare()
    return python(
        f"script = {_FACTS!r}\n"
        + WORK
        + """
import json
from google.cloud import storage
store = storage.Client()
store.create_bucket("facts").blob("facts.py").upload_from_string(script)
made = batches.create_batch(parent=parent, batch_id="facts", batch={
    "pyspark_batch": {"main_python_file_uri": "gs://facts/facts.py"},
    "runtime_config": {"container_image": "us-docker.pkg.dev/none/none/none:none"}})
uri = made.result(timeout=150).runtime_info.output_uri
bucket, _, name = uri.removeprefix("gs://").partition("/")
said = "".join(b.download_as_text() for b in store.list_blobs(bucket, prefix=name))
told = [json.loads(line[6:]) for line in said.splitlines() if line.startswith("facts ")]
"""
    )[0]


@pytest.mark.spark
def test_deviation_dataproc_here(facts: Any) -> None:
    assert facts[0] == socket.gethostname()


@pytest.mark.spark
def test_deviation_dataproc_batch_image(facts: Any) -> None:
    assert facts[1] == sys.executable


@pytest.mark.spark
def test_deviation_dataproc_network(facts: Any) -> None:
    assert "portaflow emulate refuses example.com" in facts[2]


def test_deviation_dataproc_initialization_once(client: Client) -> None:
    told = client(
        WORK
        + """
from google.cloud import storage
store = storage.Client()
store.create_bucket("init").blob("id").upload_from_string("#!/bin/sh\\nid -u\\n")
action = {"executable_file": "gs://init/id"}
made = create("once", worker_config={"num_instances": 3},
              initialization_actions=[action]).result(timeout=60)
base = f"google-cloud-dataproc-metainfo/{made.cluster_uuid}/"
listed = list(store.list_blobs(made.config.config_bucket, prefix=base))
told += [[b.name.removeprefix(base).partition("/")[0] for b in listed]]
told += [int(listed[0].download_as_text()) == __import__("os").getuid()]
"""
    )
    assert told == [["once-m"], True]


def test_deviation_dataproc_quota(client: Client) -> None:
    told = client(
        WORK
        + """
def of(name, count):
    group = {"num_instances": count, "machine_type_uri": "n2-standard-96"}
    return create(name, worker_config=group)
for name, count in (("many", 15), ("more", 15), ("most", 25)):
    try:
        of(name, count).result(timeout=60)
        told += ["made"]
    except Exception as error:
        told += [error.message.partition(".")[0]]
large = {"pyspark_batch": {"main_python_file_uri": "gs://none/none.py"},
         "runtime_config": {"properties": {"spark.executor.instances": "500"}}}
try:
    batches.create_batch(parent=parent, batch_id="large", batch=large).result(timeout=60)
except Exception as error:
    told += [error.message]
"""
    )
    over = "Insufficient 'CPUS' quota"
    assert told == ["made", "made", over, f"{over}. Requested 2004.0, available 2000.0."]


def test_deviation_dataproc_autoscaling(client: Client) -> None:
    told = client(
        WORK
        + """
policies = dataproc.AutoscalingPolicyServiceClient(client_options=options)
yarn = {"graceful_decommission_timeout": {"seconds": 0}, "scale_up_factor": 1.0,
        "scale_down_factor": 1.0}
policy = policies.create_autoscaling_policy(
    parent=f"projects/portaflow-local/regions/{REGION}",
    policy={"id": "large", "basic_algorithm": {"yarn_config": yarn},
            "worker_config": {"min_instances": 5, "max_instances": 9}})
create("scaled", autoscaling_config={"policy_uri": policy.name}).result(timeout=60)
jump(3600)
create("later").result(timeout=60)
cluster = clusters.get_cluster(**where, cluster_name="scaled")
told += [cluster.config.worker_config.num_instances]
"""
    )
    assert told == [2]


def test_deviation_dataproc_kinds(client: Client) -> None:
    told = client(
        WORK
        + """
create("kinds").result(timeout=60)
query, main = {"query_file_uri": "gs://a/b"}, {"main_r_file_uri": "gs://a/b"}
kinds = {"hive_job": query, "pig_job": query, "presto_job": query, "trino_job": query,
         "spark_sql_job": query, "flink_job": {"main_class": "A"}, "spark_r_job": main}
for name, work in kinds.items():
    told += [refused(jobs.submit_job, {**where, "job": {
        "placement": {"cluster_name": "kinds"}, name: work}})]
for batch in ({"spark_sql_batch": query}, {"spark_r_batch": main}):
    told += [refused(batches.create_batch, parent=parent, batch_id="kinds", batch=batch)]
"""
    )
    assert told == ["UNIMPLEMENTED"] * 9


def test_deviation_dataproc_services(client: Client) -> None:
    told = client(
        WORK
        + """
regional = f"projects/portaflow-local/regions/{REGION}"
templates = dataproc.WorkflowTemplateServiceClient(client_options=options)
told += [refused(templates.list_workflow_templates, parent=regional)]
sessions = dataproc.SessionControllerClient(client_options=options)
told += [refused(sessions.list_sessions, parent=parent)]
groups = dataproc.NodeGroupControllerClient(client_options=options)
told += [refused(groups.get_node_group, name=f"{regional}/clusters/x/nodeGroups/y")]
"""
    )
    assert told == ["UNIMPLEMENTED"] * 3


def test_deviation_gke_shared(client: Client) -> None:
    told = client(
        REFUSED
        + GKE
        + """
done(gke.create_cluster(parent=parent, cluster={"name": "second"}))
told += [[c.name for c in gke.list_clusters(parent=parent).clusters]]
told += [len({c.endpoint for c in gke.list_clusters(parent=parent).clusters})]
told += [refused(gke.list_node_pools, parent=f"{parent}/clusters/second")]
"""
    )
    assert told == [["portaflow", "second"], 1, "UNIMPLEMENTED"]


_SECRETS = """
from google.cloud import secretmanager
secrets = secretmanager.SecretManagerServiceClient()
"""


def test_deviation_secretmanager_filters(client: Client) -> None:
    told = client(
        REFUSED
        + _SECRETS
        + """
from portaflow_conformance.emulators.endpoint import RemoteControl
import datetime
parent = "projects/portaflow-local"
made = secrets.create_secret(parent=parent, secret_id="expires", secret={
    "replication": {"automatic": {}}, "ttl": datetime.timedelta(seconds=60)})
RemoteControl().jump(3600)
told += [secrets.get_secret(name=made.name).name == made.name]
told += [refused(secrets.list_secrets, {"parent": parent, "filter": "name:expires"})]
told += [refused(secrets.list_secrets, parent=f"{parent}/locations/us-central1")]
"""
    )
    assert told == [True, "UNIMPLEMENTED", ""]


def test_deviation_gcp_policies(client: Client) -> None:
    told = client(
        REFUSED
        + _SECRETS
        + """
import google.auth
from google.auth import impersonated_credentials
source, project = google.auth.default(["https://www.googleapis.com/auth/cloud-platform"])
nobody = impersonated_credentials.Credentials(
    source, f"nobody@{project}.iam.gserviceaccount.com", source.scopes)
theirs = secretmanager.SecretManagerServiceClient(credentials=nobody)
made = secrets.create_secret(parent=f"projects/{project}", secret_id="ours",
                             secret={"replication": {"automatic": {}}})
told += [refused(secrets.set_iam_policy, {"resource": made.name})]
told += [theirs.get_secret(name=made.name).name == made.name]
"""
    )
    assert told == ["UNIMPLEMENTED", True]


@pytest.mark.spark
def test_deviation_gcp_users(client: Client, facts: Any) -> None:
    told = client(
        """
import google.auth.exceptions, google.auth.transport.requests, google.oauth2.credentials
user = google.oauth2.credentials.Credentials(
    None, refresh_token="1//made-up", token_uri="https://oauth2.googleapis.com/token",
    client_id="x.apps.googleusercontent.com", client_secret="y")
try:
    user.refresh(google.auth.transport.requests.Request())
except google.auth.exceptions.RefreshError as error:
    told += [error.args[1]["error"]]
"""
    )
    assert told == ["unsupported_grant_type"]
    assert facts[3]  # the key is there
