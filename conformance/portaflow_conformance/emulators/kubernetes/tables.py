"""What `kubectl get` prints: the server lays the table out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from .problems import Json
from .resources import (
    CONFIG_MAPS,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    Resource,
)  # fmt: skip

Cells = Callable[[Json, float], list[Any]]


def _age(stamp: str | None, now: float) -> str:
    if not stamp:
        return "<unknown>"
    return span(now - datetime.fromisoformat(stamp).timestamp())


def span(seconds: float) -> str:
    """A duration as kubectl writes it: 5s, 3m20s, 4h, 2d."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours = minutes // 60
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"


def pod_word(pod: Json) -> str:
    """The word in the column STATUS of a pod."""
    status = pod["status"]
    word = status.get("reason") or status.get("phase", "Unknown")
    inits = status.get("initContainerStatuses") or []
    for done, one in enumerate(inits):
        state = one.get("state") or {}
        ended = state.get("terminated")
        if ended and ended["exitCode"] == 0:
            continue
        told = (ended or state.get("waiting") or {}).get("reason", "")
        if told and told != "PodInitializing":
            return f"Init:{told}"
        return f"Init:{done}/{len(inits)}"
    for one in reversed(status.get("containerStatuses") or []):
        state = one.get("state") or {}
        told = (state.get("waiting") or state.get("terminated") or {}).get("reason")
        word = told or word
    final = status.get("phase") in ("Succeeded", "Failed")
    if pod["metadata"].get("deletionTimestamp") and not final:
        return "Terminating"
    return str(word)


def _pod(pod: Json, now: float) -> list[Any]:
    statuses = pod["status"].get("containerStatuses") or []
    ready = f"{sum(bool(s.get('ready')) for s in statuses)}/{len(pod['spec']['containers'])}"
    restarts = sum(s.get("restartCount", 0) for s in statuses)
    age = _age(pod["metadata"].get("creationTimestamp"), now)
    return [pod["metadata"]["name"], ready, pod_word(pod), str(restarts), age]


def _job(job: Json, now: float) -> list[Any]:
    spec, status = job["spec"], job.get("status") or {}
    kinds = {c["type"]: c for c in status.get("conditions") or [] if c["status"] == "True"}
    word = next((w for w in ("Complete", "Failed", "Suspended") if w in kinds), "Running")
    wanted = spec.get("completions")
    done = f"{status.get('succeeded') or 0}/{1 if wanted is None else wanted}"
    took = "<none>"
    if status.get("startTime"):
        end = status.get("completionTime")
        until = datetime.fromisoformat(end).timestamp() if end else now
        took = _age(status["startTime"], until)
    age = _age(job["metadata"].get("creationTimestamp"), now)
    return [job["metadata"]["name"], word, done, took, age]


def _event(event: Json, now: float) -> list[Any]:
    about = event.get("involvedObject") or {}
    seen = _age(event.get("lastTimestamp"), now)
    name = f"{about.get('kind', '').lower()}/{about.get('name', '')}"
    return [seen, event.get("type"), event.get("reason"), name, event.get("message")]


def _data(obj: Json, now: float) -> list[Any]:
    count = len(obj.get("data") or {}) + len(obj.get("binaryData") or {})
    return [obj["metadata"]["name"], count, _age(obj["metadata"].get("creationTimestamp"), now)]


def _secret(obj: Json, now: float) -> list[Any]:
    name, count, age = _data(obj, now)
    return [name, obj.get("type"), count, age]


def _phase(obj: Json, now: float) -> list[Any]:
    meta = obj["metadata"]
    return [meta["name"], obj["status"].get("phase"), _age(meta.get("creationTimestamp"), now)]


def _node(obj: Json, now: float) -> list[Any]:
    age = _age(obj["metadata"].get("creationTimestamp"), now)
    version = obj["status"]["nodeInfo"]["kubeletVersion"]
    return [obj["metadata"]["name"], "Ready", "<none>", age, version]


def _exposed(obj: Json, now: float) -> list[Any]:
    spec, meta = obj["spec"], obj["metadata"]
    ports = ",".join(f"{p['port']}/{p['protocol']}" for p in spec.get("ports") or []) or "<none>"
    age = _age(meta.get("creationTimestamp"), now)
    return [meta["name"], spec["type"], spec["clusterIP"], "<none>", ports, age]


def _plain(obj: Json, now: float) -> list[Any]:
    return [obj["metadata"]["name"], _age(obj["metadata"].get("creationTimestamp"), now)]


_TABLES: dict[str, tuple[str, Cells]] = {
    PODS.plural: ("Name Ready Status Restarts Age", _pod),
    JOBS.plural: ("Name Status Completions Duration Age", _job),
    EVENTS.plural: ("Last_Seen Type Reason Object Message", _event),
    CONFIG_MAPS.plural: ("Name Data Age", _data),
    SECRETS.plural: ("Name Type Data Age", _secret),
    NAMESPACES.plural: ("Name Status Age", _phase),
    SERVICES.plural: ("Name Type Cluster-IP External-IP Port(s) Age", _exposed),
    NODES.plural: ("Name Status Roles Age Version", _node),
}


def table(
    resource: Resource, objects: list[Json], meta: Json, now: float, *, include: str, columns: bool
) -> Json:
    """A Table of objects; `include` says how much of each goes with its row."""
    names, cells = _TABLES.get(resource.plural, ("Name Age", _plain))
    rows = [{"cells": cells(o, now), "object": _included(o, include)} for o in objects]
    heads = [
        {
            "name": name.replace("_", " "),
            "type": "string",
            "format": "name" if name == "Name" else "",
            "description": "",
            "priority": 0,
        }
        for name in names.split()
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": heads if columns else None,
        "rows": rows,
    }


def _included(obj: Json, include: str) -> Json | None:
    if include == "Object":
        return obj
    if include == "None":
        return None
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }
