"""Spark jobs on the cluster: executors that come, are lost and go; ends in words."""

from __future__ import annotations

import time
from base64 import b64encode
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_kubernetes import verdict
from portaflow_kubernetes.api import Api
from portaflow_kubernetes.doctor import MAKING
from portaflow_kubernetes.manifest import KIND, NAME
from portaflow_kubernetes.spark import Config, SparkDriver, SparkKubernetes

from portaflow.backend import Cause, Handle, JobSpec, Size, State, Status

from .field import prepare

JOB = """
import os, sys, time
from pyspark import SparkFiles
from pyspark.sql import SparkSession

def told(seconds):
    time.sleep(seconds)
    return seen()

def seen():
    jars = [name for name in os.listdir(SparkFiles.getRootDirectory()) if "thing" in name]
    names = ("PLAIN", "HIDDEN", "AWS_SECRET_ACCESS_KEY")
    return [*(os.environ[name] for name in names), *jars]

spark = SparkSession.builder.getOrCreate()
print("asking", flush=True)
found = spark.sparkContext.parallelize([float(sys.argv[1])] * 2, 2).map(told).collect()
print("right:", found == [seen()] * 2, *seen()[::3], flush=True)
spark.stop()
"""
POM = """<project><modelVersion>4.0.0</modelVersion><groupId>org.example</groupId>
<artifactId>thing</artifactId><version>1.0</version></project>"""
Pods = list[dict[str, Any]]


def jar() -> str:
    """A jar as a ConfigMap holds it."""
    data = BytesIO()
    with ZipFile(data, "w") as made:
        made.writestr("resource", "")
    return b64encode(data.getvalue()).decode()


class Place:
    """A namespace that was prepared for Spark, with the job in it."""

    def __init__(self, clouds: Clouds, namespace: str) -> None:
        self.emulator: Any = clouds.emulators["kubernetes"]
        self.api: Api = prepare(clouds, namespace)
        self._core = f"/api/v1/namespaces/{namespace}"
        files = {"thing.pom": POM, "job.py": JOB}
        shut = b64encode(b"shut").decode()
        for kind, name, data in (
            ("configmaps", "jobs", {"data": files, "binaryData": {"thing.jar": jar()}}),
            ("secrets", "keys", {"data": {"value": b64encode(b"hidden").decode()}}),
            ("secrets", "bucket-keys", {"data": {"AWS_SECRET_ACCESS_KEY": shut}}),
        ):
            self.api.call("POST", f"{self._core}/{kind}", {"metadata": {"name": name}, **data})
        mount = {"name": "jobs", "mountPath": "/jobs"}
        maven = "maven/org/example/thing/1.0/thing-1.0"
        items = [
            {"key": "job.py", "path": "job.py"},
            *({"key": f"thing.{end}", "path": f"{maven}.{end}"} for end in ("pom", "jar")),
        ]
        volume = {"name": "jobs", "configMap": {"name": "jobs", "items": items}}
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
        self, seconds: str, driver: SparkDriver | None = None, secret: str = "keys", **more: Any
    ) -> Handle:
        self.number += 1
        secrets = {"HIDDEN": secret} if secret else {}
        spec = JobSpec(
            main="/jobs/job.py", args=(seconds,), owner="o-1", ttl=600, grace=5,
            env={"PLAIN": "$(HOME) 'x'"}, secrets=secrets, size=Size(memory=1.0),
        )  # fmt: skip
        driver = driver or self.driver()
        request = driver.request(f"pf-life-{self.number}-1", replace(spec, **more))
        return driver.start(request)

    @property
    def pods_of(self) -> str:
        return f"{self._core}/pods"

    def pods(self, **query: str) -> Pods:
        return list(self.api.list(self.pods_of, **query))

    def executors(self, handle: Handle) -> Pods:
        """Those that a job's driver has made, whatever became of them."""
        [of] = self.pods(labelSelector=f"{KIND}=job,{NAME}={handle.name}")
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
    maven = {"spark.jars.repositories": "file:///jobs/maven"}
    handle = place.start("3", packages=("org.example:thing:1.0",), conf=maven)
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
    assert b"right: True $(HOME) 'x' org.example_thing-1.0.jar\n" in log
    until(lambda: not place.executors(handle))


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_executors_go_when_their_driver_is_stopped_or_taken_away(place: Place) -> None:
    driver = place.driver()
    stopped, taken = place.start("500"), place.start("500")
    until(lambda: place.at_work(stopped) and place.at_work(taken))
    driver.stop(stopped)
    [pod] = place.pods(labelSelector=f"{KIND}=job,{NAME}={taken.name}")
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


