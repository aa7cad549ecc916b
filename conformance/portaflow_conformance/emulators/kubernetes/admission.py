"""What a namespace demands of new objects: limits, quotas, a token for pods, and their security."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

from . import podsecurity, problems
from .podspec import quantity, requested
from .problems import Json
from .resources import (
    EVENTS,
    LIMIT_RANGES,
    NAMESPACES,
    PODS,
    QUOTAS,
    RESOURCES,
    SERVICE_ACCOUNTS,
    Resource,
)  # fmt: skip
from .store import Change, Store

TOKENS = "/var/run/secrets/kubernetes.io/serviceaccount"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_TOKEN_LIFE = 3607  # seconds, by which a cluster's own are told from others
_ENDED = ("Succeeded", "Failed")


class Admission:
    """`mounts_tokens`: whether pods can have volumes at all where this runs."""

    def __init__(self, store: Store, *, mounts_tokens: bool) -> None:
        self._store = store
        self._mounts_tokens = mounts_tokens
        store.listeners.append(self._changed)

    def completed(self, namespace: str, pod: Json) -> Json:
        """The pod with what its namespace adds: default limits, and its account's token."""
        spec = {**(pod.get("spec") or {})}
        ranges = self._store.all(LIMIT_RANGES, namespace)
        for kind in ("containers", "initContainers"):
            if spec.get(kind):
                spec[kind] = [_ranged(c, ranges) for c in spec[kind]]
        if self._mounts_tokens and self._wants_token(namespace, spec):
            _mount_token(spec)
        return {**pod, "spec": spec}

    def _wants_token(self, namespace: str, spec: Json) -> bool:
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        account = self._store.find(SERVICE_ACCOUNTS, namespace, name) or {}
        for told in (spec, account):
            if (value := told.get("automountServiceAccountToken")) is not None:
                return bool(value)
        return True

    def check(self, resource: Resource, namespace: str, obj: Json) -> None:
        """Refuse what the namespace does not let in."""
        name = obj["metadata"]["name"]
        if resource is PODS:
            found = self._store.get(NAMESPACES, "", namespace)
            level = (found["metadata"].get("labels") or {}).get(podsecurity.LABEL, "privileged")
            if why := podsecurity.violations(level, obj["spec"]):
                text = f'violates PodSecurity "{level}:latest": {", ".join(why)}'
                raise problems.refused(PODS, name, text)
            for one in self._store.all(LIMIT_RANGES, namespace):
                _check_range(one, obj)
        wanted = _charged(resource, obj) if resource in _COUNTED else {}
        for quota in self._store.all(QUOTAS, namespace):
            hard = (quota.get("spec") or {}).get("hard") or {}
            _check_quota(quota, hard, wanted, self._used(namespace, hard), resource, name)

    # -- quotas

    def _used(self, namespace: str, hard: Json) -> dict[str, Fraction]:
        used = {name: Fraction(0) for name in hard}
        for resource in _COUNTED:
            for obj in self._store.all(resource, namespace):
                for name, amount in _charged(resource, obj).items():
                    if name in used:
                        used[name] += amount
        return used

    def _changed(self, change: Change) -> None:
        """Keep the status of quotas."""
        if change.resource is not QUOTAS and change.resource not in _COUNTED:
            return
        for quota in self._store.all(QUOTAS, change.key[0]):
            hard = (quota.get("spec") or {}).get("hard") or {}
            used = {k: _text(v) for k, v in self._used(change.key[0], hard).items()}
            self._store.replace(QUOTAS, {**quota, "status": {"hard": hard, "used": used}})


_COUNTED = tuple(r for r in RESOURCES if r.namespaced and r not in (EVENTS, QUOTAS))


def _charged(resource: Resource, obj: Json) -> dict[str, Fraction]:
    """What an object takes of a quota."""
    plural = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
    charged = {f"count/{plural}": Fraction(1)}
    if resource is not PODS:
        return charged if resource.group else {**charged, resource.plural: Fraction(1)}
    if (obj.get("status") or {}).get("phase") in _ENDED:
        return charged
    charged["pods"] = Fraction(1)
    for name, amount in requested(obj["spec"]).items():
        charged |= {f"requests.{name}": amount, name: amount}
    for container in obj["spec"]["containers"]:
        for name, value in ((container.get("resources") or {}).get("limits") or {}).items():
            key = f"limits.{name}"
            charged[key] = charged.get(key, Fraction(0)) + quantity(value)
    return charged


