"""Pipelines to plan, backends that say a request and nothing else: what tests of plans stand on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from portaflow import CallTask, Cluster, ContainerTask, Pipeline, Size, Source, SparkTask
from portaflow.backend import (
    SUPPORTED,
    Capability,
    ClusterSpec,
    ComputeCluster,
    ContainerRun,
    ContainerSpec,
    Driver,
    Handle,
    JobSpec,
    LogChunk,
    ObjectStore,
    Request,
    SpecT,
    Status,
    Support,
)
from portaflow.errors import NotFoundError
from portaflow.plan import Image, Local, LocalFile, Plan, Run, merged, source_key
from portaflow.planner import plan
from portaflow.plugins import Backends
from portaflow.target import Target

RUN = Run(id="2026-01-02", logical_date=datetime(2026, 1, 2, tzinfo=UTC))


class Plain(Driver[SpecT]):
    """Says a spec as it is. Everything else is an error: a plan does none of it."""

    def request(self, name: str, spec: SpecT, parent: str = "") -> Request:
        body = {k: v for k, v in asdict(spec).items() if v and k != "overrides"}
        return json.loads(json.dumps({"name": name, "parent": parent, **body}))  # type: ignore[no-any-return]

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        raise AssertionError("a plan finds nothing")

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        raise AssertionError("a plan starts nothing")

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        raise AssertionError("a plan polls nothing")

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        raise AssertionError("a plan reads no log")

    def stop(self, handle: Handle) -> None:
        raise AssertionError("a plan stops nothing")

    def owned(self, owner: str = "") -> Iterable[Handle]:
        raise AssertionError("a plan lists nothing")


class Bucket(ObjectStore):
    name = "bucket"

    def url(self, key: str) -> str:
        return f"mem://bucket/{key}"

    def filesystem(self) -> Any:
        raise AssertionError("a plan opens no filesystem")

    def spark_conf(self, cloud: str = "") -> Mapping[str, str]:
        return {"spark.store": "bucket"}

    def container_env(self) -> Mapping[str, str]:
        return {"STORE": "bucket"}


class Compute(ComputeCluster):
    name = "plain-compute"
    capabilities = dict.fromkeys(Capability, SUPPORTED)
    cluster_driver: Driver[ClusterSpec] | None = Plain()
    job_driver: Driver[JobSpec] = Plain()

    @property
    def clusters(self) -> Driver[ClusterSpec] | None:
        return self.cluster_driver

    @property
    def jobs(self) -> Driver[JobSpec]:
        return self.job_driver


class Serverless(Compute):
    name = "serverless"
    cluster_driver = None


class Poor(Compute):
    name = "poor"
    capabilities = {Capability.SPOT: Support(False, "there is no spot market here")}


class Containers(ContainerRun):
    name = "plain-containers"
    capabilities = dict.fromkeys(Capability, SUPPORTED)
    driver: Driver[ContainerSpec] = Plain()

    @property
    def containers(self) -> Driver[ContainerSpec]:
        return self.driver


class PoorContainers(Containers):
    name = "poor-containers"
    capabilities = {}


class Fakes(Backends):
    """A target's backends, given as objects."""

    def __init__(self, target: Target, compute: Any = None, container: Any = None) -> None:
        super().__init__(target)
        self._given = {
            "store": Bucket(None),
            "compute": compute or Compute(None),
            "container": container or Containers(None),
        }

    def _open(self, kind: str, binding: Any) -> Any:
        return self._given[kind]


BARE = {name: {"backend": "x"} for name in ("store", "compute", "container")}


def target(**settings: Any) -> Target:
    return Target.model_validate({"name": "fake", **merged(BARE, settings)})


def planned(
    pipeline: Pipeline, where: Target | None = None, compute: Any = None, container: Any = None,
    local: Local | None = None, run: Run = RUN,
) -> Plan:  # fmt: skip
    where = where or target()
    return plan(pipeline, where, run, Fakes(where, compute, container), local or files(pipeline))