def test_executors_that_wait_beside_others_are_told_and_few_calls_ask_for_them(
    place: Place, clouds: Clouds
) -> None:
    box = {"name": "main", "image": "busybox", "command": ["sh", "-c", "sleep 300"]}
    driver = place.driver(pod_template={"spec": {"containers": [box]}})
    handle = place.start("0", driver, secret="", grace=1)

    def make(name: str, cpu: str) -> dict[str, Any]:
        """An executor, as far as its labels say."""
        labels = {"spark-role": "executor", NAME: handle.name}
        asks = {**box, "resources": {"requests": {"cpu": cpu}}}
        meta = {"name": name, "labels": labels}
        spec = {"containers": [asks], "terminationGracePeriodSeconds": 0}
        return place.api.call("POST", place.pods_of, {"metadata": meta, "spec": spec})

    def seen() -> tuple[Status, int]:
        """What is told, and in how many calls."""
        before = clouds.control.count("kubernetes:*")
        return status(driver, handle), clouds.control.count("kubernetes:*") - before

    one = make("one", "100m")
    until(lambda: seen() == (verdict.RUNNING, 2))
    two = make("two", "100000")
    until(lambda: "executor two: no node takes it" in seen()[0].reason)
    until(lambda: (seen()[0].state, seen()[1]) == (State.RUNNING, 2))  # one works by now
    place.delete(one)
    until(lambda: (s := seen()[0]).state is State.PENDING and s.cause is Cause.CAPACITY)
    place.delete(two)
    until(lambda: seen()[0] == verdict.RUNNING)
    driver.stop(handle)
    assert ended(driver, handle).state is State.STOPPED


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_a_job_that_gets_no_executors_says_why(
    place: Place, clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdict, "_SETTLING", 0.2)
    full, weak = Place(clouds, "spark-full"), Place(clouds, "spark-weak")
    small = {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}}
    full.api.call("POST", "/api/v1/namespaces/spark-full/resourcequotas", small)
    role = "/apis/rbac.authorization.k8s.io/v1/namespaces/spark-weak/roles/spark"
    verbs = [verb for verb in MAKING if verb != "create"]
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]
    weak.api.call("PATCH", role, {"rules": rules})
    jobs = [
        (place.driver(), place.start("500", size=Size(cpu=100_000, memory=1.0))),
        (full.driver(), full.start("500")),
        (weak.driver(), weak.start("500")),
    ]
    quota, node = "exceeded quota: small", "0/1 nodes are available: 1 Insufficient cpu."
    for words, (driver, handle) in ((quota, jobs[1]), (node, jobs[0])):
        seen = until(lambda d=driver, h=handle, w=words: w in (s := status(d, h)).reason and s)
        assert (seen.state, seen.cause) == (State.PENDING, Cause.CAPACITY)
    driver.stop(handle)
    assert ended(driver, handle).state is State.STOPPED
    for words, cause, (driver, handle) in (
        ('cannot create resource "pods"', Cause.DENIED, jobs[2]),
        (quota, Cause.CAPACITY, jobs[1]),  # Spark itself gives up, of 4.1 and later
    ):
        seen = ended(driver, handle)
        assert (seen.state, seen.cause) == (State.FAILED, cause)
        assert words in seen.reason
        assert words.encode() in driver.logs(handle).data


def test_a_driver_without_executors_is_told_in_words_and_not_in_stack_traces(place: Place) -> None:
    says = r"printf 'Exception: too many\n\tat org.x.Y(Z.scala:1)\n\t... 3 more\n'; exit 11"
    box = {"name": "main", "image": "busybox", "command": ["sh", "-c", says]}
    driver = place.driver(pod_template={"spec": {"containers": [box]}})
    seen = ended(driver, place.start("0", driver, secret=""))
    assert (seen.state, seen.cause, seen.exit_code) == (State.FAILED, Cause.USER, 11)
    code, cause, words = seen.reason.splitlines()
    assert (code, cause) == ("exit code 11", "Exception: too many")
    assert "deleteOnTermination" in words
