"""What each request does to the objects, apart from HTTP: the verbs of the API server."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from . import applying, patches, problems, pruning, validation
from .access import Access, User
from .admission import Admission
from .asked import Asked, an_object
from .deletion import ORPHANED, Deletion, orphans_unasked
from .problems import Json
from .resources import (
    CLAIMS,
    JOBS,
    LOCAL_REVIEWS,
    NAMESPACES,
    NODES,
    PODS,
    REVIEWS,
    SECRETS,
    SELF_REVIEWS,
    SERVICE_ACCOUNTS,
    Resource,
)  # fmt: skip
from .selectors import matcher
from .store import Store

_FIXED = (
    "name", "namespace", "uid", "creationTimestamp", "generation", "deletionTimestamp",
    "deletionGracePeriodSeconds", "resourceVersion",
)  # fmt: skip

Own = Callable[[Json], list[Json]]


def _free(obj: Json) -> list[Json]:
    """Nobody owns a field of what a controller makes."""
    return []


@dataclass(slots=True)
class Answer:
    """What a client gets: an object, a list's parts, a code and warnings."""

    body: Json
    code: int = 200
    items: list[Json] | None = None  # of a list; `body` is then its metadata
    warnings: list[str] = field(default_factory=list)


@dataclass
class Api:
    """Reads and changes objects as clients ask. `hidden` are not listed until their time."""

    store: Store
    access: Access
    deletion: Deletion
    admission: Admission
    hidden: dict[str, float] = field(default_factory=dict)  # uid -> until
    created: Callable[[Resource, Json], None] = lambda resource, obj: None

    def answer(self, asked: Asked, user: User, content: Any) -> Answer:
        if asked.resource in (SELF_REVIEWS, REVIEWS, LOCAL_REVIEWS):
            return self._review(asked, user, an_object(content))
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
        if asked.resource is CLAIMS:
            raise problems.refused(
                CLAIMS, "", "not implemented by this stand-in: its pods have none"
            )
        body, warnings = _known(asked, an_object(content))
        owner = self._owner(asked)

        def own(obj: Json) -> list[Json]:
            return applying.updated(asked.resource.kind, None, obj, [], owner)

        obj = self.add(asked.resource, asked.namespace, body, dry=_dry(asked, content), own=own)
        return Answer(obj, 201, warnings=warnings)

    def _owner(self, asked: Asked) -> applying.Owner:
        version = asked.resource.api_version
        return applying.Owner(asked.manager, version, self.store.now(), asked.sub)

    def add(
        self, resource: Resource, namespace: str, body: Json, *, dry: bool = False, own: Own = _free
    ) -> Json:
        """Admit and store a new object; `dry` only says what would be stored.

        `own` says who owns which field of it.
        """
        if resource.namespaced:
            self._check_namespace(resource, namespace, body)
        if resource is PODS:
            body = self.admission.completed(namespace, body)
        obj = validation.admit(resource, namespace, body)
        self.admission.check(resource, namespace, obj)
        if owned := own(obj):
            obj["metadata"]["managedFields"] = owned
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
        old = self._there(asked)
        body, warnings = _known(asked, an_object(content))
        meta = body.get("metadata") or {}
        if meta.get("name", asked.name) != asked.name:
            raise problems.bad_request(
                f"the name of the object ({meta.get('name')}) does not match the name on the URL "
                f"({asked.name})"
            )
        return Answer(self._changed(asked, old, body, content), warnings=warnings)

    def _patch(self, asked: Asked, content: Any) -> Answer:
        if asked.content_type == patches.APPLY_PATCH:
            return self._apply(asked, an_object(content))
        old = self._there(asked)
        patched, warnings = _known(asked, patches.apply(asked.content_type, old, content))
        return Answer(self._changed(asked, old, patched, content), warnings=warnings)

    def _apply(self, asked: Asked, content: Json) -> Answer:
        """Server-side apply: what is not there is made."""
        resource, kind = asked.resource, asked.resource.kind
        if not asked.query.get("fieldManager"):
            causes = problems.Causes()
            causes.required("fieldManager", "is required for apply patch")
            causes.refuse("meta.k8s.io", "PatchOptions", "")
        if (content.get("apiVersion"), content.get("kind")) != (resource.api_version, kind):
            raise problems.bad_request(
                f"apiVersion and kind of an apply must be {resource.api_version} and {kind}"
            )
        if (content.get("metadata") or {}).get("managedFields"):
            raise problems.bad_request("metadata.managedFields must be nil")
        wanted, warnings = _known(asked, content)
        owner = self._owner(asked)
        old = self.store.find(resource, asked.namespace, asked.name)
        if old is None and asked.sub:
            raise problems.not_found(resource.group, resource.plural, asked.name)
        if old is None:
            wanted = {**wanted, "metadata": {**(wanted.get("metadata") or {}), "name": asked.name}}

            def own(obj: Json) -> list[Json]:
                bare: Json = {"metadata": {}}
                made = applying.applied(kind, bare, wanted, owner, force=True)
                found: list[Json] = made["metadata"]["managedFields"]
                return found

            made = self.add(resource, asked.namespace, wanted, dry=_dry(asked, None), own=own)
            return Answer(made, 201, warnings=warnings)
        new = applying.applied(kind, old, wanted, owner, force=asked.flag("force"))
        owned = new["metadata"]["managedFields"]
        return Answer(self._changed(asked, old, new, None, owned), warnings=warnings)

    def _changed(
        self, asked: Asked, old: Json, new: Json, content: Any, owned: list[Json] | None = None
    ) -> Json:
        """Store the new state of an object; `owned` are its managedFields when they are known."""
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
        if owned is None:
            # A client may hand fields over to another manager, or reset them all by [{}].
            told = [e for e in meta.get("managedFields") or was.get("managedFields") or [] if e]
            owned = applying.updated(resource.kind, old, obj, told, self._owner(asked))
        if owned:
            obj["metadata"] = {**obj["metadata"], "managedFields": owned}
        return obj if _dry(asked, content) else self.store.replace(resource, obj)

    def _delete(self, asked: Asked, content: Any) -> Answer:
        options = _options(asked, content)
        obj = self._there(asked)
        warnings = [ORPHANED] if orphans_unasked(asked.resource, options) else []
        after = obj if _dry(asked, content) else self.deletion.delete(asked.resource, obj, options)
        waits = self.store.find(asked.resource, asked.namespace, asked.name) is not None
        if asked.resource.returns_object or (waits and not _dry(asked, content)):
            return Answer(after, warnings=warnings)
        meta = obj["metadata"]
        details = {
            "name": meta["name"], "kind": asked.resource.plural, "uid": meta["uid"],
            **({"group": asked.resource.group} if asked.resource.group else {}),
        }  # fmt: skip
        return Answer({**_success(), "details": details}, warnings=warnings)

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

    def _review(self, asked: Asked, user: User, content: Json) -> Answer:
        """What the caller may do, or somebody else."""
        spec, groups, resource = content.get("spec") or {}, None, asked.resource
        told = spec.get("resourceAttributes") or {}
        if resource is not SELF_REVIEWS:
            user, groups = self.access.named(spec.get("user", "")), spec.get("groups") or ()
            causes = problems.Causes()
            if not user.name and not groups:
                causes.required("spec.user", "at least one of user or group must be specified")
            if told.get("namespace", "") != asked.namespace and resource is LOCAL_REVIEWS:
                where = "spec.resourceAttributes.namespace"
                causes.invalid(where, told.get("namespace", ""), "must match metadata.namespace")
            causes.refuse(resource.group, resource.kind, "")
        allowed = self.access.may(
            user, told.get("verb", ""), told.get("group", ""), told.get("resource", ""),
            told.get("namespace", ""), told.get("name", ""), told.get("subresource", ""), groups,
        )  # fmt: skip
        kind = {"kind": resource.kind, "apiVersion": resource.api_version}
        status = {"allowed": allowed}
        return Answer({**kind, "metadata": {}, "spec": spec, "status": status}, 201)


def _known(asked: Asked, body: Json) -> tuple[Json, list[str]]:
    """The body with the fields that there are, and what is said of the others."""
    return pruning.pruned(asked.resource.kind, body, asked.query.get("fieldValidation", ""))


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
    if asked.query:
        params["query"] = dict(asked.query)
    if asked.verb == "patch":
        params["contentType"] = asked.content_type
    if content is not None and asked.resource is not SECRETS and asked.sub != "token":
        params["body"] = content
    return params
