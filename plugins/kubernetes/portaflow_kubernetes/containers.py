"""Containers on any Kubernetes, each as a Job of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from portaflow.backend import (
    SUPPORTED,
    Backend,
    Capability,
    ContainerRun,
    ContainerSpec,
    Finding,
    Fit,
    Kind,
    Machines,
    Request,
    Verdict,
)
from portaflow.errors import RejectedError

from . import billed, doctor, manifest
from .api import Api, Connection, connect
from .jobs import JobDriver


@dataclass(frozen=True, kw_only=True)
class Pods:
    """Whose rights pods have, and what each has that no pipeline knows of.

    `run_as_user`: 0 is root, -1 the image's own user. `keep`: seconds that what has ended
    stays, with its log. `pod_template` is laid over the pod's metadata and spec.
    """

    namespace: str = ""
    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, Any], ...] = ()
    run_as_user: int = 1000
    keep: int = 86400
    pod_template: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Config(Pods):
    """Which cluster: that of a kubeconfig, of an Airflow connection, or the one we are in."""

    kubeconfig: Path | None = None
    context: str = ""
    connection: str = ""


class ContainerDriver(JobDriver[ContainerSpec]):
    """Containers as Jobs."""

    kind: Kind = "container"

    def __init__(self, api: Api, config: Pods) -> None:
        super().__init__(api)
        self._config = config

    def request(self, name: str, spec: ContainerSpec, parent: str = "") -> Request:
        if not spec.image:
            raise RejectedError("a container needs an image")
        if spec.context and spec.image.startswith(("/", ".")):
            raise RejectedError(
                f"image {spec.image!r} is a folder, which no cluster can pull; push it to a "
                "registry, and say its reference in the target's images"
            )
        words = {"command": spec.command, "args": spec.args}
        resources = manifest.resources(spec.size)
        box = manifest.container(spec.image, words, spec.env, spec.secrets, resources)
        if spec.mounts:
            box["volumeMounts"] = [
                {"name": f"mount-{n}", "mountPath": path} for n, path in enumerate(spec.mounts)
            ]
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": spec.grace,
            "automountServiceAccountToken": bool(self._config.service_account),
            "securityContext": manifest.user(self._config.run_as_user),
            "containers": [box],
        }
        if spec.mounts:
            pod["volumes"] = [
                {"name": f"mount-{n}", "hostPath": {"path": path, "type": "Directory"}}
                for n, path in enumerate(spec.mounts)
            ]
        return job_of(name, self.kind, spec, pod, self._config)

    def machines(self, request: Request) -> Sequence[Machines] | None:
        pod = request["spec"]["template"]["spec"]
        return billed.machines((one, 1) for one in billed.of_pod(pod))

    def fit(self, spec: ContainerSpec) -> Mapping[str, Fit]:
        fits = {}
        if spec.context:
            text = f"nobody builds it here: the cluster pulls {spec.image!r}"
            fits["context"] = Fit(Verdict.APPROXIMATED, text)
        if spec.mounts:
            text = "a folder of the node that the pod is on, so of this machine only if that is it"
            fits["mounts"] = Fit(Verdict.APPROXIMATED, text)
        return fits


def job_of(name: str, kind: str, spec: Any, pod: Mapping[str, Any], config: Pods) -> dict[str, Any]:
    """A Job with what the target's settings say of all pods."""
    made = manifest.job(name, kind, spec, template_of(pod, config), config.keep)
    if config.namespace:
        made["metadata"]["namespace"] = config.namespace
    return made


def template_of(pod: Mapping[str, Any], config: Pods) -> dict[str, Any]:
    """A pod's metadata and spec with what the target's settings say of all pods."""
    of_target = {
        "serviceAccountName": config.service_account,
        "imagePullSecrets": [{"name": n} for n in config.image_pull_secrets],
        "nodeSelector": dict(config.node_selector),
        "tolerations": [dict(t) for t in config.tolerations],
    }
    whole = {"spec": {**pod, **{k: v for k, v in of_target.items() if v}}}
    return manifest.merged(whole, config.pod_template)


class OnCluster(Backend):
    """What runs pods on a cluster: the way there, and what it needs there."""

    Config: ClassVar[type[Any]] = Config
    identity: ClassVar[str] = ""  # annotation of an account, by which the cloud knows its pods

    def connect(self) -> Connection:
        """Find the cluster; what runs on a cloud's own Kubernetes does it in another way."""
        config = self.config
        return connect(config.kubeconfig, config.context, config.connection)

    @cached_property
    def api(self) -> Api:
        return Api(self.connect, self.config.namespace)

    def check(self) -> Iterable[Finding]:
        config = self.config
        names = config.service_account, config.image_pull_secrets
        return doctor.look(self.api, *names, self.identity, self.look())

    def look(self) -> Iterable[Finding]:
        """What only some pods need. Asked for when the cluster has answered."""
        return ()


class Kubernetes(OnCluster, ContainerRun):
    """Runs containers on the cluster of a kubeconfig, or on the one where portaflow runs."""

    name = "kubernetes"
    capabilities = {
        Capability.IMAGES: SUPPORTED,
        Capability.LIMITS: SUPPORTED,
        Capability.GPU: SUPPORTED,
        Capability.SECRETS: SUPPORTED,
    }

    def check_image(self, reference: str) -> Finding:
        return doctor.image(self.api, reference)

    @property
    def containers(self) -> ContainerDriver:
        return ContainerDriver(self.api, self.config)
