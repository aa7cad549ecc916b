"""Python that several tests run as clients of the local GCP."""

REFUSED = """
from google.api_core import exceptions
def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except exceptions.GoogleAPICallError as error:
        return error.grpc_status_code.name
    return ""
"""

DATAPROC = """
from google.cloud import dataproc_v1 as dataproc
REGION = "us-central1"
where = {"project_id": "portaflow-local", "region": REGION}
options = {"api_endpoint": f"{REGION}-dataproc.googleapis.com:443"}
clusters = dataproc.ClusterControllerClient(client_options=options)
jobs = dataproc.JobControllerClient(client_options=options)
batches = dataproc.BatchControllerClient(client_options=options)
parent = f"projects/portaflow-local/locations/{REGION}"
"""

WORK = (
    REFUSED
    + DATAPROC
    + """
import asyncio, time
from google.api_core import retry
from portaflow_conformance.emulators.endpoint import RemoteControl
jump = RemoteControl().jump
def create(name, request_id="", labels={}, **config):
    cluster = {"cluster_name": name, "labels": labels, "config": config}
    return clusters.create_cluster({**where, "cluster": cluster, "request_id": request_id})
def state(name):
    return clusters.get_cluster(**where, cluster_name=name).status.state.name
def until(ask, *wanted):
    deadline = time.monotonic() + 60
    while (found := ask()) not in wanted:
        assert time.monotonic() < deadline, found
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

GKE = """
import time
from google.cloud import container_v1
gke = container_v1.ClusterManagerClient()
parent = "projects/portaflow-local/locations/us-central1"
def done(operation):
    name = f"{parent}/operations/{operation.name}"
    while (found := gke.get_operation(name=name)).status.name != "DONE":
        time.sleep(0.02)
    return found
"""