def _check_quota(
    quota: Json, hard: Json, wanted: dict[str, Fraction], used: dict[str, Fraction],
    resource: Resource, name: str,
) -> None:  # fmt: skip
    title = quota["metadata"]["name"]
    if resource is PODS:
        lacking = [k for k in hard if k not in wanted and not k.startswith("count/")]
        if lacking:
            text = f"failed quota: {title}: must specify {','.join(lacking)} for: {name}"
            raise problems.refused(resource, name, text)
    over = [k for k in hard if k in wanted and used[k] + wanted[k] > quantity(hard[k])]
    if over:
        shown = [
            f"{word}: {','.join(f'{k}={_text(amounts[k])}' for k in over)}"
            for word, amounts in (
                ("requested", wanted), ("used", used),
                ("limited", {k: quantity(hard[k]) for k in over}),
            )
        ]  # fmt: skip
        raise problems.refused(resource, name, f"exceeded quota: {title}, {', '.join(shown)}")


def _text(amount: Fraction) -> str:
    return str(amount) if amount.denominator == 1 else f"{int(amount * 1000)}m"


# -- limits


def _container_limits(ranges: list[Json]) -> list[Json]:
    limits = (limit for one in ranges for limit in (one.get("spec") or {}).get("limits") or [])
    return [limit for limit in limits if limit.get("type") == "Container"]


def _ranged(container: Json, ranges: list[Json]) -> Json:
    resources: dict[str, Any] = dict(container.get("resources") or {})
    for limit in _container_limits(ranges):
        given = resources.get("limits") or {}
        asked = {**(limit.get("defaultRequest") or {}), **given} if given else (
            limit.get("defaultRequest") or {}
        )  # fmt: skip
        resources["limits"] = {**(limit.get("default") or {}), **given}
        resources["requests"] = {**asked, **(resources.get("requests") or {})}
    return {**container, "resources": resources} if resources else container


def _check_range(limits: Json, pod: Json) -> None:
    for limit in _container_limits([limits]):
        for container in pod["spec"]["containers"]:
            resources = container.get("resources") or {}
            for name, most in (limit.get("max") or {}).items():
                given = (resources.get("limits") or {}).get(name)
                if given is None or quantity(given) > quantity(most):
                    told = f"maximum {name} usage per Container is {most}, but " + (
                        "no limit is specified" if given is None else f"limit is {given}"
                    )
                    raise problems.refused(PODS, pod["metadata"]["name"], told)
            for name, least in (limit.get("min") or {}).items():
                given = (resources.get("requests") or {}).get(name)
                if given is None or quantity(given) < quantity(least):
                    told = f"minimum {name} usage per Container is {least}, but " + (
                        "no request is specified" if given is None else f"request is {given}"
                    )
                    raise problems.refused(PODS, pod["metadata"]["name"], told)


# -- the account's token


def _mount_token(spec: Json) -> None:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    paths = {m.get("mountPath") for c in containers for m in c.get("volumeMounts") or []}
    if TOKENS in paths:
        return
    name = f"kube-api-access-{''.join(random.choices(_LETTERS, k=5))}"
    place = {
        "path": "namespace",
        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
    }
    authority = {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": _TOKEN_LIFE, "path": "token"}},
        {"configMap": authority},
        {"downwardAPI": {"items": [place]}},
    ]
    volume = {"name": name, "projected": {"sources": sources, "defaultMode": 0o644}}
    spec["volumes"] = [*(spec.get("volumes") or []), volume]
    mount = {"name": name, "readOnly": True, "mountPath": TOKENS}
    for kind in ("initContainers", "containers"):
        if spec.get(kind):
            spec[kind] = [
                {**c, "volumeMounts": [*(c.get("volumeMounts") or []), mount]} for c in spec[kind]
            ]
