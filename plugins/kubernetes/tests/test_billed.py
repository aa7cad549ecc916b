"""What pods ask for, as a plan tells it to a team that has prices for cores and memory."""

from __future__ import annotations

from typing import Any

import pytest
from portaflow_kubernetes import billed
from portaflow_kubernetes.containers import Config as ContainerConfig
from portaflow_kubernetes.containers import Kubernetes
from portaflow_kubernetes.spark import Config, SparkKubernetes

from portaflow.backend import ContainerSpec, Driver, JobSpec, Size

SIZE = Size(cpu=0.5, memory=2, gpu=1)
SIDECAR = {
    "spec": {"containers": [{"name": "s", "resources": {"limits": {"cpu": "1", "memory": "1G"}}}]}
}


def told(driver: Driver[Any], spec: Any) -> dict[str, float] | None:
    found = driver.machines(driver.request("pf-x", spec))
    return None if found is None else {m.type: m.most for m in found if m.least == m.most}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", 0.5), ("2", 2), (3, 3), (".5", 0.5), ("1Ki", 1024), ("1k", 1000),
        ("1e3", 1000), ("1E", 1e18), ("2Gi", 2**31), ("1.5M", 1.5e6),
        ("", None), ("Gi", None), ("1 Gi", None), ("-1", None), ("1KI", None), ("a", None),
    ],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_reads_them(text: Any, number: float | None) -> None:
    assert billed.quantity(text) == number


def test_a_container_asks_for_what_its_task_asks_for() -> None:
    driver = Kubernetes(ContainerConfig()).containers
    asked = told(driver, ContainerSpec(owner="o", image="i", size=SIZE))
    assert asked == {"core": 0.5, "GiB": 2, "nvidia.com/gpu": 1}


def test_what_the_target_adds_to_a_pod_is_asked_for_too() -> None:
    driver = Kubernetes(ContainerConfig(pod_template=SIDECAR)).containers
    asked = told(driver, ContainerSpec(owner="o", image="i", size=Size(cpu=0.5, memory=2)))
    assert asked == {"core": 1.5, "GiB": round(2 + 1e9 / 2**30, 3)}


def test_a_spark_job_asks_for_its_driver_and_its_executors() -> None:
    driver = SparkKubernetes(Config(executors=3, driver_cpu=1, driver_memory=2)).jobs
    spec = JobSpec(owner="o", main="j.py", size=Size(cpu=2, memory=4, gpu=1))
    assert told(driver, spec) == {"core": 1 + 3 * 2, "GiB": 2 + 3 * 4, "nvidia.com/gpu": 3}


def test_what_a_spark_job_says_itself_counts() -> None:
    conf = {
        "spark.executor.instances": "4",
        "spark.executor.memory": "3g",
        "spark.executor.memoryOverhead": "1024",
    }
    spec = JobSpec(owner="o", main="j.py", size=Size(cpu=1, memory=2), conf=conf)
    assert told(SparkKubernetes(Config()).jobs, spec) == {"core": 5, "GiB": 2 + 4 * 4}


@pytest.mark.parametrize(
    "conf",
    [
        {"spark.dynamicAllocation.enabled": "true"},
        {"spark.executor.instances": "many"},
        {"spark.executor.memory": "3 g"},
    ],
)
def test_what_cannot_be_told_is_unknown(conf: dict[str, str]) -> None:
    spec = JobSpec(owner="o", main="j.py", conf=conf)
    assert told(SparkKubernetes(Config()).jobs, spec) is None
