"""What google.storage.v2 reads and writes by streams.

A stream of writes goes to one of two things: a session of a resumable upload, which becomes an
object at its end, or an object that can be appended to, which is one from the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import IO, Any

import google_crc32c
from google.cloud import _storage_v2 as v2

from . import gcs_proto as proto
from .appending import Appending, Appends
from .items import GcsError, Item, invalid
from .objects import Objects
from .rpc import Call
from .uploads import Resumable, Uploads

_CHUNK = 2**21  # bytes of a message, as Google has it
Requests = Iterator[Any]
Answers = Iterator[Any]


class Streams:
    def __init__(self, objects: Objects, uploads: Uploads) -> None:
        self._objects = objects
        self._uploads = uploads
        self._appends = Appends(objects)

    def read_object(self, requests: Requests, call: Call) -> Answers:
        asked = next(requests)
        item, file = self._opened(asked)
        with file:
            start, end = _bounds(item, asked.read_offset, asked.read_limit)
            answer = v2.ReadObjectResponse.pb()()
            answer.metadata.CopyFrom(proto.object_message(item))
            answer.object_checksums.CopyFrom(answer.metadata.checksums)
            answer.content_range.start, answer.content_range.end = start, end
            answer.content_range.complete_length = item.size
            for _, data in _chunks(file, start, end):
                _fill(answer.checksummed_data, data)
                yield answer
                answer = v2.ReadObjectResponse.pb()()

    def bidi_read_object(self, requests: Requests, call: Call) -> Answers:
        asked = next(requests)
        spec = asked.read_object_spec
        item, file = self._opened(spec)
        with file:
            first = v2.BidiReadObjectResponse.pb()()
            first.metadata.CopyFrom(proto.object_message(item))
            first.read_handle.handle = str(item.generation).encode()
            yield first
            while asked is not None:
                for wanted in asked.read_ranges:
                    yield from _range(item, file, wanted)
                asked = next(requests, None)

    def write_object(self, requests: Requests, call: Call) -> Answers:
        writing: _Writing | None = None
        answer = v2.WriteObjectResponse.pb()()
        try:
            for asked in requests:
                writing = writing or self._begun(asked)
                writing.take(asked)
                if asked.finish_write:
                    answer.resource.CopyFrom(proto.object_message(writing.final(asked)))
            if writing and not answer.HasField("resource"):
                answer.persisted_size = writing.halted()
        except BaseException:
            if writing:
                writing.broken()
            raise
        yield answer

    def bidi_write_object(self, requests: Requests, call: Call) -> Answers:
        writing: _Writing | None = None
        finished = False
        try:
            for asked in requests:
                opens = writing is None
                writing = writing or self._begun(asked)
                writing.take(asked)
                answer = v2.BidiWriteObjectResponse.pb()()
                if asked.finish_write:
                    answer.resource.CopyFrom(proto.object_message(writing.final(asked)))
                    finished = True
                    yield answer
                elif opens or asked.state_lookup or asked.flush:
                    item = writing.kept()
                    if opens and item:
                        answer.resource.CopyFrom(proto.object_message(item))
                        answer.write_handle.handle = str(item.generation).encode()
                    else:
                        answer.persisted_size = writing.size
                    if (item and opens) or asked.state_lookup:
                        yield answer
            if writing and not finished:
                writing.halted()
        except BaseException:
            if writing and not finished:
                writing.broken()
            raise

    def _opened(self, asked: Any) -> tuple[Item, IO[bytes]]:
        bucket = proto.bucket_name(asked.bucket)
        generation = asked.generation or None
        return self._objects.read(bucket, asked.object_, generation, proto.conditions(asked))

    def _begun(self, asked: Any) -> _Writing:
        """What the first message of a stream writes to."""
        kind = asked.WhichOneof("first_message")
        if kind == "upload_id":
            return _Session(self._uploads, self._uploads.session(asked.upload_id), kept=True)
        if kind == "append_object_spec":
            wanted = asked.append_object_spec
            bucket, name = proto.bucket_name(wanted.bucket), wanted.object_
            held = self._objects.get(
                bucket, name, wanted.generation, proto.conditions(wanted), reading=False
            )
            return _Growing(self._appends, held)
        if kind != "write_object_spec":
            raise invalid("The first message of a write says what is written.")
        spec = asked.write_object_spec
        bucket, name = proto.bucket_name(spec.resource.bucket), spec.resource.name
        fields, conditions = proto.object_fields(spec.resource), proto.conditions(spec)
        if spec.appendable:
            growing = _Growing(self._appends)
            growing.appending = self._appends.begin(bucket, name, fields, conditions, growing)
            return growing
        fields |= proto.promised(asked.object_checksums)
        total = proto.optional(spec, "object_size")
        session = self._uploads.begin(bucket, name, fields, conditions, total)
        return _Session(self._uploads, session, kept=False)


class _Writing(ABC):
    """What one stream writes to."""

    def take(self, asked: Any) -> None:
        """Take the contents of one message, if it has any."""
        if not asked.HasField("checksummed_data"):
            return
        data, sent = asked.checksummed_data.content, asked.checksummed_data
        if sent.HasField("crc32c") and sent.crc32c != google_crc32c.value(data):
            raise invalid("The data of a message does not match its crc32c.")
        self.write(asked.write_offset, data)

    @property
    @abstractmethod
    def size(self) -> int:
        """How much has arrived."""

    @abstractmethod
    def write(self, offset: int, data: bytes) -> None: ...

    @abstractmethod
    def kept(self) -> Item | None:
        """Persist what has arrived; the object, if there is one already."""

    @abstractmethod
    def final(self, asked: Any) -> Item:
        """Make the object, by the last message."""

    @abstractmethod
    def halted(self) -> int:
        """The client has said all, and not that it was the end."""

    @abstractmethod
    def broken(self) -> None:
        """The stream has broken."""


class _Session(_Writing):
    """A resumable upload, or (`kept` is false) one that ends with its stream."""

    def __init__(self, uploads: Uploads, session: Resumable, *, kept: bool) -> None:
        self._uploads, self._session, self._kept = uploads, session, kept

    @property
    def size(self) -> int:
        return self._session.draft.size

    def write(self, offset: int, data: bytes) -> None:
        self._uploads.write(self._session, offset, data)

    def kept(self) -> Item | None:
        return self._session.item

    def final(self, asked: Any) -> Item:
        return self._uploads.end(self._session, proto.promised(asked.object_checksums))

    def halted(self) -> int:
        if not self._kept:
            raise invalid("The last message of a write that cannot be resumed finishes it.")
        return self.size

    def broken(self) -> None:
        if not self._kept:
            self._uploads.cancel(self._session.id)


class _Growing(_Writing):
    """An object that can be appended to."""

    def __init__(self, appends: Appends, held: Item | None = None) -> None:
        self._appends = appends
        self.appending: Appending
        if held:
            self.appending = appends.take_over(held, self)

    @property
    def size(self) -> int:
        return self.appending.draft.size

    def write(self, offset: int, data: bytes) -> None:
        self._appends.write(self.appending, self, offset, data)

    def kept(self) -> Item:
        return self._appends.keep(self.appending, self)

    def final(self, asked: Any) -> Item:
        promised = proto.promised(asked.object_checksums).get("crc32c", "")
        return self._appends.keep(self.appending, self, promised, final=True)

    def halted(self) -> int:
        return self.kept().size

    def broken(self) -> None:
        self._appends.rest(self.appending)


def _bounds(item: Item, offset: int, limit: int) -> tuple[int, int]:
    start = max(item.size + offset, 0) if offset < 0 else offset
    if start > item.size or limit < 0:
        text = f"The read of {limit} bytes from {offset} is outside of the {item.size} bytes"
        raise GcsError(400, "outOfRange", f"{text} of {item.bucket}/{item.name}.")
    return start, min(start + limit, item.size) if limit else item.size


def _range(item: Item, file: IO[bytes], wanted: Any) -> Answers:
    start, end = _bounds(item, wanted.read_offset, wanted.read_length)
    for at, data in _chunks(file, start, end):
        answer = v2.BidiReadObjectResponse.pb()()
        part = answer.object_data_ranges.add()
        part.read_range.read_id = wanted.read_id
        part.read_range.read_offset, part.read_range.read_length = at, len(data)
        part.range_end = at + len(data) == end
        _fill(part.checksummed_data, data)
        yield answer


def _chunks(file: IO[bytes], start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Where each piece begins, and the piece; one that is empty where nothing is to be read."""
    file.seek(start)
    yield start, file.read(min(_CHUNK, end - start))
    for at in range(start + _CHUNK, end, _CHUNK):
        yield at, file.read(min(_CHUNK, end - at))


def _fill(message: Any, data: bytes) -> None:
    message.content = data
    message.crc32c = google_crc32c.value(data)
