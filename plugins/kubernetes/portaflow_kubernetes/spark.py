"""Spark on any Kubernetes, by Spark's own way: a job is a driver pod, which makes its executors.

The driver runs in client mode inside a Job of portaflow's, so that a job is found, stopped and
followed as a container is. Its executors are pods that Spark makes and that belong to the
driver's: with it they go. A cluster is nothing of its own.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, ClassVar

from portaflow.backend import (
    SUPPORTED,
    Capability,
    ComputeCluster,
    Finding,
    Fit,
    JobSpec,
    Kind,
    Machines,
    Request,
    Size,
    Status,
    Support,
    Verdict,
)
from portaflow.errors import RejectedError
from portaflow.spark import conf_fit

from . import billed, containers, doctor, manifest, verdict
from .api import Api, Json
from .executors import Executors
from .jobs import JobDriver
from .verdict import End

# Where the API is only the pod knows. Nothing is put into these words: all others are arguments.
_SUBMIT = (
    'printf %s "$PORTAFLOW_EXECUTOR" >/tmp/executor.json && '
    "exec /opt/spark/bin/spark-submit --deploy-mode client "
    '--master "k8s://https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT" '
    '--conf "spark.driver.host=$PORTAFLOW_POD_IP" '
    '--conf "spark.kubernetes.driver.pod.name=$PORTAFLOW_POD_NAME" '
    '--conf "spark.kubernetes.namespace=$PORTAFLOW_POD_NAMESPACE" '
    '--conf spark.kubernetes.executor.podTemplateFile=/tmp/executor.json "$@"'
)
_OURS = {
    "spark.master": "the cluster is that of the pod",
    "spark.submit.deployMode": "the driver is a pod already",
    "spark.driver.host": "it is the pod's own address",
    "spark.kubernetes.driver.pod.name": "it is the pod's own name",
    "spark.kubernetes.namespace": "it is the target's namespace",
    "spark.kubernetes.executor.podTemplateFile": "say it as the target's pod_template",
}
_WORK = "/tmp"  # noqa: S108  of the pod: py_files go there, whatever the image's user may write
# What a driver would else make, or take away, besides pods: it needs rights for these alone.
_NOT_ASKED_FOR = {
    "spark.kubernetes.executor.disableConfigMap": "true",
    "spark.kubernetes.driver.service.deleteOnTermination": "false",
    "spark.kubernetes.driver.ownPersistentVolumeClaim": "false",
    "spark.kubernetes.driver.reusePersistentVolumeClaim": "false",
}
_OVERHEAD, _LEAST = 0.25, 384.0  # of an executor's memory, and MiB: what is no JVM's heap
_PATIENCE = "60000"  # milliseconds for an answer of the API: a driver that gives up is lost
_TOO_OFTEN = 11  # with this code Spark ends, but any program may
_EXECUTORS = (
    "if the job itself has no code 11, its executors have failed too often: with "
    "spark.kubernetes.executor.deleteOnTermination=false their pods stay, and their logs"
)
_HEAP = 480.0  # MiB: with less Spark refuses to start


@dataclass(frozen=True, kw_only=True)
class SparkPods(containers.Pods):
    """`image`: has Spark below /opt/spark and its entrypoint, as those of the Spark project.

    `service_account`: of drivers, which make pods. `conf`: Spark's settings of all jobs.
    """

    image: str = "apache/spark:4.0.1-scala2.13-java17-python3-ubuntu"
    service_account: str = "spark"
    run_as_user: int = 185  # the user of the Spark project's images
    executors: int = 2
    driver_cpu: float = 1.0
    driver_memory: float = 2.0  # GiB
    conf: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Config(SparkPods, containers.Config):
    """Spark's pods, and which cluster they are on."""


class SparkDriver(JobDriver[JobSpec]):
    """Spark jobs, each as a Job whose pod is the driver.

    `conf`: Spark's settings on such a cluster; those of the target and of the job win.
    """

    kind: Kind = "job"

    def __init__(self, api: Api, config: SparkPods, conf: Mapping[str, str]) -> None:
        super().__init__(api)
        self._config, self._conf = config, conf
        self._executors = Executors(api, self.kind, self._waited)

    def request(self, name: str, spec: JobSpec, parent: str = "") -> Request:
        if not spec.main:
            raise RejectedError("a Spark job needs a main: a Python file or a jar")
        config = self._config
        if config.executors < 1:
            raise RejectedError(f"executors = {config.executors}: a job needs at least one")
        size = Size(cpu=config.driver_cpu, memory=config.driver_memory)
        box = manifest.container(config.image, {}, spec.env, spec.secrets, manifest.resources(size))
        box["workingDir"] = _WORK
        box["command"] = ["/bin/sh", "-c", manifest.literal(_SUBMIT), "spark-submit"]
        box["args"] = [manifest.literal(word) for word in self._words(name, spec)]
        box["env"] += [
            _field("PORTAFLOW_POD_IP", "status.podIP"),
            _field("PORTAFLOW_POD_NAME", "metadata.name"),
            _field("PORTAFLOW_POD_NAMESPACE", "metadata.namespace"),
            {"name": "PORTAFLOW_EXECUTOR", "value": manifest.literal(self._executor(name, spec))},
        ]
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": spec.grace,
            "automountServiceAccountToken": True,
            "securityContext": manifest.user(config.run_as_user),
            "containers": [box],
        }
        return containers.job_of(name, self.kind, spec, pod, config)

    def _executor(self, name: str, spec: JobSpec) -> str:
        """The pod of an executor: what Spark's own settings cannot say of it.

        Of its variables they could, but the cluster would expand those, and Python would not.
        """
        gpus = {"limits": {manifest.GPU: str(spec.size.gpu)}} if spec.size.gpu else {}
        box = manifest.container(self._config.image, {}, spec.env, spec.secrets, gpus)
        box["workingDir"] = _WORK
        pod = {
            "activeDeadlineSeconds": spec.ttl,  # also of one whose driver has gone meanwhile
            "automountServiceAccountToken": False,
            "securityContext": manifest.user(self._config.run_as_user),
            "containers": [box],
        }
        template = containers.template_of(pod, self._config)
        labels = {manifest.OWNER: spec.owner, manifest.NAME: name}
        return json.dumps(manifest.merged({"metadata": {"labels": labels}}, template))

    def _words(self, name: str, spec: JobSpec) -> list[str]:
        words = ["--name", name]
        if spec.main_class:
            words += ["--class", spec.main_class]
        listed = (("--packages", spec.packages), ("--jars", spec.jars),
                  ("--py-files", spec.py_files))  # fmt: skip
        for option, values in listed:
            if values:
                words += [option, ",".join(values)]
        for key, value in self._settings(spec).items():
            words += ["--conf", f"{key}={value}"]
        return [*words, spec.main, *spec.args]

    def _settings(self, spec: JobSpec) -> dict[str, str]:
        """Spark's settings; those of the job are the strongest."""
        config, executor = self._config, "spark.kubernetes.executor"
        memory = spec.size.memory * 1024
        return {
            "spark.driver.memory": f"{_heap(config.driver_memory * 1024)}m",
            "spark.executor.instances": str(config.executors),
            "spark.executor.cores": str(max(math.floor(spec.size.cpu), 1)),
            f"{executor}.request.cores": f"{round(spec.size.cpu * 1000)}m",
            f"{executor}.limit.cores": f"{round(spec.size.cpu * 1000)}m",
            "spark.executor.memory": f"{_heap(memory)}m",
            "spark.executor.memoryOverhead": f"{_overhead(memory)}m",
            "spark.kubernetes.container.image": config.image,
            f"{executor}.podTemplateContainerName": manifest.MAIN,
            **_NOT_ASKED_FOR,
            "spark.kubernetes.driver.connectionTimeout": _PATIENCE,
            "spark.kubernetes.driver.requestTimeout": _PATIENCE,
            "spark.jars.ivy": "/tmp/.ivy2",  # noqa: S108  of the pod
            "spark.log.level": "WARN",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            **self._conf,
            **config.conf,
            **spec.conf,
        }

    def _at_work(self, jobs: Mapping[str, Json]) -> Mapping[str, tuple[Status, End | None]]:
        told = self._executors.told(jobs)
        for uid in self._executors.served:
            self._seen.pop(uid, None)
        return told

    def _worded(self, name: str, status: Status) -> Status:
        if status.exit_code != _TOO_OFTEN:
            return status
        if refusal := self._executors.refusal(name):
            return verdict.of_refused(status, refusal)
        return replace(status, reason=f"{status.reason}\n{_EXECUTORS}")

    def machines(self, request: Request) -> Sequence[Machines] | None:
        """Of the driver, and of as many executors as it is told to have."""
        pod = request["spec"]["template"]["spec"]
        box = pod["containers"][0]
        said = (word for before, word in pairwise(box["args"]) if before == "--conf")
        conf = defaultdict(str, (word.split("=", 1) for word in said))
        count = billed.quantity(conf["spark.executor.instances"])
        if count is None or conf["spark.dynamicAllocation.enabled"] == "true":
            return None  # they come and go with the load
        env = {one["name"]: one.get("value", "") for one in box["env"]}
        executor = json.loads(env["PORTAFLOW_EXECUTOR"].replace("$$", "$"))
        each = [
            *billed.of_pod(executor["spec"]),
            {"cpu": conf["spark.kubernetes.executor.request.cores"]},
            {"memory": _quantity(conf["spark.executor.memory"])},
            {"memory": _quantity(conf["spark.executor.memoryOverhead"])},
        ]
        driver = [(one, 1.0) for one in billed.of_pod(pod)]
        return billed.machines([*driver, *((one, count) for one in each)])

    def fit(self, spec: JobSpec) -> Mapping[str, Fit]:
        fits = conf_fit({**self._config.conf, **spec.conf}, _OURS)
        memory = spec.size.memory * 1024
        least = _heap(memory) + _overhead(memory)
        if least > memory:
            text = f"an executor has {least} MiB: with less Spark does not start"
            fits["size.memory"] = Fit(Verdict.APPROXIMATED, text)
        if spec.size.disk != Size().disk:
            fits["size.disk"] = Fit(Verdict.APPROXIMATED, "executors share their node's disk")
        return fits


