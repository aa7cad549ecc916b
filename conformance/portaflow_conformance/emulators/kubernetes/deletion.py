"""How objects go: grace, propagation, finalizers, what hangs on an owner, namespaces."""

from __future__ import annotations

import asyncio
import math
from collections import Counter, deque
from datetime import UTC, datetime
from typing import Any

from . import problems
from .problems import Json
from .resources import JOBS, NAMESPACES, PODS, RESOURCES, Resource
from .store import Change, Store

_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"
_BATCH = 20  # objects of a namespace that go before others have their turn
ORPHANED = (
    "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background "
    "to remove them or set propagationPolicy=Orphan to suppress this warning"
)


class Deletion:
    """Deletes, and collects what has lost its owners."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._children: dict[str, set[tuple[str, str, str]]] = {}  # uid -> plural, key
        self._resources = {r.plural: r for r in RESOURCES}
        self._inside: Counter[str] = Counter()  # namespace -> how many objects are in it
        self._held: dict[str, tuple[Resource, str, str]] = {}  # uid -> who waits for dependents
        store.listeners.append(self._changed)

    def delete(self, resource: Resource, obj: Json, options: Json) -> Json:
        """Return the object as it is afterwards: gone, or waiting for its end."""
        meta = obj["metadata"]
        _check_preconditions(resource, obj, options)
        policy = _policy(resource, options)
        if resource is NAMESPACES:
            return self._close(obj)
        grace = _grace(resource, obj, options)
        finalizers = [f for f in meta.get("finalizers") or [] if f not in (_FOREGROUND, _ORPHAN)]
        if policy == "Foreground" and self._held_by(meta["uid"]):
            finalizers.append(_FOREGROUND)
        if policy == "Orphan":
            self._orphan(meta["uid"])
        if not grace and not finalizers:
            return self._store.remove(resource, meta.get("namespace", ""), meta["name"])
        return self._mark(resource, obj, grace, finalizers)

    def _mark(self, resource: Resource, obj: Json, grace: int, finalizers: list[str]) -> Json:
        meta = dict(obj["metadata"])
        if finalizers:
            meta["finalizers"] = finalizers
        shorter = grace < (meta.get("deletionGracePeriodSeconds") or 0)
        if "deletionTimestamp" not in meta or shorter:
            meta = leaving(meta, grace, self._store.clock())
        marked = self._store.replace(resource, {**obj, "metadata": meta})
        if _FOREGROUND in finalizers:
            for child, found in self._dependents(meta["uid"]):
                self.delete(child, found, {"propagationPolicy": "Foreground"})
            self._release(meta["uid"])
            namespace, name = meta.get("namespace", ""), meta["name"]
            return self._store.find(resource, namespace, name) or marked
        return marked

    def _dependents(self, uid: str) -> list[tuple[Resource, Json]]:
        found = []
        for plural, namespace, name in sorted(self._children.get(uid, ())):
            resource = self._resources[plural]
            if (obj := self._store.find(resource, namespace, name)) is not None:
                found.append((resource, obj))
        return found

    def _held_by(self, uid: str) -> bool:
        """Whether an owner has to wait for a dependent to be gone."""
        return any(
            ref["uid"] == uid and ref.get("blockOwnerDeletion")
            for _, obj in self._dependents(uid)
            for ref in _owners(obj)
        )

    def _orphan(self, uid: str) -> None:
        for resource, obj in self._dependents(uid):
            left = [ref for ref in _owners(obj) if ref["uid"] != uid]
            meta = {k: v for k, v in obj["metadata"].items() if k != "ownerReferences"}
            if left:
                meta["ownerReferences"] = left
            self._store.replace(resource, {**obj, "metadata": meta})

    def _close(self, namespace: Json) -> Json:
        """Let a namespace go with all that is in it."""
        name = namespace["metadata"]["name"]
        if name in ("default", "kube-system"):
            raise problems.refused(NAMESPACES, name, "this namespace may not be deleted")
        if namespace["status"].get("phase") != "Terminating":
            meta = {**namespace["metadata"], "deletionTimestamp": self._store.now()}
            status = {**namespace["status"], "phase": "Terminating"}
            # The finalizer stands for the namespace controller: `replace` must not remove it.
            meta["finalizers"] = ["kubernetes"]
            self._store.replace(NAMESPACES, {**namespace, "metadata": meta, "status": status})
        self._clear(name, deque())
        return self._store.find(NAMESPACES, "", name) or namespace

    def _clear(self, name: str, left: deque[tuple[Resource, str]]) -> None:
        """Delete what is in a namespace that goes: thousands at once would stop the server."""
        if not left:
            kinds = (JOBS, *(r for r in RESOURCES if r.namespaced and r is not JOBS))
            left += [(r, o["metadata"]["name"]) for r in kinds for o in self._store.all(r, name)]
        for _ in range(min(_BATCH, len(left))):
            resource, one = left.popleft()
            if (there := self._store.find(resource, name, one)) is not None:
                self.delete(resource, there, {"propagationPolicy": "Background"})
        if left:
            asyncio.get_running_loop().call_soon(self._clear, name, left)
        else:
            self._emptied(name)

    def _emptied(self, name: str) -> None:
        """Remove a namespace that was waiting for its last object."""
        namespace = self._store.find(NAMESPACES, "", name)
        if namespace is None or namespace["status"].get("phase") != "Terminating":
            return
        if not self._inside[name]:
            self._store.remove(NAMESPACES, "", name)

    def _changed(self, change: Change) -> None:
        key = (change.resource.plural, *change.key)
        self._account(change)
        if change.old is not None:
            for ref in _owners(change.old):
                self._children.get(ref["uid"], set()).discard(key)
        if change.type != "DELETED":
            for ref in _owners(change.object):
                self._children.setdefault(ref["uid"], set()).add(key)
            return
        meta = change.object["metadata"]
        for resource, obj in self._dependents(meta["uid"]):
            if not any(self._lives(obj, ref) for ref in _owners(obj)):
                self.delete(resource, obj, {"propagationPolicy": "Background"})
        if not self._children.get(meta["uid"]):
            self._children.pop(meta["uid"], None)
        for ref in _owners(change.object):
            self._release(ref["uid"])
        if change.resource.namespaced:
            self._emptied(change.key[0])

    def _account(self, change: Change) -> None:
        meta = change.object["metadata"]
        if change.resource.namespaced:
            self._inside[change.key[0]] += (change.type == "ADDED") - (change.type == "DELETED")
        if change.type != "DELETED" and _FOREGROUND in (meta.get("finalizers") or []):
            self._held[meta["uid"]] = (change.resource, *change.key)
        else:
            self._held.pop(meta["uid"], None)

    def _lives(self, obj: Json, ref: Json) -> bool:
        for resource in RESOURCES:
            if resource.kind == ref["kind"]:
                namespace = obj["metadata"].get("namespace", "") if resource.namespaced else ""
                owner = self._store.find(resource, namespace, ref["name"])
                return owner is not None and owner["metadata"]["uid"] == ref["uid"]
        return True  # of a kind that is not served: nobody can tell, so it is kept

    def _release(self, uid: str) -> None:
        """Take the foreground finalizer from an owner whose dependents are gone."""
        if uid not in self._held or self._held_by(uid):
            return
        resource, namespace, name = self._held[uid]
        obj = self._store.get(resource, namespace, name)
        meta = obj["metadata"]
        left = [f for f in meta["finalizers"] if f != _FOREGROUND]
        self._store.replace(resource, {**obj, "metadata": {**meta, "finalizers": left}})


def _owners(obj: Json) -> list[Json]:
    return obj["metadata"].get("ownerReferences") or []


def _grace(resource: Resource, obj: Json, options: Json) -> int:
    if resource is not PODS:
        return 0
    ended = obj["status"].get("phase") in ("Succeeded", "Failed")
    if ended or not obj["spec"].get("nodeName"):
        return 0
    wanted: Any = options.get("gracePeriodSeconds")
    if wanted is None:
        wanted = obj["spec"].get("terminationGracePeriodSeconds", 30)
    return max(0, math.ceil(int(wanted)))


def _policy(resource: Resource, options: Json) -> str:
    policy = options.get("propagationPolicy")
    if policy is None:
        if options.get("orphanDependents") is not None:
            return "Orphan" if options["orphanDependents"] else "Background"
        return "Orphan" if resource is JOBS else "Background"
    if policy not in ("Foreground", "Background", "Orphan"):
        causes = problems.Causes()
        allowed = ("Foreground", "Background", "Orphan", "nil")
        causes.unsupported("propagationPolicy", policy, allowed)
        causes.refuse("meta.k8s.io", "DeleteOptions", "")
    return str(policy)


def _check_preconditions(resource: Resource, obj: Json, options: Json) -> None:
    wanted = options.get("preconditions") or {}
    for field, what in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        found = obj["metadata"][field]
        if wanted.get(field) not in (None, found):
            cause = (
                f"Precondition failed: {what} in precondition: {wanted[field]}, "
                f"{what} in object meta: {found}"
            )
            raise problems.conflict(resource.group, resource.plural, obj["metadata"]["name"], cause)


def orphans_unasked(resource: Resource, options: Json) -> bool:
    """Whether a delete leaves pods behind without having been told to; clients are warned."""
    told = ("propagationPolicy", "orphanDependents")
    return resource is JOBS and all(options.get(k) is None for k in told)


def leaving(meta: Json, grace: int, now: float) -> Json:
    """Metadata of what may stay `grace` seconds from when somebody asked for its end first."""
    asked = now
    if until := meta.get("deletionTimestamp"):
        asked = datetime.fromisoformat(until).timestamp() - meta["deletionGracePeriodSeconds"]
    at = datetime.fromtimestamp(asked + grace, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**meta, "deletionTimestamp": at, "deletionGracePeriodSeconds": grace}
