"""Objects that can be appended to: seen from the first byte, and growing until they are final."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .items import Conditions, Draft, GcsError, Item, not_found
from .objects import Objects


@dataclass(slots=True)
class Appending:
    """An object that grows, and the stream that may write to it: the one that came last."""

    item: Item
    draft: Draft
    writer: object


class Appends:
    """All of them, by their generations."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._all: dict[int, Appending] = {}
        self._lock = threading.Lock()

    def begin(
        self, bucket: str, name: str, fields: Mapping[str, Any], conditions: Conditions,
        writer: object,
    ) -> Appending:  # fmt: skip
        draft = self._objects.draft()
        item = self._objects.put(bucket, name, draft, fields, conditions, finished=False)
        with self._lock:
            self._all[item.generation] = Appending(item, draft, writer)
            return self._all[item.generation]

    def take_over(self, item: Item, writer: object) -> Appending:
        """Go on where another stream has left off. That one may write no more."""
        with self._lock:
            if (found := self._all.get(item.generation)) is None:
                text = "The object is final, and cannot be appended to."
                raise GcsError(412, "failedPrecondition", text)
            found.writer = writer
            return found

    def write(self, appending: Appending, writer: object, offset: int, data: bytes) -> None:
        with self._lock:
            self._check(appending, writer)
            size = appending.draft.size
            if offset > size:
                text = f"the write_offset is {offset}, where {size} bytes have arrived"
                raise GcsError(400, "outOfRange", f"Invalid request: {text}.")
            appending.draft.write(data[size - offset :])

    def keep(
        self, appending: Appending, writer: object, promised: str = "", *, final: bool = False
    ) -> Item:
        """Let readers see what has been written. When it is final, it grows no more."""
        with self._lock:
            self._check(appending, writer)
            draft = appending.draft
            if promised not in ("", draft.crc32c):
                text = f'Provided crc32c "{promised}" doesn\'t match calculated "{draft.crc32c}".'
                raise GcsError(400, "invalid", text)
            try:
                appending.item = self._objects.grow(appending.item, draft, finished=final)
            except GcsError:  # somebody has replaced or deleted it
                final = True
                raise
            finally:
                if final:
                    del self._all[appending.item.generation]
            return appending.item

    def rest(self, appending: Appending) -> None:
        """A stream has broken: who comes next goes on with what has arrived."""
        with self._lock:
            appending.draft.close()

    def _check(self, appending: Appending, writer: object) -> None:
        if appending.item.generation not in self._all:
            raise not_found(f"{appending.item.bucket}/{appending.item.name}")
        if appending.writer is not writer:
            raise GcsError(409, "aborted", "Another stream has taken over this object.")
