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
