"""The suite that any backend must pass, on the local GKE: its checks of containers and plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from uuid import uuid4

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.manifest import MANIFEST
from portaflow_gcp.gke import Config, Gke

TARGET = """
[targets.gke]
store = {{backend = "folder"}}
[targets.gke.container]
backend = "gke"
cluster = "portaflow"
location = "{location}"
namespace = "{namespace}"
"""
KNOWN = """
[["container.resources_honoured"]]
reason = "the stand-in looks at a container's memory now and then, instead of giving it a cgroup"
issue = "docs/local-clouds.md, Known deviations"
expires = 2027-06-30
"""
SECRET = "not-to-be-seen-3b7e"


@pytest.mark.timeout(600)
def test_the_gke_backend_conforms(cloud: Clouds, tmp_path: Path) -> None:
    location, namespace = cloud.env["CLOUDSDK_COMPUTE_REGION"], f"t-{uuid4().hex[:8]}"
    api = Gke(Config(cluster="portaflow", location=location, namespace=namespace)).api
    api.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    data = {"value": b64encode(SECRET.encode()).decode()}
    secret = {"metadata": {"name": "conformance"}, "data": data}
    api.call("POST", f"/api/v1/namespaces/{namespace}/secrets", secret)
    text = TARGET.format(location=location, namespace=namespace)
    (tmp_path / "portaflow.toml").write_text(text)
    (tmp_path / "known.toml").write_text(KNOWN)
    command = [
        sys.executable, "-m", "pytest", "-p", "portaflow_conformance", "-p", "no:cacheprovider",
        "--target", "gke", "--target-kind", "emulator", "--level", "L1", "--shortest-ttl", "2",
        "--report", "reports", "--known-failures", "known.toml", "-k", "not store",
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PORTAFLOW_", "PYTEST_"))}
    env["PORTAFLOW_SECRET_CONFORMANCE"] = SECRET
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    partial = 6  # nothing failed, but something was left out
    assert done.returncode == partial, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    mine = {r["id"]: r["outcome"] for r in report["results"] if r["backend"] == "gke"}
    ours = [c for c in MANIFEST if c.area in ("plugin", "container") and not c.planned]
    assert mine.keys() >= {c.id for c in ours if c.level in ("L0", "L1")}
    known = mine.pop("container.resources_honoured")
    assert (known, set(mine.values())) == ("known", {"passed"})
