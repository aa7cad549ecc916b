"""The buckets and objects of the local GCS: what both of its APIs read and write.

Contents are files, one per generation, never changed once an object has them: a reader keeps
what it opened while a writer replaces the object. What is known of objects is in memory, as
is the order of their names: by code point, which is the order of their UTF-8 bytes.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from ..control import Fault
from .items import (
    NONE,
    Bucket,
    Conditions,
    Draft,
    GcsError,
    Item,
    Listing,
    check_name,
    invalid,
    not_found,
)
from .listing import Wanted, page

_CHUNK = 2**20
_HIDING: ContextVar[float] = ContextVar("hiding", default=0.0)
MOST_PARTS = 32  # sources of one compose


class Objects:
    """All buckets. Thread-safe; a precondition and what depends on it are one step."""

    def __init__(self, folder: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder = folder
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._buckets: dict[str, Bucket] = {}
        self._last = 0
        self._drafts = 0

    @contextmanager
    def hiding(self, fault: Fault | None) -> Iterator[None]:
        """If that was ordered, what is new in here is listed only after some seconds."""
        hides = fault is not None and fault.effect == "hide"
        before = _HIDING.set(self._clock() + fault.seconds if fault and hides else 0.0)
        try:
            yield
        finally:
            _HIDING.reset(before)

    def draft(self, composed: bool = False) -> Draft:
        with self._lock:
            self._drafts += 1
            number = self._drafts
        return Draft(self._folder / f"{number:08x}", composed)

    def received(self, chunks: Iterable[bytes]) -> Draft:
        """A draft of what a client sends; nothing is left of what broke off."""
        draft = self.draft()
        try:
            for data in chunks:
                draft.write(data)
        except BaseException:
            draft.discard()
            raise
        return draft

    def _generation(self) -> int:
        self._last = max(self._last + 1, int(time.time() * 1e6))
        return self._last

    def create_bucket(self, name: str, fields: Mapping[str, Any]) -> Bucket:
        with self._lock:
            if name in self._buckets:
                message = "Your previous request to create the named bucket succeeded"
                raise GcsError(409, "conflict", f"{message} and you already own it.")
            now = time.time()
            bucket = self._buckets[name] = Bucket(name, dict(fields), now, now)
            return bucket

    def bucket(self, name: str) -> Bucket:
        with self._lock:
            if (found := self._buckets.get(name)) is None:
                raise GcsError(404, "notFound", "The specified bucket does not exist.")
            return found

    def ensure_bucket(self, name: str) -> Bucket:
        with self._lock:
            return self._buckets.get(name) or self.create_bucket(name, {})

    def buckets(self, prefix: str = "") -> list[Bucket]:
        with self._lock:
            return [b for name, b in sorted(self._buckets.items()) if name.startswith(prefix)]

    def patch_bucket(self, name: str, fields: Mapping[str, Any]) -> Bucket:
        with self._lock:
            bucket = self.bucket(name)
            bucket.fields = _patched(bucket.fields, fields)
            bucket.metageneration += 1
            bucket.updated = time.time()
            return bucket

    def delete_bucket(self, name: str) -> None:
        with self._lock:
            if self.bucket(name).items:
                raise GcsError(409, "conflict", "The bucket you tried to delete is not empty.")
            del self._buckets[name]

    def put(
        self,
        bucket: str,
        name: str,
        draft: Draft,
        fields: Mapping[str, Any] | None = None,
        conditions: Conditions = NONE,
        components: int = 0,
        *,
        finished: bool = True,
    ) -> Item:
        """Make `draft` the object of that name, or discard it."""
        draft.close()
        try:
            check_name(name)
            with self._lock:
                holder = self.bucket(bucket)
                old = holder.items.get(name)
                conditions.check(old)
                now = time.time()
                item = Item(
                    bucket=bucket,
                    name=name,
                    generation=self._generation(),
                    contents=draft.contents,
                    size=draft.size,
                    crc32c=draft.crc32c,
                    md5=draft.md5 if finished and not components else "",
                    fields=dict(fields or {}),
                    created=now,
                    updated=now,
                    components=components,
                    hidden=old.hidden if old else _HIDING.get(),
                    finished=finished,
                    appended=not finished,
                )
                if old is None:
                    bisect.insort(holder.order, name)
                holder.items[name] = item
        except GcsError:
            draft.discard()
            raise
        if old is not None:
            old.contents.remove()
        return item

    def grow(self, item: Item, draft: Draft, *, finished: bool) -> Item:
        """Let an object that can be appended to be as long as its draft is by now."""
        draft.close()
        with self._lock:
            old = self.get(item.bucket, item.name, item.generation)
            new = replace(
                old, size=draft.size, crc32c=draft.crc32c, finished=finished, updated=time.time()
            )
            self.bucket(item.bucket).items[item.name] = new
            return new

    def get(
        self,
        bucket: str,
        name: str,
        generation: int | None = None,
        conditions: Conditions = NONE,
        *,
        reading: bool = True,
    ) -> Item:
        with self._lock:
            item = self.bucket(bucket).items.get(name)
            if item is None or generation not in (None, item.generation):
                raise not_found(f"{bucket}/{name}")
            conditions.check(item, reading=reading)
            return item

    def read(
        self,
        bucket: str,
        name: str,
        generation: int | None = None,
        conditions: Conditions = NONE,
    ) -> tuple[Item, IO[bytes]]:
        """An object and its contents, which stay readable when it is replaced."""
        with self._lock:
            item = self.get(bucket, name, generation, conditions)
            return item, item.contents.open()

    def delete(
        self,
        bucket: str,
        name: str,
        generation: int | None = None,
        conditions: Conditions = NONE,
    ) -> None:
        with self._lock:
            item = self.get(bucket, name, generation, conditions, reading=False)
            holder = self.bucket(bucket)
            del holder.items[name]
            del holder.order[bisect.bisect_left(holder.order, name)]
        item.contents.remove()

    def patch(
        self, bucket: str, name: str, fields: Mapping[str, Any], conditions: Conditions = NONE,
        *, whole: bool = False,
    ) -> Item:  # fmt: skip
        with self._lock:
            old = self.get(bucket, name, None, conditions, reading=False)
            changed = dict(fields) if whole else _patched(old.fields, fields)
            item = replace(
                old, fields=changed, metageneration=old.metageneration + 1, updated=time.time()
            )
            self.bucket(bucket).items[name] = item
            return item

    def copy(
        self,
        source: Item,
        bucket: str,
        name: str,
        fields: Mapping[str, Any] | None = None,
        conditions: Conditions = NONE,
    ) -> Item:
        draft = self.draft()
        self._append(draft, [source])
        return self.put(
            bucket, name, draft, source.fields if fields is None else fields, conditions,
            source.components,
        )  # fmt: skip

    def move(self, source: Item, name: str, conditions: Conditions = NONE) -> Item:
        with self._lock:
            moved = self.copy(source, source.bucket, name, None, conditions)
            self.delete(source.bucket, source.name, source.generation)
            return moved

    def compose(
        self,
        bucket: str,
        name: str,
        sources: list[Item],
        fields: Mapping[str, Any],
        conditions: Conditions = NONE,
    ) -> Item:
        if not 1 <= len(sources) <= MOST_PARTS:
            raise invalid(f"The number of source components must be 1 to {MOST_PARTS}.")
        draft = self.draft(composed=True)
        self._append(draft, sources)
        count = sum(max(source.components, 1) for source in sources)
        return self.put(bucket, name, draft, fields, conditions, count)

    @staticmethod
    def _append(draft: Draft, sources: Iterable[Item]) -> None:
        try:
            for source in sources:
                left = source.size  # one that grows may have more, which nobody sees yet
                with source.contents.open() as file:
                    while data := file.read(min(left, _CHUNK)):
                        draft.write(data)
                        left -= len(data)
        except FileNotFoundError as error:
            draft.discard()
            raise not_found("a source was replaced while it was read") from error

    def list(self, bucket: str, wanted: Wanted) -> Listing:
        with self._lock:
            return page(self.bucket(bucket), wanted, self._clock())


def _patched(old: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Merge as PATCH does: null takes a field away, maps are merged."""
    new = dict(old)
    for key, value in change.items():
        if value is None:
            new.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(new.get(key), Mapping):
            new[key] = _patched(new[key], value)
        elif isinstance(value, Mapping):
            new[key] = _patched({}, value)
        else:
            new[key] = value
    return new
