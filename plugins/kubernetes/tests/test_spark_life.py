"""Spark jobs on the cluster: executors that come, are lost and go; ends in words."""

from __future__ import annotations

import time
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_kubernetes.api import Api
from portaflow_kubernetes.manifest import NAME
from portaflow_kubernetes.spark import Config, SparkDriver, SparkKubernetes

from portaflow.backend import Cause, Handle, JobSpec, Size, State, Status

from .field import prepare

JOB = """
import os, sys, time
from pyspark.sql import SparkSession

def told(seconds):
    time.sleep(seconds)
    return seen()

def seen():
    return [os.environ[name] for name in ("PLAIN", "HIDDEN", "AWS_SECRET_ACCESS_KEY")]

spark = SparkSession.builder.getOrCreate()
print("asking", flush=True)
found = spark.sparkContext.parallelize([float(sys.argv[1])] * 2, 2).map(told).collect()
print("right:", found == [seen()] * 2, seen()[0], flush=True)
spark.stop()
"""
Pods = list[dict[str, Any]]


class Place:
    """A namespace that was prepared for Spark, with the job in it."""

    def __init__(self, clouds: Clouds, namespace: str) -> None:
        self.emulator: Any = clouds.emulators["kubernetes"]
        self.api: Api = prepare(clouds, namespace)
        self._core = f"/api/v1/namespaces/{namespace}"
        for kind, name, data in (
            ("configmaps", "jobs", {"job.py": JOB}),
            ("secrets", "keys", {"value": b64encode(b"hidden").decode()}),
            ("secrets", "bucket-keys", {"AWS_SECRET_ACCESS_KEY": b64encode(b"shut").decode()}),
        ):
            self.api.call(
                "POST", f"{self._core}/{kind}", {"metadata": {"name": name}, "data": data}
            )
        mount = {"name": "jobs", "mountPath": "/jobs"}
        volume = {"name": "jobs", "configMap": {"name": "jobs"}}
        keys = {"secretRef": {"name": "bucket-keys"}}
        box = {"name": "main", "volumeMounts": [mount], "envFrom": [keys]}
        pod = {"volumes": [volume], "containers": [box]}
        self.config = Config(
            kubeconfig=Path(self.emulator.kubeconfig), namespace=namespace, executors=1,
            driver_memory=1.0, pod_template={"spec": pod},
            conf={"spark.executor.memory": "480m"},
        )  # fmt: skip
        self.number = 0

    def driver(self, **changes: Any) -> SparkDriver:
        return SparkKubernetes(replace(self.config, **changes)).jobs

    def start(
        self, seconds: str, driver: SparkDriver | None = None, secret: str = "keys"
    ) -> Handle:
        self.number += 1
        secrets = {"HIDDEN": secret} if secret else {}
        spec = JobSpec(
            main="/jobs/job.py", args=(seconds,), owner="o-1", ttl=600, grace=5,
            env={"PLAIN": "$(HOME) 'x'"}, secrets=secrets, size=Size(memory=1.0),
        )  # fmt: skip
        driver = driver or self.driver()
        return driver.start(driver.request(f"pf-life-{self.number}-1", spec))

    def pods(self, **query: str) -> Pods:
        return list(self.api.list(f"{self._core}/pods", **query))

    def executors(self, handle: Handle) -> Pods:
        """Those that a job's driver has made, whatever became of them."""
        [of] = self.pods(labelSelector=f"{NAME}={handle.name}")
        uid = of["metadata"]["uid"]
        executors = self.pods(labelSelector="spark-role=executor")
        return [p for p in executors if p["metadata"]["ownerReferences"][0]["uid"] == uid]

    def at_work(self, handle: Handle) -> Pods:
        """Executors that have a task, as far as their log tells."""
        return [p for p in self.executors(handle) if b"Running task" in self._log(p)]

    def _log(self, pod: dict[str, Any]) -> bytes:
        if pod["status"]["phase"] != "Running":
            return b""
        where = f"{self._core}/pods/{pod['metadata']['name']}/log"
        with self.api.stream(where, 20) as answer:
            data: bytes = answer.read()
        return data

    def delete(self, pod: dict[str, Any]) -> None:
        self.api.call("DELETE", f"{self._core}/pods/{pod['metadata']['name']}")


