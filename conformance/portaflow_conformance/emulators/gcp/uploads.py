"""Resumable uploads of the JSON API, and the multipart uploads of the XML API.

What has arrived of a resumable upload is kept when its connection breaks, and a query of its
status tells how much that is: the client goes on from there.
"""

from __future__ import annotations

import base64
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .items import Conditions, Draft, GcsError, Item, invalid
from .objects import Objects

GRAIN = 256 * 1024  # all chunks but the last are a multiple of this
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass(slots=True)
class Resumable:
    """One session: where the bytes go, and what they become."""

    id: str
    bucket: str
    name: str
    draft: Draft
    fields: Mapping[str, Any]
    conditions: Conditions
    total: int | None = None
    item: Item | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(slots=True)
class Multipart:
    """One upload in parts."""

    id: str
    bucket: str
    name: str
    fields: Mapping[str, Any]
    parts: dict[int, Draft] = field(default_factory=dict)


class Uploads:
    """All uploads that are going on, and the sessions that have ended."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._sessions: dict[str, Resumable] = {}
        self._multiparts: dict[str, Multipart] = {}
        self._lock = threading.Lock()

    def begin(
        self, bucket: str, name: str, fields: Mapping[str, Any], conditions: Conditions,
        total: int | None,
    ) -> Resumable:  # fmt: skip
        holder = self._objects.bucket(bucket)
        conditions.check(holder.items.get(name))
        key = secrets.token_urlsafe(32)
        draft = self._objects.draft().close()
        session = Resumable(key, bucket, name, draft, fields, conditions, total)
        with self._lock:
            self._sessions[key] = session
        return session

    def session(self, key: str) -> Resumable:
        with self._lock:
            if (found := self._sessions.get(key)) is None:
                raise GcsError(404, "notFound", "No such upload session.")
            return found

    def knows(self, key: str) -> bool:
        with self._lock:
            return key in self._sessions

    def cancel(self, key: str) -> None:
        session = self.session(key)
        with self._lock:
            del self._sessions[key]
        if session.item is None:
            session.draft.discard()

    def receive(self, session: Resumable, content_range: str, body: Iterator[bytes]) -> None:
        """Take a chunk; `session.item` is set when it was the last."""
        with session.lock:
            if session.item is not None:
                return
            draft = session.draft
            if not content_range:  # the whole in one request
                start, end, total = 0, None, None
            else:
                if not (found := _RANGE.fullmatch(content_range)):
                    raise invalid(f"Failed to parse Content-Range header: {content_range!r}")
                total = None if found[3] == "*" else int(found[3])
                start, end = (int(found[1]), int(found[2])) if found[1] else (draft.size, -1)
            if end != -1:
                self._take(draft, start, body)
            if total is not None:
                session.total = total
            if end == -1 and total is None:
                return
            if content_range and total is None:
                if draft.size % GRAIN:
                    text = f"The number of bytes uploaded must be a multiple of {GRAIN}"
                    raise invalid(f"Invalid request. {text}, except for the final request.")
                return
            if total is not None and draft.size < total:
                return
            if session.total not in (None, draft.size):
                text = f"{draft.size} bytes were uploaded where {session.total} were announced"
                raise invalid(f"Invalid request. {text}.")
            self._finish(session)

    def write(self, session: Resumable, offset: int, data: bytes) -> None:
        """Take what a stream sends; nothing more is taken of what is an object already."""
        with session.lock:
            if session.item is None:
                self._take(session.draft, offset, iter((data,)))

    def end(self, session: Resumable, promised: Mapping[str, str]) -> Item:
        """Make an object of what has arrived."""
        with session.lock:
            if session.item is None:
                session.fields = {**session.fields, **promised}
                self._finish(session)
            assert session.item is not None
            return session.item

    def _finish(self, session: Resumable) -> None:
        session.item = finish(
            self._objects, session.bucket, session.name, session.draft, session.fields,
            session.conditions,
        )  # fmt: skip

    @staticmethod
    def _take(draft: Draft, start: int, body: Iterator[bytes]) -> None:
        if start > draft.size:
            text = f"the upload offset is {start} byte(s), where {draft.size} have arrived"
            text = f"Invalid request. According to the Content-Range header, {text}."
            raise GcsError(400, "outOfRange", text)
        known = draft.size - start  # sent again by a client that had no answer
        try:
            for data in body:
                new = data[known:]
                known = max(known - len(data), 0)
                draft.write(new)
        finally:
            draft.close()

    def initiate(self, bucket: str, name: str, fields: Mapping[str, Any]) -> Multipart:
        self._objects.bucket(bucket)
        upload = Multipart(secrets.token_urlsafe(32), bucket, name, fields)
        with self._lock:
            self._multiparts[upload.id] = upload
        return upload

    def multipart(self, key: str, bucket: str, name: str) -> Multipart:
        with self._lock:
            found = self._multiparts.get(key)
        if found is None or (found.bucket, found.name) != (bucket, name):
            raise _no_upload()
        return found

    def part(self, upload: Multipart, number: int, draft: Draft) -> None:
        if not 1 <= number <= 10_000:
            draft.discard()
            raise GcsError(400, "InvalidArgument", "Part number must be 1 to 10000.")
        with self._lock:
            if upload.id not in self._multiparts:  # completed or given up meanwhile
                draft.discard()
                raise _no_upload()
            old = upload.parts.get(number)
            upload.parts[number] = draft.close()
        if old:
            old.discard()

    def complete(
        self, upload: Multipart, wanted: list[tuple[int, str]], conditions: Conditions
    ) -> Item:
        numbers = [number for number, _ in wanted]
        if not wanted or numbers != sorted(set(numbers)):
            raise GcsError(400, "InvalidPartOrder", "The parts are not in ascending order.")
        conditions.check(self._objects.bucket(upload.bucket).items.get(upload.name))
        with self._lock:
            for number, etag in wanted:
                part = upload.parts.get(number)
                if part is None or etag.strip('"') != part_etag(part):
                    raise GcsError(400, "InvalidPart", f"Part {number} was not found or changed.")
            if self._multiparts.pop(upload.id, None) is None:
                raise _no_upload()
        whole = self._objects.draft(composed=True)
        for number in numbers:
            whole.adopt(upload.parts.pop(number))
        item = self._objects.put(
            upload.bucket, upload.name, whole, upload.fields, conditions, len(wanted)
        )
        self.abort(upload)
        return item

    def abort(self, upload: Multipart) -> None:
        with self._lock:
            self._multiparts.pop(upload.id, None)
        for part in upload.parts.values():
            part.discard()


def _no_upload() -> GcsError:
    return GcsError(404, "NoSuchUpload", "The specified upload does not exist.")


def part_etag(part: Draft) -> str:
    return base64.b64decode(part.md5).hex()


def finish(
    objects: Objects, bucket: str, name: str, draft: Draft, fields: Mapping[str, Any],
    conditions: Conditions,
) -> Item:  # fmt: skip
    """Make a draft an object, unless its hash is not the one that the client promised."""
    kept = dict(fields)
    for hash_name, ours in (("md5Hash", draft.md5), ("crc32c", draft.crc32c)):
        promised = kept.pop(hash_name, None)
        if promised and promised != ours:
            draft.discard()
            raise invalid(f'Provided {hash_name} "{promised}" doesn\'t match calculated "{ours}".')
    return objects.put(bucket, name, draft, kept, conditions)
