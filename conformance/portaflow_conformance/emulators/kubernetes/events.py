"""Events about objects: what happened, how often; old ones are forgotten."""

from __future__ import annotations

import time
from collections import deque

from .problems import Json
from .resources import EVENTS
from .store import Store

_LIFETIME = 3600.0  # seconds, as on a cluster
_MOST = 20_000  # kept: a load of hours must not grow without end


class Events:
    """Records events; equal ones are one event with a count."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told: dict[tuple[str, str, str], tuple[str, str]] = {}
        self._order: deque[tuple[float, tuple[str, str, str]]] = deque()

    def record(self, about: Json, type_: str, reason: str, message: str, source: str) -> None:
        meta = about["metadata"]
        same = (meta["uid"], reason, message)
        now = self._store.now()
        key = self._told.get(same)
        event = self._store.find(EVENTS, *key) if key is not None else None
        if event is not None:
            count = event["count"] + 1
            self._store.replace(EVENTS, {**event, "count": count, "lastTimestamp": now})
            return
        name = f"{meta['name'][:200]}.{time.time_ns():x}"  # sorts by time
        event = {
            "kind": "Event",
            "apiVersion": "v1",
            "metadata": {"name": name, "namespace": meta["namespace"]},
            "involvedObject": {
                "kind": about["kind"],
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
                "apiVersion": about["apiVersion"],
                "resourceVersion": meta["resourceVersion"],
            },
            "reason": reason,
            "message": message,
            "source": {"component": source},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": type_,
            "eventTime": None,
            "reportingComponent": source,
            "reportingInstance": "",
        }
        self._store.add(EVENTS, event)
        self._told[same] = (meta["namespace"], name)
        self._order.append((self._store.clock(), same))
        self._forget()

    def _forget(self) -> None:
        oldest = self._store.clock() - _LIFETIME
        while self._order and (len(self._order) > _MOST or self._order[0][0] < oldest):
            key = self._told.pop(self._order.popleft()[1], None)
            if key is not None and self._store.find(EVENTS, *key) is not None:
                self._store.remove(EVENTS, *key)
