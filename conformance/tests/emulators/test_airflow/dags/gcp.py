"""Dataproc: a cluster with jobs, batches without one, of which each succeeds or fails."""

import os
from datetime import datetime

from airflow.providers.google.cloud.hooks.gcs import GCSHook
from airflow.providers.google.cloud.operators.dataproc import (
    DataprocCreateBatchOperator,
    DataprocCreateClusterOperator,
    DataprocDeleteClusterOperator,
    DataprocSubmitJobOperator,
)
from airflow.providers.google.cloud.operators.gcs import GCSCreateBucketOperator
from airflow.sdk import DAG, task

PLACE = {"project_id": os.environ["GOOGLE_CLOUD_PROJECT"], "region": "europe-west1"}
WAIT = {"deferrable": os.environ["DEFERRABLE"] == "1", "polling_interval_seconds": 1}
JOB = "import sys; print('exits with', sys.argv[1]); sys.exit(int(sys.argv[1]))"


@task
def upload() -> None:
    GCSHook().upload("data", "job.py", data=JOB)


@task(trigger_rule="all_done")
def said() -> list[str]:
    """What jobs and batches printed, from where Dataproc keeps it."""
    store = GCSHook()
    names = [name for name in store.list("data") if "driveroutput" in name]
    return [store.download("data", name).decode() for name in names]


def cluster(name: str) -> DataprocCreateClusterOperator:
    return DataprocCreateClusterOperator(
        task_id=name,
        cluster_name=name,
        **PLACE,
        cluster_config={"config_bucket": "data"},
        **WAIT,
    )


def work(code: int) -> dict:
    return {"main_python_file_uri": "gs://data/job.py", "args": [str(code)]}


def job(name: str, code: int) -> DataprocSubmitJobOperator:
    placed = {"placement": {"cluster_name": "cluster"}, "pyspark_job": work(code)}
    return DataprocSubmitJobOperator(task_id=name, job=placed, **PLACE, **WAIT)


def batch(name: str, code: int) -> DataprocCreateBatchOperator:
    place = {"execution_config": {"staging_bucket": "data"}}
    return DataprocCreateBatchOperator(
        task_id=name,
        batch_id=name,
        batch={"pyspark_batch": work(code), "environment_config": place},
        **PLACE,
        **WAIT,
    )


with DAG("gcp", start_date=datetime(2026, 1, 1), schedule=None) as dag:
    bucket = GCSCreateBucketOperator(task_id="bucket", bucket_name="data")
    create = cluster("cluster")
    delete = DataprocDeleteClusterOperator(
        task_id="delete", cluster_name="cluster", **PLACE, trigger_rule="all_done", **WAIT
    )
    ready = upload()
    jobs = [job("good-job", 0), job("bad-job", 3)]
    batches = [batch("good-batch", 0), batch("bad-batch", 4)]
    bucket >> ready >> create >> jobs >> delete
    ready >> batches
    [delete, *batches] >> said() >> cluster("cluster-that-fails")
