"""The suite that any backend must pass, on the stand-in's pods."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path

import pytest
from portaflow_conformance.emulators.clouds import emulate

from tests.suite import outcomes

from .field import Field, prepare

TARGET = """
[targets.pods]
store = {{backend = "folder"}}
container = {{backend = "kubernetes", kubeconfig = "{kubeconfig}", namespace = "{namespace}"}}
"""
SPARK = """
[targets.spark]
store = {backend = "s3", root = "s3://conformance/x"}

[targets.spark.compute]
backend = "spark-kubernetes"
namespace = "spark"
executors = 1
driver_memory = 1.0
conf = {"spark.executor.memory" = "512m"}
"""
KNOWN = """
[["container.resources_honoured"]]
reason = "the stand-in looks at a container's memory now and then, instead of giving it a cgroup"
issue = "docs/local-clouds.md, Known deviations"
expires = 2027-06-30
"""
SECRET = "not-to-be-seen-9f41"


@pytest.mark.timeout(600)
def test_the_kubernetes_backend_conforms(field: Field, tmp_path: Path) -> None:
    data = {"value": b64encode(SECRET.encode()).decode()}
    field.make(
        f"namespaces/{field.namespace}/secrets",
        {"metadata": {"name": "conformance"}, "data": data},
    )
    text = TARGET.format(kubeconfig=field.emulator.kubeconfig, namespace=field.namespace)
    (tmp_path / "portaflow.toml").write_text(text)
    (tmp_path / "known.toml").write_text(KNOWN)
    env = {k: v for k, v in os.environ.items() if not k.startswith("PORTAFLOW_")}
    seen = outcomes(
        tmp_path, "pods", "kubernetes", "container", "--shortest-ttl", "2",
        "--known-failures", "known.toml", env={**env, "PORTAFLOW_SECRET_CONFORMANCE": SECRET},
    )  # fmt: skip
    known = seen.pop("container.resources_honoured")
    assert (known, set(seen.values())) == ("known", {"passed"})


@pytest.mark.spark
@pytest.mark.timeout(900)
def test_spark_on_kubernetes_conforms(tmp_path: Path) -> None:
    (tmp_path / "portaflow.toml").write_text(SPARK)
    with emulate("aws", "kubernetes", pace=0.02, buckets=["conformance"]) as clouds:
        prepare(clouds, "spark")
        seen = outcomes(
            tmp_path, "spark", "spark-kubernetes", "spark", "--shortest-ttl", "5", "-k",
            "not store", env=clouds.environ(),
        )  # fmt: skip
    assert set(seen.values()) == {"passed"}
