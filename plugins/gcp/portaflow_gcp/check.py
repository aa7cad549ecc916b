"""What `portaflow doctor` looks at in a project: nothing is made, nothing costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from portaflow.backend import Finding
from portaflow.errors import BackendError

from .clients import Client
from .connect import Access, connect, told

if TYPE_CHECKING:
    from .batch import Config as BatchConfig
    from .dataproc import Config as ClusterConfig

_TIMEOUT = 30.0  # seconds for an answer
_CLUSTERS = (
    "dataproc.clusters.create", "dataproc.clusters.delete", "dataproc.clusters.list",
    "dataproc.jobs.create", "dataproc.jobs.cancel", "dataproc.jobs.list",
)  # fmt: skip
_BATCHES = ("dataproc.batches.create", "dataproc.batches.cancel", "dataproc.batches.list")


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


def _permissions(access: Any, project: str, wanted: Sequence[str]) -> Finding:
    """What the account may not do of what a run does in the project."""
    what = f"permissions in project {project}"
    url = f"https://cloudresourcemanager.googleapis.com/v1/projects/{project}:testIamPermissions"
    fix = "give the account roles/dataproc.editor, or a role of yours with these"
    return _may(access, what, url, wanted, fix)


def _acts_as(access: Any, account: str) -> Finding:
    """Whether the account may run things as the service account, which has to be there."""
    url = f"https://iam.googleapis.com/v1/projects/-/serviceAccounts/{account}:testIamPermissions"
    fix = (
        "correct `service_account` in the target, or give yours roles/iam.serviceAccountUser on it"
    )
    return _may(access, f"service account {account}", url, ["iam.serviceAccounts.actAs"], fix)


def _may(access: Any, what: str, url: str, wanted: Sequence[str], fix: str) -> Finding:
    body = _asked(access, "POST", url, {"permissions": list(wanted)})
    if isinstance(body, str):
        if body.startswith("HTTP 404"):
            return Finding(what=what, ok=False, detail=body, fix=fix)
        return Finding(what=what, ok=True, detail=f"not known: {body}")
    missing = sorted(set(wanted) - set(body.get("permissions", ())))
    detail = f"lacking: {', '.join(missing)}" if missing else "all that a run needs"
    return Finding(what=what, ok=not missing, detail=detail, fix=fix)


def _quota(access: Any, project: str) -> Finding:
    what = f"cores in {access.region}"
    base = "https://compute.googleapis.com/compute/v1"
    body = _asked(access, "GET", f"{base}/projects/{project}/regions/{access.region}")
    if isinstance(body, str):
        return Finding(what=what, ok=True, detail=f"not known: {body}")
    found = next((q for q in body.get("quotas", ()) if q.get("metric") == "CPUS"), None)
    if found is None:
        return Finding(what=what, ok=True, detail="not known: Google tells none")
    left, limit = found["limit"] - found["usage"], found["limit"]
    fix = "wait for what runs to end, or ask Google for more"
    return Finding(what=what, ok=left > 0, detail=f"{left:g} of {limit:g} are free", fix=fix)


def _asked(access: Any, method: str, url: str, body: Any = None) -> dict[str, Any] | str:
    """What a service of Google's answers, or why it does not."""
    from google.auth.transport.requests import AuthorizedSession

    try:
        with told("permissions"):
            session: Any = AuthorizedSession(connect(access).credentials)  # type: ignore[no-untyped-call]
        with session:
            answer = session.request(method, url, json=body, timeout=_TIMEOUT)
            said = answer.json()
    except (BackendError, OSError, ValueError) as error:
        return " ".join(str(error).split())
    if not isinstance(said, dict):
        return f"HTTP {answer.status_code}: no object"
    return said if answer.ok else f"HTTP {answer.status_code}: {said['error'].get('message')}"


def clusters(config: ClusterConfig) -> Iterable[Finding]:
    """What clusters of Dataproc need."""
    yield (first := account(config))
    if first.ok:
        project = connect(config).project
        where = {"project_id": project, "region": config.region}
        yield _listed(config, "ClusterControllerClient", "list_clusters", {**where, "page_size": 1})
        yield from _account_of(config, project, _CLUSTERS)
        yield _quota(config, project)


def batches(config: BatchConfig) -> Iterable[Finding]:
    """What batches of Dataproc need."""
    yield (first := account(config))
    if first.ok:
        project = connect(config).project
        parent = f"projects/{project}/locations/{config.region}"
        request = {"parent": parent, "page_size": 1}
        yield _listed(config, "BatchControllerClient", "list_batches", request)
        yield from _account_of(config, project, _BATCHES)


def _account_of(config: Any, project: str, wanted: Sequence[str]) -> Iterable[Finding]:
    yield _permissions(config, project, wanted)
    if config.service_account:
        yield _acts_as(config, config.service_account)
