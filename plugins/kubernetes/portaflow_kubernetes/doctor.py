"""Finds out what a cluster lets us do, at no cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from urllib.parse import quote

from portaflow.backend import Finding
from portaflow.errors import BackendError, DeniedError, NotFoundError

from . import images
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

MAKING = ("create", "get", "list", "watch", "patch", "delete", "deletecollection")
"""What a driver of Spark does with pods; nothing else is asked of its account."""

_NODES = 100  # whose lists of images are read
_REVIEWS = "/apis/authorization.k8s.io/v1"


def look(
    api: Api, account: str, pull_secrets: Sequence[str], identity: str, more: Iterable[Finding]
) -> Iterable[Finding]:
    """Look at the cluster, the namespace, our rights and what pods need.

    `identity` is the annotation by which a cloud knows an account, `more` what is looked at last.
    """
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
        fix = f"kubectl create serviceaccount {account} -n {namespace}"
        where = f"{within}/serviceaccounts/{account}"
        yield _there(api, f"service account {account}", where, fix, identity)
    for name in pull_secrets:
        fix = f"kubectl create secret docker-registry {name} -n {namespace} ..."
        yield _there(api, f"image pull secret {name}", f"{within}/secrets/{name}", fix)
    yield from more


def image(api: Api, reference: str) -> Finding:
    """Look for an image on the nodes; what a registry has only a pod finds out."""
    what = f"image {reference}"
    if not images.legal(reference):
        fix = "correct `image` in the target: REGISTRY/NAME:TAG"
        return Finding(what=what, ok=False, detail="no legal reference", fix=fix)
    unasked = "whether its registry gives it is not asked: the first pod finds out"
    try:
        nodes = api.call("GET", "/api/v1/nodes", query={"limit": _NODES}).get("items") or ()
    except DeniedError:
        return Finding(what=what, ok=True, detail=f"nodes are not ours to see; {unasked}")
    except BackendError as error:
        return _bad(what, error)
    having = [
        node["metadata"]["name"] for node in nodes
        if any(images.whole(reference) in map(images.whole, row.get("names") or ())
               for row in (node.get("status") or {}).get("images") or ())
    ]  # fmt: skip
    detail = f"on node {', '.join(having[:3])}" if having else f"on no node yet; {unasked}"
    return Finding(what=what, ok=True, detail=detail)


def maker(api: Api, account: str) -> Finding:
    """Ask whether pods of an account may make pods, as those of Spark's drivers do."""
    account, namespace = account or "default", api.namespace
    what = f"service account {account} may make pods"
    try:
        lacking = [verb for verb in MAKING if not _account_may(api, account, verb)]
    except DeniedError:
        ask = f"kubectl auth can-i create pods --as=system:serviceaccount:{namespace}:{account}"
        detail = f"not ours to ask; who may does it with: {ask} -n {namespace}"
        return Finding(what=what, ok=True, detail=detail)
    except BackendError as error:
        return _bad(what, error)
    if not lacking:
        return Finding(what=what, ok=True)
    name, where = f"{account}-makes-pods", f"-n {namespace}"
    fix = (
        f"kubectl create role {name} --verb={','.join(MAKING)} --resource=pods {where} && kubectl "
        f"create rolebinding {name} --role={name} --serviceaccount={namespace}:{account} {where}"
    )
    return Finding(what=what, ok=False, detail=f"it may not {', '.join(lacking)} them", fix=fix)


def _account_may(api: Api, account: str, verb: str) -> bool:
    space, everybody = api.namespace, "system:serviceaccounts"
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "LocalSubjectAccessReview",
        "metadata": {"namespace": space},
        "spec": {
            "user": f"system:serviceaccount:{space}:{account}",
            "groups": [everybody, f"{everybody}:{space}", "system:authenticated"],
            "resourceAttributes": {"namespace": space, "verb": verb, "resource": "pods"},
        },
    }
    path = f"{_REVIEWS}/namespaces/{quote(space)}/localsubjectaccessreviews"
    return bool(api.call("POST", path, review)["status"].get("allowed"))


def _there(api: Api, what: str, path: str, fix: str, told: str = "") -> Finding:
    """Whether a thing is there; `told` is an annotation to tell of it."""
    try:
        # Its metadata alone: what is in a secret is none of our business.
        found = api.metadata(path)["metadata"].get("annotations") or {}
    except NotFoundError as error:
        return Finding(what=what, ok=False, detail=str(error), fix=fix)
    except DeniedError:
        return Finding(what=what, ok=True, detail="not ours to see; taken as there")
    except BackendError as error:
        return _bad(what, error)
    detail = f"{told}: {found.get(told, 'none')}" if told else ""
    return Finding(what=what, ok=True, detail=detail)


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
    path = f"{_REVIEWS}/selfsubjectaccessreviews"
    return bool(api.call("POST", path, review)["status"].get("allowed"))


def _bad(what: str, error: BackendError) -> Finding:
    text, _, fix = str(error).partition("; ")
    return Finding(what=what, ok=False, detail=text, fix=fix or "try again later")