def _overhead(memory: float) -> int:
    """MiB that are no JVM's heap in a container of so many."""
    return round(max(memory * _OVERHEAD, _LEAST))


def _quantity(memory: str) -> str:
    """A memory in Spark's words, "1664m", in those of Kubernetes; without a unit it is MiB."""
    return f"{memory}Mi" if memory[-1:].isdigit() else f"{memory[:-1]}{memory[-1:].upper()}i"


def _heap(memory: float) -> int:
    return round(max(memory - _overhead(memory), _HEAP))


def _field(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


class SparkKubernetes(containers.OnCluster, ComputeCluster):
    """Runs Spark jobs as pods of the cluster of a kubeconfig."""

    name = "spark-kubernetes"
    conf: ClassVar[Mapping[str, str]] = {}
    Config: ClassVar[type[Any]] = Config
    capabilities = {
        Capability.JAR: SUPPORTED,
        Capability.PACKAGES: SUPPORTED,
        Capability.CONCURRENT_JOBS: SUPPORTED,
        Capability.AUTOSCALE: Support(False, "each job has the executors of the target's settings"),
        Capability.SPOT: Support(False, "nodes are the cluster's: use node_selector, tolerations"),
    }

    def look(self) -> Iterable[Finding]:
        yield doctor.image(self.api, self.config.image)
        yield doctor.maker(self.api, self.config.service_account)

    @property
    def clusters(self) -> None:
        return None

    @property
    def jobs(self) -> SparkDriver:
        return SparkDriver(self.api, self.config, self.conf)
