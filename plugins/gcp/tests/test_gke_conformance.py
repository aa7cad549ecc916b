"""The suite that any backend must pass, on the local GKE: its checks of containers and plugins."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from uuid import uuid4

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_gcp.gke import Config, Gke

from tests.suite import outcomes

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
    env = {k: v for k, v in os.environ.items() if not k.startswith("PORTAFLOW_")}
    seen = outcomes(
        tmp_path, "gke", "gke", "container", "--shortest-ttl", "2", "-k", "not store",
        "--known-failures", "known.toml", env={**env, "PORTAFLOW_SECRET_CONFORMANCE": SECRET},
    )  # fmt: skip
    known = seen.pop("container.resources_honoured")
    assert (known, set(seen.values())) == ("known", {"passed"})
