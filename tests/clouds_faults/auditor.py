"""Tells, for each line that it reads, what is alive: as each driver's `owned` says, and as the
clouds themselves say by their own clients, of which portaflow knows nothing.

Answers with a line of JSON: {"owned": [...], "alive": [...], "made": [...]}; `made` is what was
ever made and is remembered.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import google.auth
from google.cloud import dataproc_v1
from kubernetes import client, config  # type: ignore[import-untyped]

from portaflow.session import Session
from portaflow.target import load_target

Thing = tuple[str, bool]  # its name, and whether it is alive
REGION = "europe-west1"


class Aws:
    def __init__(self) -> None:
        self._emr = boto3.client("emr")
        self._serverless = boto3.client("emr-serverless")

    def clusters(self) -> Iterator[Thing]:
        for cluster in self._emr.get_paginator("list_clusters").paginate().search("Clusters"):
            alive = not cluster["Status"]["State"].startswith("TERMINATED")
            yield f"emr {cluster['Name']}", alive
            if alive:
                for step in self._emr.list_steps(ClusterId=cluster["Id"])["Steps"]:
                    yield f"step {step['Name']}", step["Status"]["State"] in ("PENDING", "RUNNING")

    def runs(self) -> Iterator[Thing]:
        ended = ("SUCCESS", "FAILED", "CANCELLED")
        for one in self._serverless.list_applications()["applications"]:
            pages = self._serverless.get_paginator("list_job_runs").paginate(
                applicationId=one["id"]
            )
            for run in pages.search("jobRuns"):
                yield f"run {run['name']}", run["state"] not in ended


class Gcp:
    def __init__(self) -> None:
        options = {"api_endpoint": f"{REGION}-dataproc.googleapis.com:443"}
        self._clusters = dataproc_v1.ClusterControllerClient(client_options=options)
        self._jobs = dataproc_v1.JobControllerClient(client_options=options)
        self._batches = dataproc_v1.BatchControllerClient(client_options=options)
        project = google.auth.default()[1]
        self._where = {"project_id": project, "region": REGION}
        self._parent = {"parent": f"projects/{project}/locations/{REGION}"}

    def clusters(self) -> Iterator[Thing]:
        for cluster in self._clusters.list_clusters(request=self._where):
            yield f"dataproc {cluster.cluster_name}", True

    def jobs(self) -> Iterator[Thing]:
        for job in self._jobs.list_jobs(request=self._where):
            ended = job.status.state.name in ("DONE", "ERROR", "CANCELLED")
            yield f"job {job.reference.job_id}", not ended

    def batches(self) -> Iterator[Thing]:
        for batch in self._batches.list_batches(request=self._parent):
            ended = batch.state.name in ("SUCCEEDED", "FAILED", "CANCELLED")
            yield f"batch {batch.name.rpartition('/')[2]}", not ended


class Pods:
    def __init__(self) -> None:
        config.load_kube_config()

    def pods(self) -> Iterator[Thing]:
        for job in client.BatchV1Api().list_job_for_all_namespaces().items:
            yield f"Job {job.metadata.name}", bool(job.status.active)
        for pod in client.CoreV1Api().list_pod_for_all_namespaces().items:
            yield f"pod {pod.metadata.name}", pod.status.phase in ("Pending", "Running")


def owned(session: Session) -> Iterator[str]:
    backends, target = session.backends, session.target
    drivers: list[Any] = [backends.container.containers] if target.container else []
    if target.compute:
        compute = backends.compute
        drivers += filter(None, (compute.jobs, compute.clusters))
    for driver in drivers:
        yield from (handle.name for handle in driver.owned(""))


def main() -> None:
    file = Path(sys.argv[1])
    sessions = {name: Session(load_target(name, file=file)) for name in sys.argv[2:]}
    aws, gcp, pods = Aws(), Gcp(), Pods()
    looks: dict[str, tuple[Callable[[], Iterator[Thing]], ...]] = {
        "emr": (aws.clusters,),
        "serverless": (aws.runs,),
        "dataproc": (gcp.clusters, gcp.jobs),
        "batches": (gcp.batches,),
    }
    for line in sys.stdin:
        name = line.strip()
        things = [thing for look in looks.get(name, (pods.pods,)) for thing in look()]
        answer: dict[str, Any] = {
            "owned": list(owned(sessions[name])),
            "alive": [thing for thing, alive in things if alive],
            "made": [thing for thing, _ in things],
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
