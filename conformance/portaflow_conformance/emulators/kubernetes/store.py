"""All objects of the API server, their versions, and who watches them.

Objects are never changed once stored: a change stores a new one. So a list, a page that is
read later and a watch that lags all see what was true at their version. Used from one thread.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from . import problems
from .problems import Json
from .resources import Resource
from .selectors import Matcher

Key = tuple[str, str]  # namespace ("" when there is none), name
Listener = Callable[["Change"], None]

_HISTORY = 5000  # changes that a watch can go back
_SNAPSHOTS = 50  # lists whose further pages are kept


@dataclass(frozen=True, slots=True)
class Change:
    """One step of an object's life. `old` is None for the first."""

    version: int
    type: str  # ADDED MODIFIED DELETED
    resource: Resource
    key: Key
    object: Json
    old: Json | None


class Watcher:
    """Changes of one collection that wait to be sent."""

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.queue: asyncio.Queue[Change | None] = asyncio.Queue()


class Store:
    """`clock` gives the time that timestamps carry."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.version = 1
        self.listeners: list[Listener] = []
        self._objects: dict[str, dict[Key, Json]] = {}
        self._history: deque[Change] = deque(maxlen=_HISTORY)
        self._watchers: set[Watcher] = set()
        self._snapshots: dict[str, tuple[int, list[Json]]] = {}

    def now(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def get(self, resource: Resource, namespace: str, name: str) -> Json:
        found = self.find(resource, namespace, name)
        if found is None:
            raise problems.not_found(resource.group, resource.plural, name)
        return found

    def find(self, resource: Resource, namespace: str, name: str) -> Json | None:
        return self._objects.get(resource.plural, {}).get((namespace, name))

    def all(self, resource: Resource, namespace: str = "") -> list[Json]:
        """The objects of a collection in the API server's order; "" is every namespace."""
        found = self._objects.get(resource.plural, {})
        return [o for key, o in sorted(found.items()) if namespace in ("", key[0])]

    def each(self, resource: Resource) -> Iterator[Json]:
        """The objects of a collection, oldest first."""
        yield from list(self._objects.get(resource.plural, {}).values())

    def add(self, resource: Resource, obj: Json) -> Json:
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        if self.find(resource, *key) is not None:
            raise problems.already_exists(resource.group, resource.plural, key[1])
        meta = {
            **meta,
            "uid": meta.get("uid") or str(uuid.uuid4()),
            "creationTimestamp": self.now(),
            **({"generation": 1} if resource.counts_generation else {}),
        }
        return self._put("ADDED", resource, key, {**obj, "metadata": meta}, None)

    def replace(self, resource: Resource, obj: Json) -> Json:
        """Store a new state of an object that exists; nothing happens when it is the same."""
        meta = obj["metadata"]
        key = (meta.get("namespace", ""), meta["name"])
        old = self.get(resource, *key)
        if obj == old:
            return old
        if resource.counts_generation and obj.get("spec") != old.get("spec"):
            obj = {**obj, "metadata": {**meta, "generation": meta.get("generation", 1) + 1}}
        new = obj["metadata"]
        held = new.get("finalizers") or new.get("deletionGracePeriodSeconds")
        if new.get("deletionTimestamp") and not held:
            return self.remove(resource, *key, last=obj)
        return self._put("MODIFIED", resource, key, obj, old)

    def remove(
        self, resource: Resource, namespace: str, name: str, last: Json | None = None
    ) -> Json:
        old = self.get(resource, namespace, name)
        return self._put("DELETED", resource, (namespace, name), last or old, old)

    def _put(self, type_: str, resource: Resource, key: Key, obj: Json, old: Json | None) -> Json:
        self.version += 1
        obj = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        objects = self._objects.setdefault(resource.plural, {})
        if type_ == "DELETED":
            del objects[key]
        else:
            objects[key] = obj
        change = Change(self.version, type_, resource, key, obj, old)
        self._history.append(change)
        for watcher in self._watchers:
            if watcher.resource is resource:
                watcher.queue.put_nowait(change)
        for listener in self.listeners:
            listener(change)
        return obj

    def page(
        self, resource: Resource, namespace: str, matches: Matcher, limit: int, token: str
    ) -> tuple[int, list[Json], str, int]:
        """One page of a list: version, objects, the next page's token, how many are left.

        Further pages are of the version of the first.
        """
        if token:
            snapshot, _, start = token.partition("-")
            if snapshot not in self._snapshots or not start.isdigit():
                raise problems.expired(
                    "The provided continue parameter is too old to display a consistent list "
                    "result. You can start a new list without the continue parameter, or use the "
                    "continue token in this response to retrieve the remainder of the results."
                )
            version, found = self._snapshots[snapshot]
            at = int(start)
        else:
            version, at = self.version, 0
            found = [o for o in self.all(resource, namespace) if matches(o)]
            snapshot = uuid.uuid4().hex
        end = at + limit if limit else len(found)
        if end >= len(found):
            return version, found[at:], "", 0
        self._snapshots[snapshot] = (version, found)
        while len(self._snapshots) > _SNAPSHOTS:
            del self._snapshots[next(iter(self._snapshots))]
        return version, found[at:end], f"{snapshot}-{end}", len(found) - end

    def expire(self) -> None:
        """Forget the history and the pages: what was read before is too old from now on."""
        self._history.clear()
        self._snapshots.clear()

    def watch(self, resource: Resource, since: int) -> tuple[Watcher, list[Change]]:
        """Start a watch: what happened after version `since`, and what will."""
        oldest = self._history[0].version - 1 if self._history else self.version
        if since < oldest:
            raise problems.expired(f"too old resource version: {since} ({oldest})")
        if since > self.version:
            raise problems.from_the_future(since, self.version)
        watcher = Watcher(resource)
        self._watchers.add(watcher)
        return watcher, [c for c in self._history if c.version > since and c.resource is resource]

    def unwatch(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def close(self) -> None:
        """End every watch."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(None)


def encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
