"""moto's EMR with live clusters, the calls it lacks, and the errors that AWS gives."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.emr import models, responses
from moto.emr.exceptions import InvalidRequestException, ValidationException
from moto.secretsmanager.models import secretsmanager_backends
from moto.sts.models import sts_backends

from .cluster import LiveCluster
from .shop import Shop


class _Clusters(dict[str, Any]):
    def __missing__(self, key: str) -> Any:
        raise InvalidRequestException(f"Cluster id '{key}' is not valid.")


class LiveBackend(models.ElasticMapReduceBackend):
    __module__ = models.__name__  # moto derives the service's name from it

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clusters = _Clusters()

    def run_job_flow(self, **kwargs: Any) -> Any:
        release = kwargs.get("release_label")
        if release and release not in self._release_labels:
            raise ValidationException(f"The supplied release label is invalid: {release}.")
        if not kwargs.get("service_role"):
            raise ValidationException("ServiceRole is required for creating cluster.")
        if not kwargs.get("job_flow_role"):
            raise ValidationException("InstanceProfile is required for creating cluster.")
        return super().run_job_flow(**kwargs)

    def describe_cluster(self, cluster_id: str) -> Any:
        return self.clusters[cluster_id]

    def describe_step(self, cluster_id: str, step_id: str) -> Any:
        step = super().describe_step(cluster_id, step_id)
        if step is None:
            raise InvalidRequestException(f"Step id '{step_id}' is not valid.")
        return step


class _Response(responses.ElasticMapReduceResponse):
    """Only a place for the methods that `install` gives to moto's class."""

    def cancel_steps(self) -> ActionResult:
        cluster: Any = self.backend.describe_cluster(self._get_param("ClusterId"))
        told = cluster.cancel(self._get_param("StepIds", []))
        return ActionResult({"CancelStepsInfoList": told})

    def put_auto_termination_policy(self) -> EmptyResult:
        cluster: Any = self.backend.describe_cluster(self._get_param("ClusterId"))
        timeout = self._get_int_param("AutoTerminationPolicy.IdleTimeout", 3600)
        if not 60 <= timeout <= 604_800:
            raise ValidationException("IdleTimeout must be from 60 to 604800 seconds.")
        cluster.auto_termination_policy = {"IdleTimeout": timeout}
        return EmptyResult()

    def get_auto_termination_policy(self) -> ActionResult:
        cluster: Any = self.backend.describe_cluster(self._get_param("ClusterId"))
        return ActionResult({"AutoTerminationPolicy": cluster.auto_termination_policy})

    def remove_auto_termination_policy(self) -> EmptyResult:
        cluster: Any = self.backend.describe_cluster(self._get_param("ClusterId"))
        cluster.auto_termination_policy = None
        return EmptyResult()


def install(shop: Shop) -> None:
    """Give this process's moto live clusters that work in the folder of `shop`."""
    LiveCluster.shop = shop
    models.Cluster = LiveCluster  # type: ignore[misc]  # where the backend looks it up
    models.emr_backends.backend = LiveBackend
    for left in (models.emr_backends, secretsmanager_backends, sts_backends):
        left.clear()  # by a stand-in that this process had before
    for name in (
        "cancel_steps",
        *(f"{do}_auto_termination_policy" for do in ("put", "get", "remove")),
    ):
        setattr(responses.ElasticMapReduceResponse, name, getattr(_Response, name))


def stop_all() -> None:
    """End every cluster and its steps."""
    live: list[Any] = [
        cluster
        for account in models.emr_backends.values()
        for backend in account.values()
        for cluster in backend.clusters.values()
    ]
    for cluster in live:
        cluster.finish("INTERNAL_ERROR", "The local AWS was stopped")
    for cluster in live:
        cluster.join()
