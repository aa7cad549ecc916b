"""GKE: containers run on the cluster that GCP names, by tokens that do not grow old."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault
from portaflow_gcp import gke
from portaflow_gcp.gke import Config, Gke, SparkConfig, SparkGke, Token

from portaflow.backend import ContainerSpec, JobSpec, State
from portaflow.errors import DeniedError, NotFoundError, RejectedError, UnavailableError

from .field import REGION, wait

SPEC = ContainerSpec(image="busybox", command=("sh", "-c"), owner="o-gke", ttl=60)


@pytest.fixture
def backend(cloud: Clouds) -> Gke:
    one = Gke(
        Config(cluster="portaflow", location=location(cloud), namespace=f"t-{uuid4().hex[:8]}")
    )
    one.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": one.api.namespace}})
    return one


def location(cloud: Clouds) -> str:
    return cloud.env["CLOUDSDK_COMPUTE_REGION"]


def test_a_container_runs_on_the_cluster_that_gcp_names(backend: Gke, cloud: Clouds) -> None:
    driver, before = backend.containers, cloud.control.count("gcp:container.GetCluster")
    request = driver.request("pf-gke-1", replace(SPEC, args=("echo hello",)))
    handle = driver.start(request)
    assert Gke(backend.config).containers.find("pf-gke-1") == handle
    assert wait(driver, handle).state is State.SUCCEEDED
    deadline = time.monotonic() + 30
    while not (data := driver.logs(handle).data):
        assert time.monotonic() < deadline
    assert data == b"hello\n"
    assert cloud.control.count("gcp:container.GetCluster") == before + 1


def test_a_token_is_made_anew_before_it_is_too_old(backend: Gke) -> None:
    settings = backend.api._connected().client.configuration
    first = settings.api_key["authorization"]
    assert list(backend.containers.owned()) == []
    assert settings.api_key["authorization"] == first
    credentials = gke.connect(backend.config).credentials
    credentials.expiry -= (credentials.expiry - gke_now()) * 0.98  # about a minute is left
    assert list(backend.containers.owned()) == []
    assert settings.api_key["authorization"] not in (first, "Bearer None")


def gke_now() -> Any:
    from google.auth import _helpers

    return _helpers.utcnow()


def test_who_is_not_known_is_told(backend: Gke, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Token, settings: Any) -> None:
        settings.api_key["authorization"] = "Bearer ya29.wrong"

    monkeypatch.setattr(Token, "__call__", wrong)
    with pytest.raises(DeniedError, match="does not know who we are"):
        list(Gke(backend.config).containers.owned())


def test_a_cluster_that_is_not_there_is_named(cloud: Clouds) -> None:
    other = Gke(Config(cluster="nonesuch", location=REGION))
    with pytest.raises(RejectedError, match=rf"no cluster 'nonesuch' in {REGION}.*`location`"):
        other.containers.find("pf-x")
    found = list(other.check())
    assert [f.ok for f in found] == [True, False]
    assert "correct `cluster`" in found[1].fix


def test_a_cluster_that_is_being_made_is_waited_for(
    backend: Gke, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = SimpleNamespace(endpoint="", status=SimpleNamespace(name="PROVISIONING"))
    monkeypatch.setattr(gke, "describe", lambda gcp, location, name: new)
    with pytest.raises(UnavailableError, match="PROVISIONING"):
        Gke(backend.config).containers.find("pf-x")


@pytest.mark.parametrize(
    ("effect", "error"), [("throttle", UnavailableError), ("deny", DeniedError)]
)
def test_a_call_that_is_refused_is_told(
    cloud: Clouds, backend: Gke, effect: Any, error: type[Exception]
) -> None:
    cloud.control.order(Fault(effect=effect, operation="gcp:container.GetCluster"))
    other = Gke(backend.config).containers
    with pytest.raises(error):
        other.find("pf-x")
    assert other.find("pf-x") is None


def test_what_was_never_started_is_not_found(backend: Gke) -> None:
    driver = backend.containers
    handle = driver.start(driver.request("pf-gke-2", replace(SPEC, args=("true",))))
    lost = replace(handle, name="pf-x", id="pf-x")
    assert isinstance(driver.poll([lost])["pf-x"], NotFoundError)
    wait(driver, handle)


def test_the_doctor_looks_at_the_account_and_the_cluster(backend: Gke) -> None:
    found = {f.what: f for f in backend.check()}
    assert all(f.ok for f in found.values()), found
    assert found["cluster of GKE"].detail == "portaflow: RUNNING"
    assert "may create jobs" in found


def test_spark_is_that_of_kubernetes_with_the_identity_of_its_pods(backend: Gke) -> None:
    """That it reads GCS so is in tests/clouds_together/test_pairs.py."""
    space = backend.api.namespace
    where = {"cluster": "portaflow", "location": backend.config.location}
    config = SparkConfig(**where, namespace=space)
    assert (config.service_account, config.run_as_user) == ("spark", 185)
    spark = SparkGke(config)
    assert (spark.clusters, spark.cloud) == (None, "")
    request = spark.jobs.request("pf-x-1", JobSpec(main="gs://b/main.py"))
    assert "spark.hadoop.fs.gs.auth.type=APPLICATION_DEFAULT" in str(request)
    assert spark.jobs.find("pf-x-1") is None
    role = {"iam.gke.io/gcp-service-account": "data@p.iam.gserviceaccount.com"}
    where = f"/api/v1/namespaces/{space}/serviceaccounts"
    backend.api.call("POST", where, {"metadata": {"name": "spark", "annotations": role}})
    found = {f.what: f for f in spark.check()}
    assert "data@p.iam" in found["service account spark"].detail
    assert not found["service account spark may make pods"].ok


def test_no_token_is_seen(backend: Gke) -> None:
    backend.api.call("GET", "/version")
    gcp = gke.connect(backend.config)
    shown = repr((backend, backend.config, backend.containers, gcp, Token(gcp)))
    assert not re.search(r"ya29|Bearer", shown)


def test_no_sdk_is_imported_before_it_is_used() -> None:
    code = (
        "import portaflow_gcp.gke, sys; print({'google.auth', 'kubernetes'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
