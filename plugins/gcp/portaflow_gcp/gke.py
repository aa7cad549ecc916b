"""GKE: containers and Spark on a Kubernetes of GCP. Only the way to it is GCP's own."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from portaflow_kubernetes.api import Connection
from portaflow_kubernetes.containers import Kubernetes, OnCluster, Pods
from portaflow_kubernetes.spark import SparkKubernetes, SparkPods

from portaflow.backend import Finding
from portaflow.errors import BackendError, NotFoundError, RejectedError, UnavailableError

from . import check
from .clients import told
from .connect import Access, Gcp, connect

_TIMEOUT = 60.0  # seconds for a call


@dataclass(frozen=True, kw_only=True)
class Config(Pods, Access):
    """`cluster`: the name of one that is there. `location`: its region or zone."""

    cluster: str
    location: str


@dataclass(frozen=True, kw_only=True)
class SparkConfig(SparkPods, Config):
    """Spark's pods, on the same cluster."""


class OnGke(OnCluster):
    """What runs pods on a cluster of GKE."""

    Config = Config
    identity = "iam.gke.io/gcp-service-account"

    def connect(self) -> Connection:
        from kubernetes import client
        from kubernetes.config import load_kube_config_from_dict

        gcp, name = connect(self.config), self.config.cluster
        cluster = describe(gcp, self.config.location, name)
        if not cluster.endpoint:
            raise UnavailableError(f"cluster {name!r} of GKE is {cluster.status.name}: wait for it")
        trust = {"certificate-authority-data": cluster.master_auth.cluster_ca_certificate}
        server = f"https://{cluster.endpoint}"
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": server, **trust}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "users": [{"name": name, "user": {}}],
        }
        settings = client.Configuration()
        load_kube_config_from_dict(kubeconfig, None, settings, persist_config=False)
        settings.refresh_api_key_hook = Token(gcp)
        settings.refresh_api_key_hook(settings)
        return Connection(client.ApiClient(settings), "default")

    def check(self) -> Iterable[Finding]:
        yield (first := check.account(self.config))
        if not first.ok:
            return
        try:
            found = describe(connect(self.config), self.config.location, self.config.cluster)
        except BackendError as error:
            detail, _, fix = str(error).partition("; ")
            yield Finding(what="cluster of GKE", ok=False, detail=detail, fix=fix)
            return
        about = f"{self.config.cluster}: {found.status.name}"
        yield Finding(what="cluster of GKE", ok=True, detail=about)
        yield from super().check()


class Gke(OnGke, Kubernetes):
    """Runs containers on a cluster of GKE."""

    name = "gke"


class SparkGke(OnGke, SparkKubernetes):
    """Runs Spark jobs as pods of a cluster of GKE."""

    name = "spark-gke"
    conf: ClassVar[Mapping[str, str]] = {"spark.hadoop.fs.gs.auth.type": "APPLICATION_DEFAULT"}
    Config = SparkConfig


class Token:
    """What the cluster knows us by, made anew before it expires. Safe to use from any thread."""

    def __init__(self, gcp: Gcp) -> None:
        self._gcp = gcp
        self._lock = threading.Lock()

    def __call__(self, settings: Any) -> None:
        """Put it into the settings of the SDK, which asks for that before each call."""
        with self._lock, told("token for GKE"):
            credentials = self._gcp.credentials
            if not credentials.valid:  # nor is one that has less than four minutes left
                from google.auth.transport.requests import Request

                credentials.refresh(Request())
            settings.api_key["authorization"] = f"Bearer {credentials.token}"


def describe(gcp: Gcp, location: str, name: str) -> Any:
    """What GKE says of a cluster. Raises RejectedError when it is not there."""
    from google.cloud.container_v1 import ClusterManagerClient

    path = f"projects/{gcp.project}/locations/{location}/clusters/{name}"
    try:
        with told(f"cluster {name!r}"), ClusterManagerClient(credentials=gcp.credentials) as client:
            return client.get_cluster(name=path, retry=None, timeout=_TIMEOUT)
    except NotFoundError as error:  # of the cluster, which must not be taken for a container's
        raise RejectedError(
            f"GKE has no cluster {name!r} in {location} of {gcp.project}; correct `cluster`, "
            "`location` or `project` in the target, and look: gcloud container clusters list"
        ) from error