def files(pipeline: Pipeline) -> Local:
    """What `collect` would find, without a file."""
    digest = "ab" * 32
    found = {
        path: LocalFile(f"/home/{path}", Path(path).name, digest, 7)
        for task in pipeline.tasks
        if isinstance(task, SparkTask)
        for path in (task.main, *task.py_files, *task.jars)
        if "://" not in path
    }
    for name, source in pipeline.sources.items():
        if source.path:
            key = source_key(name)
            found[key] = LocalFile(f"/home/{source.path}", Path(source.path).name, digest, 9)
    images = {
        task.image: Image(task.image, f"/home/images/{task.image}", "cd" * 32)
        for task in pipeline.tasks
        if isinstance(task, ContainerTask) and task.image == "train"
    }
    return Local(found, images)


def spark(id: str, cluster: str = "c", **rest: Any) -> SparkTask:
    return SparkTask(id=id, main=rest.pop("main", "job.py"), cluster=cluster, **rest)


def container(id: str, **rest: Any) -> ContainerTask:
    return ContainerTask(id=id, image="x", command=("run",), **rest)


def pipeline(*tasks: Any, **rest: Any) -> Pipeline:
    if any(isinstance(t, SparkTask) and t.cluster for t in tasks):
        rest.setdefault("clusters", (Cluster(name="c"),))
    return Pipeline(name="p", tasks=tasks, **rest)


HYBRID = Pipeline(
    name="recommendations",
    params={"scale": 1},
    sources={"events": Source(package="pyspark", path="data/sample.txt")},
    clusters=(Cluster(name="spark", workers=2, size=Size(cpu=2, memory="4Gi"), ttl="4h"),),
    tasks=(
        SparkTask(
            id="features",
            main="jobs/features.py",
            py_files=("jobs/value.py",),
            cluster="spark",
            inputs={"events": "events"},
            outputs=("ratings",),
            args=("--events", "{{ inputs.events }}", "--scale", "{{ params.scale }}"),
            conf={"spark.sql.shuffle.partitions": "4"},
        ),
        ContainerTask(
            id="train",
            image="train",
            inputs={"ratings": "features.ratings"},
            outputs=("factors",),
            command=("python", "train.py", "{{ inputs.ratings }}", "{{ outputs.factors }}"),
            secrets={"TOKEN": "registry-token"},
            retries=1,
        ),
        SparkTask(
            id="recommend",
            main="jobs/recommend.py",
            cluster="spark",
            inputs={"factors": "train.factors"},
            outputs=("top",),
            args=("{{ inputs.factors }}", "{{ outputs.top }}", "{{ ds }}"),
        ),
        CallTask(
            id="tell", function="notify:done", after=("recommend",), kwargs={"day": "{{ ds }}"}
        ),
    ),
)
SPARK_ONLY = Pipeline(
    name="spark-only",
    clusters=(Cluster(name="big", workers=(1, 8), spot=True), Cluster(name="old", attach="mine")),
    tasks=(
        SparkTask(
            id="a", main="s3://code/a.jar", main_class="com.A", cluster="big", outputs=("o",)
        ),
        SparkTask(id="b", main="b.py", cluster="old", inputs={"o": "a.o"}),
        SparkTask(id="c", main="b.py", packages=("org:lib:1",)),
    ),
)
CONTAINER_ONLY = Pipeline(
    name="container-only",
    sources={"raw": Source(uri="s3://raw/{{ ds }}/")},
    tasks=(
        ContainerTask(
            id="clean",
            image="ghcr.io/shop/clean:1",
            command=("clean",),
            inputs={"raw": "raw"},
            outputs=("rows",),
            size=Size(cpu=2, gpu=1),
        ),
        ContainerTask(
            id="count",
            image="ghcr.io/shop/count:1",
            command=("count",),
            inputs={"rows": "clean.rows"},
            env={"DAY": "{{ ds }}"},
        ),
    ),
)
