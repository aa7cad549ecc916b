"""A client of local clouds that runs no engine: says what each cloud itself knows.

Reads orders, a JSON object a line, and answers each with a line:

    {"verb": "keys", "name"}            keys of AWS for a while, which calls are told by
    {"verb": "things", "names"}         what has one of these names: [kind, name, whether it lives]
    {"verb": "objects", "uri"}          the objects below a URI: name -> text, of what is JSON, or
                                        is named part
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

REGION = "europe-west1"
Thing = tuple[str, str, bool]


def keys(name: str) -> dict[str, str]:
    import boto3  # type: ignore[import-untyped]

    role = "arn:aws:iam::123456789012:role/engine"
    made = boto3.client("sts").assume_role(RoleArn=role, RoleSessionName=name)["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": made["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": made["SecretAccessKey"],
        "AWS_SESSION_TOKEN": made["SessionToken"],
    }


def things(names: list[str]) -> list[Thing]:
    found = list(_on_kubernetes())
    if "AWS_REGION" in os.environ:
        found += _on_aws(names)
    if "GOOGLE_CLOUD_PROJECT" in os.environ:
        found += _on_gcp()
    return [thing for thing in found if thing[1] in names]


def _on_aws(names: list[str]) -> Iterator[Thing]:
    import boto3

    emr = boto3.client("emr")
    for page in emr.get_paginator("list_clusters").paginate():
        for cluster in (c for c in page["Clusters"] if c["Name"] in names):
            over = cluster["Status"]["State"].startswith("TERMINATED")
            yield "cluster", cluster["Name"], not over
            for step in emr.list_steps(ClusterId=cluster["Id"])["Steps"]:
                state = step["Status"]["State"]
                yield "job", step["Name"], state in ("PENDING", "CANCEL_PENDING", "RUNNING")


def _on_gcp() -> Iterator[Thing]:
    from google.cloud import dataproc_v1 as dataproc

    options = {"api_endpoint": f"{REGION}-dataproc.googleapis.com:443"}
    place = {"project_id": os.environ["GOOGLE_CLOUD_PROJECT"], "region": REGION}
    for cluster in dataproc.ClusterControllerClient(client_options=options).list_clusters(place):
        yield "cluster", cluster.cluster_name, True
    for job in dataproc.JobControllerClient(client_options=options).list_jobs(place):
        state = job.status.state.name
        yield "job", job.reference.job_id, state not in ("DONE", "ERROR", "CANCELLED")


def _on_kubernetes() -> Iterator[Thing]:
    from kubernetes import client, config

    config.load_kube_config()
    for job in client.BatchV1Api().list_job_for_all_namespaces().items:
        over = any(c.type in ("Complete", "Failed") for c in job.status.conditions or ())
        yield "Job", job.metadata.name, not over
    for pod in client.CoreV1Api().list_pod_for_all_namespaces().items:
        labels, lives = pod.metadata.labels or {}, pod.status.phase in ("Pending", "Running")
        if labels.get("spark-role") == "executor":  # it is its driver's pod's
            owners = pod.metadata.owner_references or ()
            yield from (("executor", one.name.rpartition("-")[0], lives) for one in owners)
        else:
            yield "pod", labels.get("batch.kubernetes.io/job-name", pod.metadata.name), lives


def objects(uri: str) -> dict[str, str]:
    import obstore
    from obstore.store import from_url

    root, _, prefix = uri.partition("://")[2].partition("/")
    store = from_url(f"{uri.partition('://')[0]}://{root}")
    names = [one["path"] for some in obstore.list(store, prefix) for one in some]
    told = [name for name in names if name.endswith((".json", "/part"))]
    texts = {name: bytes(obstore.get(store, name).bytes()).decode() for name in told}
    return {name.removeprefix(f"{prefix}/"): texts.get(name, "") for name in names}


def main() -> None:
    verbs: dict[str, Any] = {"keys": keys, "things": things, "objects": objects}
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(verbs[order.pop("verb")](**order)), flush=True)


if __name__ == "__main__":
    main()