@pytest.fixture(scope="module")
def place(clouds: Clouds) -> Place:
    return Place(clouds, "spark-life")


def until(truth: Any, seconds: float = 240.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := truth()):
        assert time.monotonic() < deadline, f"not after {seconds} s"
        time.sleep(0.1)
    return value


def status(driver: SparkDriver, handle: Handle) -> Status:
    seen = driver.poll([handle])[handle.name]
    assert isinstance(seen, Status), seen
    return seen


def ended(driver: SparkDriver, handle: Handle) -> Status:
    return until(lambda: (s := status(driver, handle)).state.final and s)


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_a_job_goes_on_without_an_executor_that_was_lost(place: Place) -> None:
    driver = place.driver()
    handle = place.start("3")
    [first] = until(lambda: place.at_work(handle))
    box = first["spec"]["containers"][0]
    limits = box["resources"]["limits"]
    assert (limits["cpu"], limits["memory"]) == ("1000m", "864Mi")
    assert first["spec"]["activeDeadlineSeconds"] == 600
    assert first["spec"]["serviceAccountName"] == "spark"
    assert list(driver.owned("o-1")) == [handle]
    place.delete(first)
    seen = ended(driver, handle)
    log = driver.logs(handle).data
    assert seen.state is State.SUCCEEDED, log[-2000:]
    assert b"right: True $(HOME) 'x'\n" in log
    until(lambda: not place.executors(handle))


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_executors_go_when_their_driver_is_stopped_or_taken_away(place: Place) -> None:
    driver = place.driver()
    stopped, taken = place.start("500"), place.start("500")
    until(lambda: place.at_work(stopped) and place.at_work(taken))
    driver.stop(stopped)
    [pod] = place.pods(labelSelector=f"{NAME}={taken.name}")
    place.emulator.evict(place.api.namespace, pod["metadata"]["name"])
    assert ended(driver, stopped).state is State.STOPPED
    seen = ended(driver, taken)
    assert (seen.state, seen.cause) == (State.FAILED, Cause.INFRA)
    for handle in (stopped, taken):
        until(lambda handle=handle: not [  # type: ignore[misc]
            p for p in place.executors(handle) if p["status"]["phase"] in ("Pending", "Running")
        ])  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "cause", "words"),
    [
        ({"image": "registry.invalid/spark:1"}, Cause.USER, "image"),
        ({"service_account": "nobody"}, Cause.DENIED, "nobody"),
    ],
)
def test_a_driver_that_can_never_start_is_ended_and_told(
    place: Place, changes: dict[str, str], cause: Cause, words: str
) -> None:
    driver = place.driver(**changes)
    seen = ended(driver, place.start("0", driver))
    assert (seen.state, seen.cause) == (State.FAILED, cause)
    assert words in seen.reason


def test_a_driver_without_a_place_waits_and_says_so(place: Place) -> None:
    driver = place.driver(driver_cpu=100_000.0)
    handle = place.start("0", driver)
    seen = until(lambda: (s := status(driver, handle)).reason and s)
    assert (seen.state, seen.cause) == (State.PENDING, Cause.CAPACITY)
    driver.stop(handle)
    assert ended(driver, handle).state is State.STOPPED


def test_a_driver_without_executors_is_told_in_words_and_not_in_stack_traces(place: Place) -> None:
    says = r"printf 'Exception: too many\n\tat org.x.Y(Z.scala:1)\n\t... 3 more\n'; exit 11"
    box = {"name": "main", "image": "busybox", "command": ["sh", "-c", says]}
    driver = place.driver(pod_template={"spec": {"containers": [box]}})
    seen = ended(driver, place.start("0", driver, secret=""))
    assert (seen.state, seen.cause, seen.exit_code) == (State.FAILED, Cause.USER, 11)
    code, cause, words = seen.reason.splitlines()
    assert (code, cause) == ("exit code 11", "Exception: too many")
    assert "deleteOnTermination" in words
