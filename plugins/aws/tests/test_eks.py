"""EKS: containers run on the cluster that AWS names, by tokens that do not grow old."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from portaflow_aws import eks
from portaflow_aws.connect import Access, connect
from portaflow_aws.eks import Config, Eks, SparkConfig, SparkEks, Token
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

from portaflow.backend import ContainerSpec, JobSpec, State
from portaflow.errors import DeniedError, RejectedError, UnavailableError
from tests.suite import outcomes

from .field import wait

SPARK = """
[targets.spark-eks]
store = {backend = "s3", root = "s3://conformance-eks/x"}

[targets.spark-eks.compute]
backend = "spark-eks"
cluster = "portaflow"
executors = 1
driver_memory = 1.0
conf = {"spark.executor.memory" = "512m"}

[targets.spark-eks.compute.pod_template.spec]
volumes = [{name = "token", configMap = {name = "token"}}]

[[targets.spark-eks.compute.pod_template.spec.containers]]
name = "main"
volumeMounts = [{name = "token", mountPath = "/token"}]
env = [
  {name = "AWS_ACCESS_KEY_ID", value = ""},
  {name = "AWS_SECRET_ACCESS_KEY", value = ""},
  {name = "AWS_ROLE_ARN", value = "arn:aws:iam::123456789012:role/data"},
  {name = "AWS_WEB_IDENTITY_TOKEN_FILE", value = "/token/token"},
]
"""
SPEC = ContainerSpec(image="busybox", command=("sh", "-c"), owner="o-eks", ttl=60)


@pytest.fixture
def backend(clouds: Clouds) -> Eks:
    one = Eks(Config(cluster="portaflow", namespace=f"t-{uuid4().hex[:8]}"))
    one.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": one.api.namespace}})
    return one


def test_a_container_runs_on_the_cluster_that_aws_names(
    backend: Eks, clouds: Clouds, until: Callable[..., Any]
) -> None:
    driver = backend.containers
    request = driver.request("pf-eks-1", replace(SPEC, args=("echo hello",)))
    handle = driver.start(request)
    assert Eks(backend.config).containers.find("pf-eks-1") == handle
    assert wait(driver, handle).state is State.SUCCEEDED
    assert until(lambda: driver.logs(handle).data) == b"hello\n"
    assert clouds.control.count("aws:eks.DescribeCluster") >= 2


def test_a_token_is_made_anew_before_it_is_too_old(
    backend: Eks, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = backend.api._connected().client.configuration
    first = settings.api_key["authorization"]
    assert first.startswith("Bearer k8s-aws-v1.")
    assert list(backend.containers.owned()) == []
    assert settings.api_key["authorization"] == first
    now = eks.time.monotonic()
    monkeypatch.setattr(eks.time, "monotonic", lambda: now + 14 * 60 + 1)
    monkeypatch.setattr(Token, "_made", lambda self: "k8s-aws-v1.another")
    with pytest.raises(DeniedError):
        list(backend.containers.owned())
    assert settings.api_key["authorization"] == "Bearer k8s-aws-v1.another"


def test_who_is_not_known_is_told(clouds: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Token, "_made", lambda self: "k8s-aws-v1.bm8")
    with pytest.raises(DeniedError, match="does not know who we are"):
        list(Eks(Config(cluster="portaflow")).containers.owned())


def test_a_cluster_that_is_not_there_is_named(clouds: Clouds) -> None:
    other = Eks(Config(cluster="nonesuch"))
    with pytest.raises(RejectedError, match=r"no cluster 'nonesuch' in us-east-1.*`cluster`"):
        other.containers.find("pf-x")
    found = list(other.check())
    assert [f.ok for f in found] == [True, False]
    assert "correct `cluster` or `region`" in found[1].fix


def test_a_cluster_that_is_being_made_is_waited_for(
    backend: Eks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eks, "describe", lambda aws, name: {"status": "CREATING"})
    with pytest.raises(UnavailableError, match="CREATING"):
        Eks(backend.config).containers.find("pf-x")


def test_a_call_that_is_throttled_may_be_made_again(clouds: Clouds, backend: Eks) -> None:
    clouds.control.order(Fault(effect="throttle", operation="aws:eks.DescribeCluster"))
    other = Eks(backend.config).containers
    with pytest.raises(UnavailableError):
        other.find("pf-x")
    assert other.find("pf-x") is None


def test_the_doctor_looks_at_the_account_and_the_cluster(backend: Eks) -> None:
    found = {f.what: f for f in backend.check()}
    assert all(f.ok for f in found.values()), found
    assert found["cluster of EKS"].detail == "portaflow: ACTIVE"
    assert "may create jobs" in found


def test_spark_is_that_of_kubernetes_with_the_identity_of_its_pods(backend: Eks) -> None:
    config = SparkConfig(cluster="portaflow", conf={"spark.a": "b"})
    assert (config.service_account, config.run_as_user) == ("spark", 185)
    spark = SparkEks(config)
    assert (spark.clusters, spark.cloud) == (None, "")
    request = spark.jobs.request("pf-x-1", JobSpec(main="s3://b/main.py", conf={"spark.c": "d"}))
    words = request["spec"]["template"]["spec"]["containers"][0]["args"]
    said = dict(w.split("=", 1) for b, w in pairwise(words) if b == "--conf")
    keys = "spark.hadoop.fs.s3a.aws.credentials.provider"
    assert "WebIdentityTokenFileCredentialsProvider," in said[keys]
    assert (said["spark.a"], said["spark.c"]) == ("b", "d")
    mine = SparkEks(SparkConfig(cluster="portaflow", conf={keys: "own"}))
    assert f"{keys}=own" in str(mine.jobs.request("pf-x-1", JobSpec(main="s3://b/main.py")))
    role = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/data"}
    where = f"/api/v1/namespaces/{backend.api.namespace}/serviceaccounts"
    backend.api.call("POST", where, {"metadata": {"name": "spark", "annotations": role}})
    found = {f.what: f for f in SparkEks(replace(config, namespace=backend.api.namespace)).check()}
    assert "role/data" in found["service account spark"].detail
    assert not found["service account spark may make pods"].ok


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_a_job_of_spark_reads_s3_as_its_account(clouds: Clouds, tmp_path: Path) -> None:
    """Part of the suite that spark-kubernetes passes as a whole, by keys that STS gives pods.

    The template says what EKS puts into the pods of an account that has a role.
    """
    connect(Access()).client("s3").create_bucket(Bucket="conformance-eks")
    token = {"metadata": {"name": "token"}, "data": {"token": "e30.e30.e30"}}
    api = Eks(Config(cluster="portaflow", namespace="default")).api
    api.call("POST", "/api/v1/namespaces/default/configmaps", token)
    (tmp_path / "portaflow.toml").write_text(SPARK)
    some = "plugin or dependencies_shipped or env_reaches"
    mine = outcomes(tmp_path, "spark-eks", "spark-eks", "spark", "-k", some)
    assert mine["spark.dependencies_shipped"] == "passed"
    assert set(mine.values()) == {"passed", "not run"}
    assert clouds.control.count("aws:sts.AssumeRoleWithWebIdentity") >= 2  # driver and executor


def test_no_token_is_seen(backend: Eks) -> None:
    backend.api.call("GET", "/version")
    shown = repr((backend, backend.config, backend.containers, Token(connect(Access()), "x")))
    assert not re.search(r"k8s-aws-v1|Bearer", shown)


def test_no_sdk_is_imported_before_it_is_used() -> None:
    code = "import portaflow_aws.eks, sys; print({'boto3', 'kubernetes'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
