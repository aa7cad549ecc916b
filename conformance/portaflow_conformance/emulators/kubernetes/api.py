"""What each request does to the objects, apart from HTTP: the verbs of the API server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import patches, problems, validation
from .access import Access, User
from .asked import Asked, an_object
from .deletion import ORPHANED, Deletion, orphans_unasked
from .problems import Json
from .resources import JOBS, NAMESPACES, NODES, PODS, SECRETS, SERVICE_ACCOUNTS, Resource
from .selectors import matcher
from .store import Store

_FIXED = (
    "name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp",
    "deletionGracePeriodSeconds", "resourceVersion",
)  # fmt: skip


@dataclass(slots=True)
class Answer:
    """What a client gets: an object, a list's parts, a code and a warning."""

    body: Json
    code: int = 200
    items: list[Json] | None = None  # of a list; `body` is then its metadata
    warning: str = ""


@dataclass
class Api:
    """Reads and changes objects as clients ask. `hidden` are not listed until their time."""

    store: Store
    access: Access
    deletion: Deletion
    hidden: dict[str, float] = field(default_factory=dict)  # uid -> until
    created: Callable[[Resource, Json], None] = lambda resource, obj: None

    def answer(self, asked: Asked, user: User, content: Any) -> Answer:
        verbs: dict[str, Callable[[Asked, Any], Answer]] = {
            "get": self._get, "list": self._list, "create": self._create, "update": self._update,
            "patch": self._patch, "delete": self._delete, "deletecollection": self._delete_all,
        }  # fmt: skip
        if asked.sub in ("eviction", "token"):
            if asked.verb != "create":
                raise problems.method_not_allowed(asked.verb.upper())
            return (
                self._evict(asked, content)
                if asked.sub == "eviction"
                else self._token(asked, content)
            )
        if asked.sub and asked.verb in ("create", "delete"):
            raise problems.method_not_allowed({"create": "POST", "delete": "DELETE"}[asked.verb])
        return verbs[asked.verb](asked, content)

    def _there(self, asked: Asked) -> Json:
        return self.store.get(asked.resource, asked.namespace, asked.name)

    def _get(self, asked: Asked, content: Any) -> Answer:
        return Answer(self._there(asked))

    def _list(self, asked: Asked, content: Any) -> Answer:
        wanted = asked.query.get("resourceVersion", "")
        if asked.query.get("resourceVersionMatch") == "Exact" and wanted != str(self.store.version):
            raise problems.expired(
                f"The resourceVersion for the provided list is too old: {wanted}"
            )
        if wanted.isdigit() and int(wanted) > self.store.version:
            raise problems.from_the_future(int(wanted), self.store.version)
        matches = matcher(
            asked.resource,
            asked.query.get("labelSelector", ""),
            asked.query.get("fieldSelector", ""),
        )
        version, items, token, left = self.store.page(
            asked.resource, asked.namespace, lambda o: matches(o) and not self._hides(o),
            asked.number("limit") or 0, asked.query.get("continue", ""),
        )  # fmt: skip
        meta: Json = {"resourceVersion": str(version)}
        if token:
            meta |= {"continue": token, "remainingItemCount": left}
        return Answer(meta, items=items)

    def _hides(self, obj: Json) -> bool:
        until = self.hidden.get(obj["metadata"]["uid"])
        return until is not None and until > self.store.clock()

    def _create(self, asked: Asked, content: Any) -> Answer:
        if asked.name:
            raise problems.method_not_allowed("POST")
        if asked.resource is NODES:
            raise problems.refused(NODES, "", "this stand-in has one node of its own")
        obj = self.add(
            asked.resource, asked.namespace, an_object(content), dry=_dry(asked, content)
        )
        return Answer(obj, 201)

    def add(self, resource: Resource, namespace: str, body: Json, *, dry: bool = False) -> Json:
        """Admit and store a new object; `dry` only says what would be stored."""
        if resource.namespaced:
            self._check_namespace(resource, namespace, body)
        obj = validation.admit(resource, namespace, body)
        if not dry:
            obj = self.store.add(resource, obj)
            self.created(resource, obj)
            return obj
        name = obj["metadata"]["name"]
        if self.store.find(resource, obj["metadata"].get("namespace", ""), name) is not None:
            raise problems.already_exists(resource.group, resource.plural, name)
        obj["metadata"] |= {"uid": "", "creationTimestamp": self.store.now()}
        return obj

    def _check_namespace(self, resource: Resource, namespace: str, body: Json) -> None:
        found = self.store.find(NAMESPACES, "", namespace)
        if found is None:
            raise problems.not_found("", "namespaces", namespace)
        if found["status"].get("phase") == "Terminating":
            name = (body.get("metadata") or {}).get("name", "")
            why = f"unable to create new content in namespace {namespace} because it is being"
            raise problems.refused(resource, name, f"{why} terminated")
        if resource is PODS:
            spec = body.get("spec") or {}
            account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
            if self.store.find(SERVICE_ACCOUNTS, namespace, account) is None:
                name = (body.get("metadata") or {}).get("name", "")
                why = (
                    f"error looking up service account {namespace}/{account}: serviceaccount "
                    f'"{account}" not found'
                )
                raise problems.refused(PODS, name, why)

    def _update(self, asked: Asked, content: Any) -> Answer:
        body = an_object(content)
        old = self._there(asked)
        meta = body.get("metadata") or {}
        if meta.get("name", asked.name) != asked.name:
            raise problems.bad_request(
                f"the name of the object ({meta.get('name')}) does not match the name on the URL "
                f"({asked.name})"
            )
        return self._changed(asked, old, body, content)

    def _patch(self, asked: Asked, content: Any) -> Answer:
        old = self._there(asked)
        kind = asked.query["contentType"]
        return self._changed(asked, old, patches.apply(kind, old, content), content)

    def _changed(self, asked: Asked, old: Json, new: Json, content: Any) -> Answer:
        resource = asked.resource
        meta, was = new.get("metadata") or {}, old["metadata"]
        for name, what in (("uid", "UID"), ("resourceVersion", "resourceVersion")):
            if meta.get(name) not in (None, "", was[name]):
                cause = "" if name == "resourceVersion" else (
                    f"Precondition failed: {what} in precondition: {meta[name]}, {what} in object "
                    f"meta: {was[name]}"
                )  # fmt: skip
                raise problems.conflict(resource.group, resource.plural, asked.name, cause)
        fixed = {k: was[k] for k in _FIXED if k in was}
        if asked.sub == "status":
            obj = {**old, "status": new.get("status") or {}}
        else:
            loose = {k: v for k, v in meta.items() if k not in _FIXED and v is not None}
            kept = {"status": old["status"]} if "status" in old else {}
            obj = copy.deepcopy({k: v for k, v in new.items() if k != "status"})
            obj |= {"kind": resource.kind, "apiVersion": resource.api_version, **kept}
            obj["metadata"] = {**loose, **fixed}
            if resource in (PODS, JOBS) and not isinstance(obj.get("spec"), dict):
                raise problems.bad_request("spec: Required value")
            validation.check_update(resource, old, obj)
        return Answer(obj if _dry(asked, content) else self.store.replace(resource, obj))

    def _delete(self, asked: Asked, content: Any) -> Answer:
        options = _options(asked, content)
        obj = self._there(asked)
        warning = "" if not orphans_unasked(asked.resource, options) else ORPHANED
        after = obj if _dry(asked, content) else self.deletion.delete(asked.resource, obj, options)
        waits = self.store.find(asked.resource, asked.namespace, asked.name) is not None
        if asked.resource.returns_object or (waits and not _dry(asked, content)):
            return Answer(after, warning=warning)
        meta = obj["metadata"]
        details = {
            "name": meta["name"], "kind": asked.resource.plural, "uid": meta["uid"],
            **({"group": asked.resource.group} if asked.resource.group else {}),
        }  # fmt: skip
        return Answer({**_success(), "details": details}, warning=warning)

    def _delete_all(self, asked: Asked, content: Any) -> Answer:
        found = self._list(
            Asked("list", asked.resource, asked.namespace, "", "", asked.query), None
        )
        options = _options(asked, content)
        for obj in found.items or []:
            if not _dry(asked, content):
                self.deletion.delete(asked.resource, obj, options)
        return found

    def _evict(self, asked: Asked, content: Any) -> Answer:
        pod = self._there(asked)
        options = (an_object(content).get("deleteOptions")) or {}
        if not _dry(asked, options):
            self.deletion.delete(PODS, pod, options)
        return Answer(_success(), 201)

    def _token(self, asked: Asked, content: Any) -> Answer:
        self._there(asked)
        request = an_object(content if content is not None else {})
        spec = request.get("spec") or {}
        token, expires = self.access.for_account(
            asked.namespace, asked.name, spec.get("expirationSeconds")
        )
        stamp = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": asked.name, "namespace": asked.namespace}, "spec": spec,
            "status": {"token": token, "expirationTimestamp": stamp},
        }  # fmt: skip
        return Answer(body, 201)


