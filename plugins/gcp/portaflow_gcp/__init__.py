"""Backends of GCP."""

from __future__ import annotations

from collections.abc import Iterable

from portaflow.hookspecs import BackendSpec, hookimpl


@hookimpl
def portaflow_backends() -> Iterable[BackendSpec]:
    return (
        BackendSpec("dataproc", "compute", "portaflow_gcp.dataproc:Dataproc"),
        BackendSpec("dataproc-serverless", "compute", "portaflow_gcp.batch:DataprocServerless"),
        BackendSpec("gcs", "store", "portaflow_gcp.gcs:Gcs"),
        BackendSpec("gke", "container", "portaflow_gcp.gke:Gke"),
        BackendSpec("spark-gke", "compute", "portaflow_gcp.gke:SparkGke"),
    )
