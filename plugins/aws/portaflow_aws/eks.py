"""EKS: containers and Spark on a Kubernetes of AWS. Only the way to it is AWS's own."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from portaflow_kubernetes.api import Connection
from portaflow_kubernetes.containers import Kubernetes, OnCluster, Pods
from portaflow_kubernetes.spark import SparkKubernetes, SparkPods

from portaflow.backend import Finding
from portaflow.errors import BackendError, NotFoundError, RejectedError, UnavailableError

from . import check
from .connect import Access, Aws, connect, told

_LIFE = 14 * 60.0  # seconds for which a token is used: EKS takes it for 15 minutes
_SIGNED = 60  # seconds for which AWS takes the URL that a token is
_PREFIX = "k8s-aws-v1."
_S3A, _SDK = "org.apache.hadoop.fs.s3a", "software.amazon.awssdk.auth.credentials"
_KEYS = (  # where S3A looks by itself, and where a role of a pod's account is
    f"{_S3A}.TemporaryAWSCredentialsProvider",
    f"{_S3A}.SimpleAWSCredentialsProvider",
    f"{_SDK}.EnvironmentVariableCredentialsProvider",
    f"{_SDK}.WebIdentityTokenFileCredentialsProvider",
    f"{_S3A}.auth.IAMInstanceCredentialsProvider",
)


@dataclass(frozen=True, kw_only=True)
class Config(Pods, Access):
    """`cluster`: the name of one that is there."""

    cluster: str


@dataclass(frozen=True, kw_only=True)
class SparkConfig(SparkPods, Config):
    """Spark's pods, on the same cluster."""


class OnEks(OnCluster):
    """What runs pods on a cluster of EKS."""

    Config = Config
    identity = "eks.amazonaws.com/role-arn"

    def connect(self) -> Connection:
        from kubernetes import client
        from kubernetes.config import load_kube_config_from_dict

        aws, name = connect(self.config), self.config.cluster
        cluster = describe(aws, name)
        if "endpoint" not in cluster:
            raise UnavailableError(f"cluster {name!r} of EKS is {cluster['status']}: wait for it")
        trust = {"certificate-authority-data": cluster["certificateAuthority"]["data"]}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "clusters": [{"name": name, "cluster": {"server": cluster["endpoint"], **trust}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "users": [{"name": name, "user": {}}],
        }
        settings = client.Configuration()
        load_kube_config_from_dict(kubeconfig, None, settings, persist_config=False)
        settings.refresh_api_key_hook = Token(aws, name)
        settings.refresh_api_key_hook(settings)
        return Connection(client.ApiClient(settings), "default")

    def check(self) -> Iterable[Finding]:
        yield (first := check.account(self.config))
        if not first.ok:
            return
        try:
            status = describe(connect(self.config), self.config.cluster)["status"]
        except BackendError as error:
            detail, _, fix = str(error).partition("; ")
            yield Finding(what="cluster of EKS", ok=False, detail=detail, fix=fix)
            return
        yield Finding(what="cluster of EKS", ok=True, detail=f"{self.config.cluster}: {status}")
        yield from super().check()


class Eks(OnEks, Kubernetes):
    """Runs containers on a cluster of EKS."""

    name = "eks"


class SparkEks(OnEks, SparkKubernetes):
    """Runs Spark jobs as pods of a cluster of EKS."""

    name = "spark-eks"
    conf: ClassVar[Mapping[str, str]] = {
        "spark.hadoop.fs.s3a.aws.credentials.provider": ",".join(_KEYS)
    }
    Config = SparkConfig


class Token:
    """What the cluster knows us by, made anew before it expires. Safe to use from any thread."""

    def __init__(self, aws: Aws, cluster: str) -> None:
        self._aws, self._cluster = aws, cluster
        self._lock = threading.Lock()
        self._until = 0.0

    def __call__(self, settings: Any) -> None:
        """Put it into the settings of the SDK, which asks for that before each call."""
        with self._lock:
            if time.monotonic() >= self._until:
                settings.api_key["authorization"] = f"Bearer {self._made()}"
                self._until = time.monotonic() + _LIFE

    def _made(self) -> str:
        """The URL of a call that tells who we are, signed: EKS makes it to find out."""
        from botocore.signers import RequestSigner  # type: ignore[import-untyped]

        sts, session = self._aws.client("sts"), self._aws.session
        service, region = sts.meta.service_model.service_id, self._aws.region
        with told("token for EKS", self._aws.access):
            signer = RequestSigner(
                service, region, "sts", "v4", session.get_credentials(), session.events
            )
            url = signer.generate_presigned_url(
                {
                    "method": "GET",
                    "url": f"{sts.meta.endpoint_url}/?Action=GetCallerIdentity&Version=2011-06-15",
                    "body": {},
                    "headers": {"x-k8s-aws-id": self._cluster},
                    "context": {},
                },
                region_name=region,
                expires_in=_SIGNED,
                operation_name="",
            )
        return _PREFIX + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def describe(aws: Aws, name: str) -> Any:
    """What EKS says of a cluster. Raises RejectedError when it is not there."""
    try:
        with told(f"cluster {name!r}", aws.access):
            return aws.client("eks").describe_cluster(name=name)["cluster"]
    except NotFoundError as error:  # of the cluster, which must not be taken for a container's
        raise RejectedError(
            f"EKS has no cluster {name!r} in {aws.region}; correct `cluster` or `region` in the "
            "target, and look: aws eks list-clusters"
        ) from error
