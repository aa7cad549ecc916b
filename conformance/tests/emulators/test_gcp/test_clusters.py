"""What the local Dataproc makes of a cluster's config: what it refuses, fills in and runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds

from ..frame import until
from .clients import DATAPROC, REFUSED

pytest.importorskip("google.cloud.dataproc_v1")

Client = Callable[..., Any]

_BEGIN = (
    REFUSED
    + DATAPROC
    + """
import time
from google.cloud import storage
store = storage.Client()
def create(name, **config):
    cluster = {"cluster_name": name, "config": config}
    return clusters.create_cluster({**where, "cluster": cluster})
def got(name):
    return clusters.get_cluster(**where, cluster_name=name)
def actions(*scripts, seconds=60):
    return [{"executable_file": f"gs://init/{name}", "execution_timeout": {"seconds": seconds}}
            for name in scripts]
def said(uri):
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return store.bucket(bucket).blob(name).download_as_text()
"""
)


@pytest.fixture(scope="module", autouse=True)
def scripts(python: Client) -> None:
    python(
        _BEGIN
        + """
init = store.create_bucket("init")
init.blob("good").upload_from_string("#!/bin/sh\\necho good, by $0\\n")
init.blob("python").upload_from_string('''#!/usr/bin/env python3
from google.cloud import storage
bucket = storage.Client().bucket("init")
bucket.blob("made").upload_from_string("by an action")
print("python")
''')
init.blob("bad").upload_from_string("#!/bin/sh\\necho bad >&2\\nexit 3\\n")
init.blob("slow").upload_from_string("#!/bin/sh\\nsleep 300\\n")
"""
    )


def test_initialization_actions_run_before_a_cluster_does(client: Client) -> None:
    told = client(
        _BEGIN
        + """
made = create("init", initialization_actions=actions("good", "python")).result(timeout=60)
told += [made.status.state.name, said("gs://init/made")]
base = f"gs://{made.config.config_bucket}/google-cloud-dataproc-metainfo/{made.cluster_uuid}/init-m"
for number in (0, 1):
    told += [said(f"{base}/dataproc-initialization-script-{number}_output").split(",")[0].strip()]
told += [refused(create, "none", initialization_actions=actions("none"))]
told += [refused(create, "none", initialization_actions=[{"executable_file": "/tmp/x"}])]
"""
    )
    assert told == [
        *("RUNNING", "by an action", "good", "python"),
        *("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ]


def test_an_action_that_fails_leaves_a_cluster_in_error_until_it_is_deleted(
    client: Client,
) -> None:
    told = client(
        _BEGIN
        + """
operation = create("fails", initialization_actions=actions("bad", "good"))
told += [refused(operation.result, timeout=60), operation.operation.error.message]
cluster = got("fails")
told += [cluster.status.state.name, cluster.status.detail == told[1]]
where_it_is = told.pop(1).partition("see output in: ")
told += [where_it_is[0], said(where_it_is[2])]
told += ["fails" in [c.cluster_name for c in clusters.list_clusters(where)]]
told += [refused(create, "fails")]
job = {"placement": {"cluster_name": "fails"},
       "pyspark_job": {"main_python_file_uri": "gs://init/x.py"}}
told += [refused(jobs.submit_job, {**where, "job": job})]
clusters.delete_cluster({**where, "cluster_name": "fails"}).result(timeout=60)
told += [refused(got, "fails")]
"""
    )
    assert told == [
        *("INVALID_ARGUMENT", "ERROR", True),
        *("Initialization action failed. Failed action 'gs://init/bad', ", "bad\n", True),
        *("ALREADY_EXISTS", "FAILED_PRECONDITION", "NOT_FOUND"),
    ]


def test_an_action_that_takes_too_long_is_ended(client: Client, clouds: Clouds) -> None:
    client(_BEGIN + 'create("slow", initialization_actions=actions("slow", seconds=900))')
    until(lambda: _actions(clouds), "the action runs")
    clouds.control.jump(800)
    told = client(
        _BEGIN
        + """
create("other").result(timeout=60)
told += [got("slow").status.state.name]
"""
    )
    assert told == ["CREATING"]
    assert _actions(clouds)
    clouds.control.jump(200)
    until(lambda: not _actions(clouds), "the action is ended")
    told = client(
        _BEGIN
        + """
deadline = time.monotonic() + 20
while got("slow").status.state.name == "CREATING":
    assert time.monotonic() < deadline
told += [got("slow").status.state.name, got("slow").status.detail.split(",")[0]]
"""
    )
    assert told == ["ERROR", "Initialization action timed out. Failed action 'gs://init/slow'"]


def test_a_cluster_that_is_deleted_ends_its_actions(client: Client, clouds: Clouds) -> None:
    client(_BEGIN + 'create("gone", initialization_actions=actions("slow"))')
    until(lambda: _actions(clouds), "the action runs")
    client(_BEGIN + 'clusters.delete_cluster({**where, "cluster_name": "gone"}).result(timeout=60)')
    until(lambda: not _actions(clouds), "the action is ended")


def _actions(clouds: Clouds) -> list[str]:
    """The processes of actions of these clouds, by their words."""
    mark = f"{clouds.emulators['gcp'].place.folder}/drivers/cluster-".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if mark in words:
            found.append(words.replace(b"\0", b" ").decode())
    return found


def test_what_dataproc_does_not_know_is_refused(client: Client) -> None:
    told = client(
        _BEGIN
        + """
def why(**config):
    try:
        create("refused", **config)
    except exceptions.InvalidArgument as error:
        return error.message
    return ""
