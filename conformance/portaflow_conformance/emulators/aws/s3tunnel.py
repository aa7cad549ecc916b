"""One client's connection to the store: requests and answers of HTTP/1.1 pass as a stream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass

from ..serving import Reader, Writer

CHUNK = 2**18  # bytes in memory for each direction
_LATE = 0.05  # seconds for the rest of a body, when the store has answered before its end
_SIZE = re.compile(rb"(?i)\r\n(content-length|transfer-encoding):[^\r]*")


@dataclass(frozen=True, slots=True)
class Head:
    raw: bytes
    first: str
    headers: dict[str, str]

    @classmethod
    async def read(cls, reader: Reader) -> Head:
        raw = await reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        return cls(raw, first, {name.strip().lower(): value.strip() for name, _, value in pairs})

    @property
    def chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", "0"))

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


class Tunnel:
    """`closes` tells that the connection of the client is not to be used again."""

    def __init__(self, store: int, reader: Reader, writer: Writer) -> None:
        self._store, self._reader, self._writer = store, reader, writer
        self._there: tuple[Reader, Writer] | None = None
        self.closes = False

    async def send(
        self, head: Head, change: Callable[[bytes], bytes] | None = None, *, silent: bool = False
    ) -> None:
        """Do one call. `change` gets the whole body of an answer that is OK; `silent` keeps the
        answer from the client."""
        reader, writer = await self._connected()
        writer.write(head.raw)  # at once: the client may wait for a word about it
        sending = asyncio.create_task(self._body(head, writer))
        try:
            while True:
                answer = await Head.read(reader)
                status = int(answer.first.split(" ", 2)[1])
                if status >= 200:
                    break
                self._writer.write(answer.raw)  # "100 Continue": the body may come
            await asyncio.wait([sending], timeout=_LATE)
            whole = sending.done() and sending.exception() is None
            self.closes = head.closes or answer.closes or not whole
            raw = answer.raw if whole else _closing(answer.raw)
            bare = head.first.startswith("HEAD ") or status in (204, 304)
            if silent:
                await _relay(reader, answer, _Nowhere(), bare)
            elif change is not None and status == 200:
                everything = _Sink()
                await _relay(reader, answer, everything, bare, data=True)
                body = change(b"".join(everything.parts))
                size = f"\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                self._writer.write(_SIZE.sub(b"", raw[:-4]) + size + body)
            else:
                await _relay(reader, answer, _Sink(self._writer, raw), bare)
            await self._writer.drain()
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def refuse(self, head: Head, answer: bytes) -> None:
        """Answer without the store."""
        if "expect" in head.headers:
            self.closes = True  # whether the body comes now is the client's choice
            start, _, body = answer.partition(b"\r\n\r\n")
            answer = _closing(start + b"\r\n\r\n") + body
        else:
            await _relay(self._reader, head, _Nowhere())
            self.closes = head.closes
        self._writer.write(answer)
        await self._writer.drain()

    def close(self) -> None:
        if self._there is not None:
            self._there[1].transport.abort()
            self._there = None

    async def _connected(self) -> tuple[Reader, Writer]:
        if self._there is not None and self._there[0].at_eof():  # the store was tired of it
            self.close()
        if self._there is None:
            self._there = await asyncio.open_connection("127.0.0.1", self._store, limit=CHUNK)
        return self._there

    async def _body(self, head: Head, writer: Writer) -> None:
        try:
            await _relay(self._reader, head, _Sink(writer))
        except (OSError, EOFError, ValueError):
            writer.transport.abort()  # ends the wait for an answer, too
            raise


class _Sink:
    """Where a body goes: to a writer, behind `start` in one piece with it, or to `parts`.

    What is written in two small pieces may wait for the peer's word on the first.
    """

    def __init__(self, writer: Writer | None = None, start: bytes = b"") -> None:
        self._writer, self._start = writer, start
        self.parts: list[bytes] = []

    async def put(self, part: bytes) -> None:
        if self._writer is None:
            self.parts.append(part)
            return
        self._writer.write(self._start + part if self._start else part)
        self._start = b""
        await self._writer.drain()


class _Nowhere(_Sink):
    async def put(self, part: bytes) -> None:
        """Drop it."""


async def _relay(
    reader: Reader, head: Head, to: _Sink, bare: bool = False, *, data: bool = False
) -> None:
    """Pass the body that `head` announces; `data` leaves out the framing of chunks."""
    if bare or not (head.chunked or head.length):
        await to.put(b"")
        return
    if not head.chunked:
        await _some(reader, head.length, to)
        return
    frame = _Nowhere() if data else to
    size = -1
    while size:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        await frame.put(line)
        await _some(reader, size, to)
        if size:
            await frame.put(await reader.readexactly(2))
    line = b""
    while line != b"\r\n":  # the trailers, and the end
        line = await reader.readuntil(b"\r\n")
        await frame.put(line)


async def _some(reader: Reader, count: int, to: _Sink) -> None:
    while count > 0:
        part = await reader.read(min(count, CHUNK))
        if not part:
            raise EOFError("the body ended early")
        count -= len(part)
        await to.put(part)


def _closing(raw: bytes) -> bytes:
    return raw[:-2] + b"Connection: close\r\n\r\n"
