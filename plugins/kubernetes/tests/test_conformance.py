"""The suite that any backend must pass, on the stand-in's pods."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.manifest import MANIFEST

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
    command = [
        sys.executable, "-m", "pytest", "-p", "portaflow_conformance", "-p", "no:cacheprovider",
        "--target", "pods", "--target-kind", "emulator", "--level", "L1", "--shortest-ttl", "2",
        "--report", "reports", "--known-failures", "known.toml",
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PORTAFLOW_", "PYTEST_"))}
    env["PORTAFLOW_SECRET_CONFORMANCE"] = SECRET
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 6, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    mine = {r["id"]: r["outcome"] for r in report["results"] if r["backend"] == "kubernetes"}
    ours = [c for c in MANIFEST if c.area in ("plugin", "container") and not c.planned]
    assert mine.keys() >= {c.id for c in ours if c.level in ("L0", "L1")}
    known = mine.pop("container.resources_honoured")
    assert (known, set(mine.values())) == ("known", {"passed"})
    assert report["verdict"] == "partial"


@pytest.mark.spark
@pytest.mark.timeout(900)
def test_spark_on_kubernetes_conforms(tmp_path: Path) -> None:
    (tmp_path / "portaflow.toml").write_text(SPARK)
    command = [
        sys.executable, "-m", "pytest", "-p", "portaflow_conformance", "-p", "no:cacheprovider",
        "--target", "spark", "--target-kind", "emulator", "--level", "L1", "--shortest-ttl", "5",
        "--report", "reports", "-k", "not store",
    ]  # fmt: skip
    with emulate("aws", "kubernetes", pace=0.02, buckets=["conformance"]) as clouds:
        prepare(clouds, "spark")
        env = {k: v for k, v in clouds.environ().items() if not k.startswith("PYTEST_")}
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 6, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    mine = {r["id"]: r["outcome"] for r in report["results"] if r["backend"] == "spark-kubernetes"}
    ours = [c for c in MANIFEST if c.area in ("plugin", "spark") and not c.planned]
    assert mine.keys() >= {c.id for c in ours if c.level in ("L0", "L1")}
    assert set(mine.values()) == {"passed"}