told += [why(master_config={"machine_type_uri": "n1-standard-5"})]
told += [why(worker_config={"num_instances": 2, "machine_type_uri": "e2-micro"}) != ""]
told += [why(software_config={"image_version": "9.9"})]
told += [why(software_config={"image_version": "2.2-debian9"}) != ""]
told += [why(software_config={"properties": {"executor.memory": "1g"}}) != ""]
told += [why(software_config={"properties": {"sparks:spark.a": "b"}}) != ""]
told += [why(gce_cluster_config={"network_uri": "default", "subnetwork_uri": "default"}) != ""]
told += [why(lifecycle_config={"auto_delete_ttl": {"seconds": 60}}) != ""]
told += [why(worker_config={"num_instances": 1}) != ""]
def bad_name(name):
    return refused(create, name)
told += [[bad_name(name) for name in ("1x", "x-", "x" * 52, "X", "x_y")]]
account = "portaflow@portaflow-local.iam.gserviceaccount.com"
where_it_is = {"zone_uri": "us-central1-b", "subnetwork_uri": "default",
               "service_account": account, "metadata": {"k": "v"}, "tags": ["t"]}
machine = ("https://www.googleapis.com/compute/v1/projects/portaflow-local/zones/us-central1-b/"
           "machineTypes/n2-highmem-4")
made = create(
    "x" * 51, gce_cluster_config=where_it_is,
    master_config={"machine_type_uri": machine}, software_config={
        "image_version": "2.2.14-debian12",
        "properties": {"spark:spark.a": "b", "dataproc:dataproc.logging.stackdriver.enable": "x"}},
    worker_config={"num_instances": 2, "machine_type_uri": "custom-6-23040"},
    secondary_worker_config={"num_instances": 3, "preemptibility": "SPOT"}).result(timeout=60)
config = made.config
told += [config.gce_cluster_config.service_account == account, config.master_config.instance_names]
told[-1] = list(told[-1])
more = config.secondary_worker_config
told += [more.machine_type_uri, more.is_preemptible, more.preemptibility.name]
told += [len(more.instance_names)]
told += [refused(clusters.list_clusters, {**where, "region": "us-central9"})]
told += [refused(batches.list_batches, parent=f"{parent}-a")]
batch = {"pyspark_batch": {"main_python_file_uri": "gs://init/x.py"}}
for wrong in ({"version": "0.9"}, {"properties": {"executor.memory": "1g"}}):
    told += [refused(batches.create_batch, parent=parent, batch_id="wrong",
                     batch={**batch, "runtime_config": wrong})]
"""
    )
    assert told == [
        "Machine type with name 'n1-standard-5' does not exist in zone '(auto)'.",
        *(True, "Image version '9.9' is not supported.", *[True] * 6),
        ["INVALID_ARGUMENT"] * 5,
        *(True, [f"{'x' * 51}-m"], "custom-6-23040", True, "SPOT", 3),
        *("UNIMPLEMENTED", "UNIMPLEMENTED"),
        *("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ]


def test_autoscaling_policies_are_kept_and_named_by_clusters(client: Client) -> None:
    told = client(
        _BEGIN
        + """
policies = dataproc.AutoscalingPolicyServiceClient(client_options=options)
regional = f"projects/portaflow-local/regions/{REGION}"
def policy(name, **more):
    yarn = {"graceful_decommission_timeout": {"seconds": 600}, "scale_up_factor": 0.5,
            "scale_down_factor": 1.0}
    yarn |= more.pop("yarn", {})
    return {"id": name, "basic_algorithm": {"yarn_config": yarn},
            "worker_config": {"max_instances": 10}, **more}
made = policies.create_autoscaling_policy(parent=regional, policy=policy("small"))
told += [made.name == f"{regional}/autoscalingPolicies/small", made.worker_config.min_instances]
told += [made.basic_algorithm.cooldown_period.seconds]
def wrong(name="wrong", **more):
    return refused(policies.create_autoscaling_policy, parent=regional, policy=policy(name, **more))
told += [wrong("small"), wrong("x"), wrong(worker_config={}), wrong(yarn={"scale_up_factor": 2.0})]
told += [wrong(worker_config={"max_instances": 1})]
told += [wrong(basic_algorithm={}), wrong(labels={"A": "b"})]
changed = policies.update_autoscaling_policy(policy={
    **policy("small", worker_config={"max_instances": 20}), "name": made.name})
told += [changed.worker_config.max_instances]
told += [[p.id for p in policies.list_autoscaling_policies(parent=parent)]]
told += [refused(create, "by-none", autoscaling_config={"policy_uri": made.name + "s"})]
elsewhere = made.name.replace(REGION, "europe-west1")
told += [refused(create, "by-other", autoscaling_config={"policy_uri": elsewhere})]
named = {"policy_uri": made.name.replace("regions", "locations")}
cluster = create("by-policy", autoscaling_config=named).result(timeout=60)
told += [cluster.config.autoscaling_config.policy_uri == made.name]
told += [refused(policies.delete_autoscaling_policy, name=made.name)]
clusters.delete_cluster({**where, "cluster_name": "by-policy"}).result(timeout=60)
policies.delete_autoscaling_policy(name=made.name)
told += [refused(policies.get_autoscaling_policy, name=made.name)]
"""
    )
    invalid = "INVALID_ARGUMENT"
    assert told == [
        *(True, 2, 120, "ALREADY_EXISTS", *[invalid] * 6, 20, ["small"], "NOT_FOUND", invalid),
        *(True, "FAILED_PRECONDITION", "NOT_FOUND"),
    ]
