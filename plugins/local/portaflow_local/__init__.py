"""Backends that run on this machine."""

from __future__ import annotations

from collections.abc import Iterable

from portaflow.hookspecs import BackendSpec, hookimpl


@hookimpl
def portaflow_backends() -> Iterable[BackendSpec]:
    return (
        BackendSpec("folder", "store", "portaflow_local.folder:Folder"),
        BackendSpec("process", "container", "portaflow_local.process:Processes"),
        BackendSpec("docker", "container", "portaflow_local.docker:Docker"),
        BackendSpec("spark-local", "compute", "portaflow_local.spark:LocalSpark"),
    )
