"""Roles and their bindings: who may do what, where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .problems import Json
from .resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    LOCAL_REVIEWS,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    Resource,
)
from .store import Store

_ACCOUNT = "system:serviceaccount:"
_AUTHENTICATED, _ACCOUNTS = "system:authenticated", "system:serviceaccounts"
_WORK = ["", "batch"]  # groups in which those who may edit work
_READ = ["get", "list", "watch"]
_READABLE = [
    "pods", "pods/log", "pods/status", "jobs", "jobs/status", "configmaps", "events", "services",
    "serviceaccounts", "resourcequotas", "limitranges", "namespaces",
]  # fmt: skip


def _rule(groups: list[str], resources: list[str], verbs: list[str]) -> Json:
    return {"apiGroups": groups, "resources": resources, "verbs": verbs}


_VIEW = [_rule(_WORK, _READABLE, _READ)]
_EDIT = [
    *_VIEW,
    _rule(_WORK, [r for r in _READABLE if r not in ("namespaces", "resourcequotas", "limitranges")],
          ["*"]),
    _rule([""], ["secrets", "pods/exec", "pods/attach", "pods/eviction", "serviceaccounts/token"],
          ["*"]),
]  # fmt: skip
_BUILT_IN = {
    "view": _VIEW,
    "edit": _EDIT,
    "admin": [
        *_EDIT,
        _rule([ROLES.group], [ROLES.plural, ROLE_BINDINGS.plural], ["*"]),
        _rule([LOCAL_REVIEWS.group], [LOCAL_REVIEWS.plural], ["create"]),
    ],
    "cluster-admin": [_rule(["*"], ["*"], ["*"])],
}
_SPARK = "spark"  # an account whose pods may make pods, as drivers of Spark do
_MAKING = ["create", "get", "list", "watch", "patch", "delete", "deletecollection"]


class Roles:
    def __init__(self, store: Store) -> None:
        self._store = store

    def furnish(self) -> None:
        """Make the roles that every cluster has."""
        for name, rules in _BUILT_IN.items():
            kind = {"kind": CLUSTER_ROLES.kind, "apiVersion": CLUSTER_ROLES.api_version}
            self._store.add(CLUSTER_ROLES, {**kind, "metadata": {"name": name}, "rules": rules})

    def furnish_spark(self, namespace: str) -> None:
        """Make the account that Spark's guide for Kubernetes tells to make."""
        role = {"apiGroup": ROLES.group, "kind": ROLES.kind, "name": _SPARK}
        subject = {"kind": SERVICE_ACCOUNTS.kind, "name": _SPARK, "namespace": namespace}
        self._add(SERVICE_ACCOUNTS, namespace, {})
        self._add(ROLES, namespace, {"rules": [_rule([""], ["pods"], _MAKING)]})
        self._add(ROLE_BINDINGS, namespace, {"roleRef": role, "subjects": [subject]})

    def _add(self, resource: Resource, namespace: str, rest: Json) -> None:
        kind = {"kind": resource.kind, "apiVersion": resource.api_version}
        self._store.add(
            resource, {**kind, "metadata": {"name": _SPARK, "namespace": namespace}, **rest}
        )

    def allow(
        self, user: str, groups: Sequence[str], verb: str, group: str, what: str, namespace: str,
        name: str,
    ) -> bool:  # fmt: skip
        """Whether a rule covers it; `what` is a plural, with its subresource."""
        return any(
            _covers(rule.get("verbs"), verb)
            and _covers(rule.get("apiGroups"), group)
            and (_covers(rule.get("resources"), what) or _star(rule, what))
            and (not rule.get("resourceNames") or name in rule["resourceNames"])
            for rule in self._rules(user, groups, namespace)
        )

    def _rules(self, user: str, groups: Sequence[str], namespace: str) -> Iterator[Json]:
        bindings = list(self._store.each(CLUSTER_ROLE_BINDINGS))
        if namespace:
            bindings += self._store.all(ROLE_BINDINGS, namespace)
        for binding in bindings:
            where = binding["metadata"].get("namespace", "")
            subjects = binding.get("subjects") or []
            if any(_is(subject, user, groups, where) for subject in subjects):
                ref = binding["roleRef"]
                cluster = ref["kind"] == CLUSTER_ROLES.kind
                resource = CLUSTER_ROLES if cluster else ROLES
                role = self._store.find(resource, "" if cluster else where, ref["name"])
                yield from (role or {}).get("rules") or []


def _covers(given: list[str] | None, wanted: str) -> bool:
    return given is not None and ("*" in given or wanted in given)


def _star(rule: Json, what: str) -> bool:
    """`*/log` of a rule: a subresource of anything."""
    sub = what.partition("/")[2]
    return bool(sub) and f"*/{sub}" in (rule.get("resources") or [])


def groups_of(user: str) -> list[str]:
    """The groups of somebody who has shown a token."""
    everybody, _, account = user.partition(_ACCOUNT)
    if everybody or not account:
        return [_AUTHENTICATED]
    return [_AUTHENTICATED, _ACCOUNTS, f"{_ACCOUNTS}:{account.partition(':')[0]}"]


def _is(subject: Json, user: str, groups: Sequence[str], namespace: str) -> bool:
    name = subject.get("name", "")
    match subject.get("kind"):
        case "ServiceAccount":
            return user == f"{_ACCOUNT}{subject.get('namespace') or namespace}:{name}"
        case "User":
            return bool(name == user)
        case "Group":
            return name in groups
    return False