def _options(asked: Asked, content: Any) -> Json:
    """Options of a delete: from its body, which wins, and from its query."""
    options: Json = {}
    if (grace := asked.number("gracePeriodSeconds")) is not None:
        options["gracePeriodSeconds"] = grace
    for name in ("propagationPolicy", "orphanDependents"):
        if value := asked.query.get(name):
            options[name] = value == "true" if name == "orphanDependents" else value
    return {**options, **{k: v for k, v in (content or {}).items() if v is not None}}


def _dry(asked: Asked, content: Any) -> bool:
    told = asked.query.get("dryRun") or (
        (content.get("dryRun") or "") if isinstance(content, dict) else ""
    )
    if told and told not in ("All", ["All"]):
        raise problems.bad_request(f"dryRun: Unsupported value: {told}: supported values: All")
    return bool(told)


def _success() -> Json:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}


def recorded(asked: Asked, content: Any) -> Json:
    """What the log of calls keeps of a request: no secret's data."""
    params: Json = {}
    for key, value in (("namespace", asked.namespace), ("name", asked.name)):
        if value:
            params[key] = value
    query = {k: v for k, v in asked.query.items() if k != "contentType"}
    if query:
        params["query"] = query
    if content is not None and asked.resource is not SECRETS and asked.sub != "token":
        params["body"] = content
    return params
