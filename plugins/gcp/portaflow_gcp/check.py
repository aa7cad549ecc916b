"""What `portaflow doctor` looks at in a project: nothing is made, nothing costs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from portaflow.backend import Finding
from portaflow.errors import BackendError

from .clients import Client
from .connect import Access, connect

if TYPE_CHECKING:
    from .batch import Config as BatchConfig
    from .dataproc import Config as ClusterConfig


def account(access: Access) -> Finding:
    """Whether there are credentials, and for which project."""
    what = "Google credentials"
    try:
        gcp = connect(access)
        _, project = gcp.credentials, gcp.project
    except BackendError as error:
        detail, _, fix = str(error).partition("; ")
        return Finding(what=what, ok=False, detail=detail, fix=fix or "see the detail")
    if not project:
        fix = "set `project` in the target, or GOOGLE_CLOUD_PROJECT"
        return Finding(what=what, ok=False, detail="they name no project", fix=fix)
    return Finding(what=what, ok=True, detail=f"for project {project}")


def _listed(access: Any, client: str, method: str, request: dict[str, Any]) -> Finding:
    """Whether the API is on, the region there, and the account may list."""
    what = f"Dataproc in {access.region}"
    one = Client(access, client, access.region)
    try:
        one.call(what, method, request)
    except BackendError as error:
        fix = (
            "enable it with `gcloud services enable dataproc.googleapis.com`, correct `region` in "
            "the target, or give the account roles/dataproc.editor"
        )
        return Finding(what=what, ok=False, detail=str(error), fix=fix)
    return Finding(what=what, ok=True)


def clusters(config: ClusterConfig) -> Iterable[Finding]:
    """What clusters of Dataproc need."""
    yield (first := account(config))
    if first.ok:
        where = {"project_id": connect(config).project, "region": config.region}
        yield _listed(config, "ClusterControllerClient", "list_clusters", {**where, "page_size": 1})


def batches(config: BatchConfig) -> Iterable[Finding]:
    """What batches of Dataproc need."""
    yield (first := account(config))
    if first.ok:
        parent = f"projects/{connect(config).project}/locations/{config.region}"
        request = {"parent": parent, "page_size": 1}
        yield _listed(config, "BatchControllerClient", "list_batches", request)
