"""Finds out what a cluster lets us do, at no cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from portaflow.backend import Finding
from portaflow.errors import BackendError, DeniedError, NotFoundError

from .api import Api

RIGHTS = (
    ("create", "batch", "jobs", ""),
    ("get", "batch", "jobs", ""),
    ("list", "batch", "jobs", ""),
    ("patch", "batch", "jobs", ""),
    ("list", "", "pods", ""),
    ("patch", "", "pods", ""),
    ("get", "", "pods", "log"),
    ("list", "", "events", ""),
)
"""Verb, group, resource, subresource: what the drivers ask of a cluster."""


def look(api: Api, account: str, pull_secrets: Sequence[str]) -> Iterable[Finding]:
    """Look at the cluster, the namespace, our rights and what pods need."""
    try:
        version = api.call("GET", "/version").get("gitVersion", "")
        namespace = api.namespace
    except BackendError as error:
        yield _bad("cluster", error)
        return
    yield Finding(what="cluster", ok=True, detail=f"Kubernetes {version}")
    try:
        _allowed(api, namespace, *RIGHTS[0])
    except BackendError as error:
        yield _bad("credentials", error)
        return
    yield _there(api, f"namespace {namespace}", f"/api/v1/namespaces/{quote(namespace)}",
                 f"kubectl create namespace {namespace}")  # fmt: skip
    yield from (_right(api, namespace, *right) for right in RIGHTS)
    within = f"/api/v1/namespaces/{quote(namespace)}"
    if account:
        yield _there(api, f"service account {account}", f"{within}/serviceaccounts/{account}",
                     f"kubectl create serviceaccount {account} -n {namespace}")  # fmt: skip
    for name in pull_secrets:
        fix = f"kubectl create secret docker-registry {name} -n {namespace} ..."
        yield _there(api, f"image pull secret {name}", f"{within}/secrets/{name}", fix)


def _there(api: Api, what: str, path: str, fix: str) -> Finding:
    try:
        # Its metadata alone: what is in a secret is none of our business.
        api.metadata(path)
    except NotFoundError as error:
        return Finding(what=what, ok=False, detail=str(error), fix=fix)
    except DeniedError:
        return Finding(what=what, ok=True, detail="not ours to see; taken as there")
    except BackendError as error:
        return _bad(what, error)
    return Finding(what=what, ok=True)


def _right(api: Api, namespace: str, verb: str, group: str, resource: str, sub: str) -> Finding:
    name = f"{resource}{'/' + sub if sub else ''}"
    what = f"may {verb} {name}"
    try:
        allowed = _allowed(api, namespace, verb, group, resource, sub)
    except BackendError as error:
        return _bad(what, error)
    name += f".{group}" if group else ""
    fix = f"kubectl create role portaflow --verb={verb} --resource={name} -n {namespace}"
    return Finding(what=what, ok=allowed, fix="" if allowed else f"{fix}, and bind it")


def _allowed(api: Api, namespace: str, verb: str, group: str, resource: str, sub: str) -> bool:
    asked = {"namespace": namespace, "verb": verb, "group": group, "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {**asked, "subresource": sub}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    return bool(api.call("POST", path, review)["status"].get("allowed"))


def _bad(what: str, error: BackendError) -> Finding:
    text, _, fix = str(error).partition("; ")
    return Finding(what=what, ok=False, detail=text, fix=fix or "try again later")
