"""Backends of AWS."""

from __future__ import annotations

from collections.abc import Iterable

from portaflow.hookspecs import BackendSpec, hookimpl


@hookimpl
def portaflow_backends() -> Iterable[BackendSpec]:
    return (
        BackendSpec("emr", "compute", "portaflow_aws.emr:Emr"),
        BackendSpec("emr-serverless", "compute", "portaflow_aws.serverless:EmrServerless"),
        BackendSpec("eks", "container", "portaflow_aws.eks:Eks"),
        BackendSpec("spark-eks", "compute", "portaflow_aws.eks:SparkEks"),
        BackendSpec("s3", "store", "portaflow_aws.s3:S3"),
    )
