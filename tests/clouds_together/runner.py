"""Engines, as many as are asked for, and a client of the clouds, in one process.

Reads orders, a JSON object a line, and answers each with a line, in the order of their ends:

    {"verb": "run" | "resume" | "force", "target", "pipeline", "run", "params", "sets"}
    {"verb": "put", "uri", "text" or "path"}
    {"verb": "secret", "name", "text"}      in AWS's Secrets Manager
    {"verb": "alive"}       what lives on any cloud, as the clouds' own clients see it
    {"verb": "kept"}        the Jobs of Kubernetes that are there, ended or not

Each engine has a thread, as in a process of its own it would be the main one.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REGION = "europe-west1"


def conduct(order: dict[str, Any]) -> dict[str, Any]:
    """Run, or go on with, a run to its end; what it left, if it ended well."""
    from portaflow.load import load
    from portaflow.plan import Run
    from portaflow.session import Session
    from portaflow.target import load_target

    config, sets = HERE / "portaflow.toml", order.get("sets", ())
    session = Session(load_target(order["target"], file=config, sets=sets))
    if order["verb"] == "run":
        project = load(HERE / "pipelines" / f"{order['pipeline']}.py")
        engine = session.start(project, Run(id=order["run"], params=order["params"]))
    else:
        ref = session.find(f"{order['pipeline']}/{order['run']}")
        engine = session.resume(ref, force=order["verb"] == "force")
    state = engine.run()
    tasks = [action for action in engine.plan.actions if action.outputs]
    return {
        "succeeded": state.succeeded,
        "reasons": [mine.reason for mine in state.of.values() if mine.reason],
        "names": [action.name for action in engine.plan.actions if action.request],
        "attempts": [state[task.id].attempt for task in tasks],
        "results": [state[task.id].value for task in tasks],
        "outputs": [
            _text(session.fs_at(uri), uri) for task in tasks for uri in task.outputs.values()
        ],
        "logs": [_log(session.driver(task), state[task.id].handle) for task in tasks],
    }


def _text(fs: Any, uri: str) -> str:
    """All files of an output, one after the other."""
    return b"".join(map(fs.cat_file, fs.find(uri))).decode(errors="replace")


def _log(driver: Any, handle: Any) -> str:
    data, cursor, end = b"", "", False
    while not end:
        chunk = driver.logs(handle, cursor)
        data, cursor, end = data + chunk.data, chunk.cursor, chunk.end
    return data.decode(errors="replace")


def put(uri: str, data: bytes) -> None:
    import obstore
    from obstore.store import from_url

    root, _, key = uri.partition("://")[2].partition("/")
    obstore.put(from_url(f"{uri.partition('://')[0]}://{root}"), key, data)


def secret(name: str, text: str) -> None:
    import boto3

    boto3.client("secretsmanager").create_secret(Name=name, SecretString=text)


def alive() -> list[str]:
    """All that may cost money, on each cloud that runs here."""
    found = [*_on_kubernetes()]
    if "AWS_REGION" in os.environ:
        found += _on_aws()
    if "GOOGLE_CLOUD_PROJECT" in os.environ:
        found += _on_gcp()
    return found


def _on_aws() -> Iterator[str]:
    import boto3

    emr, serverless = boto3.client("emr"), boto3.client("emr-serverless")
    for page in emr.get_paginator("list_clusters").paginate():
        for cluster in page["Clusters"]:
            if not cluster["Status"]["State"].startswith("TERMINATED"):
                yield f"cluster {cluster['Name']}"
                for step in emr.list_steps(ClusterId=cluster["Id"])["Steps"]:
                    if step["Status"]["State"] in ("PENDING", "CANCEL_PENDING", "RUNNING"):
                        yield f"step {step['Name']}"
    for application in serverless.list_applications()["applications"]:
        for run in serverless.list_job_runs(applicationId=application["id"])["jobRuns"]:
            if run["state"] not in ("SUCCESS", "FAILED", "CANCELLED"):
                yield f"job run {run['name']}"


def _on_gcp() -> Iterator[str]:
    from google.cloud import dataproc_v1 as dataproc

    project = os.environ["GOOGLE_CLOUD_PROJECT"]
    options = {"api_endpoint": f"{REGION}-dataproc.googleapis.com:443"}
    place = {"project_id": project, "region": REGION}
    for cluster in dataproc.ClusterControllerClient(client_options=options).list_clusters(place):
        yield f"cluster {cluster.cluster_name}"
    active = {**place, "job_state_matcher": "ACTIVE"}
    for job in dataproc.JobControllerClient(client_options=options).list_jobs(active):
        yield f"job {job.reference.job_id}"
    where = {"parent": f"projects/{project}/locations/{REGION}"}
    for batch in dataproc.BatchControllerClient(client_options=options).list_batches(where):
        if batch.state.name in ("PENDING", "RUNNING", "CANCELLING"):
            yield f"batch {batch.name}"


def _on_kubernetes() -> Iterator[str]:
    from kubernetes import client

    for job in _jobs():
        if not any(c.type in ("Complete", "Failed") for c in job.status.conditions or ()):
            yield f"Job {job.metadata.name}"
    for pod in client.CoreV1Api().list_pod_for_all_namespaces().items:
        if pod.status.phase in ("Pending", "Running"):
            yield f"pod {pod.metadata.name}"


def _jobs() -> list[Any]:
    from kubernetes import client, config

    config.load_kube_config()
    return list(client.BatchV1Api().list_job_for_all_namespaces().items)


def _answer(order: dict[str, Any]) -> None:
    try:
        match order["verb"]:
            case "put":
                path, text = order.get("path"), order.get("text", "")
                data = Path(path).read_bytes() if path else text.encode()
                answer: Any = put(order["uri"], data)
            case "secret":
                answer = secret(order["name"], order["text"])
            case "alive":
                answer = alive()
            case "kept":
                answer = [job.metadata.name for job in _jobs()]
            case _:
                answer = conduct(order)
        told = {"answer": answer}
    except BaseException as error:
        traceback.print_exc()
        told = {"error": f"{type(error).__name__}: {error}"}
    with _saying:
        print(json.dumps({**order, **told}), flush=True)


_saying = threading.Lock()


def main() -> None:
    for line in sys.stdin:
        threading.Thread(target=_answer, args=(json.loads(line),)).start()


if __name__ == "__main__":
    main()
