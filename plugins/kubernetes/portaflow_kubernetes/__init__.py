"""Backends of any Kubernetes."""

from __future__ import annotations

from collections.abc import Iterable

from portaflow.hookspecs import BackendSpec, hookimpl


@hookimpl
def portaflow_backends() -> Iterable[BackendSpec]:
    return (
        BackendSpec("kubernetes", "container", "portaflow_kubernetes.containers:Kubernetes"),
        BackendSpec("spark-kubernetes", "compute", "portaflow_kubernetes.spark:SparkKubernetes"),
    )
