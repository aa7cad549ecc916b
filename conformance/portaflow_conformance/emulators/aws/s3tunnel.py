"""One client's connection to the store: requests and answers of HTTP/1.1 pass as a stream.

Threads and plain sockets rather than asyncio: bytes go from one connection into the other by way
of one piece of memory, without Python's lock being held, and large bodies pass twice as fast.
"""

from __future__ import annotations

import re
import select
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

CHUNK = 2**18  # bytes in memory for each direction; a head must fit
_SMALL = 2**14
_SIZE = re.compile(rb"(?i)\r\n(content-length|transfer-encoding):[^\r]*")

Put = Callable[[bytes | memoryview], None]


@dataclass(frozen=True, slots=True)
class Head:
    raw: bytes
    first: str
    headers: dict[str, str]

    @classmethod
    def parse(cls, raw: bytes) -> Head:
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

    @property
    def status(self) -> int:
        return int(self.first.split(" ", 2)[1])


class Wire:
    """A connection, and what has come by it and was not asked for yet. `before` is called before
    it waits for more."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.before: Callable[[], None] = lambda: None
        self._memory = bytearray(CHUNK)
        self._view = memoryview(self._memory)
        self._from = self._to = 0

    def __len__(self) -> int:
        return self._to - self._from

    def more(self) -> bool:
        """Wait for more; False when there is an end instead."""
        if not len(self):
            self._from = self._to = 0
        elif self._to == CHUNK:
            rest = bytes(self._view[self._from : self._to])
            self._view[: len(rest)] = rest
            self._from, self._to = 0, len(rest)
            if self._to == CHUNK:
                raise ValueError("a head is too long")
        self.before()
        count = self.connection.recv_into(self._view[self._to :])
        self._to += count
        return count > 0

    def until(self, mark: bytes) -> bytes:
        """All that comes up to a mark, and the mark."""
        seen = 0
        while (at := self._memory.find(mark, self._from + seen, self._to)) < 0:
            seen = max(0, len(self) - len(mark))
            self._must()
        found = bytes(self._view[self._from : at + len(mark)])
        self._from = at + len(mark)
        return found

    def pieces(self, count: int) -> Iterator[memoryview]:
        """The next `count` bytes as they come; each piece is good until the next."""
        while count > 0:
            if not len(self):
                self._must()
            piece = self._view[self._from : min(self._to, self._from + count)]
            self._from += len(piece)
            count -= len(piece)
            yield piece

    def ahead(self, count: int) -> bytes:
        """The next `count` bytes, of which the memory has room; they stay to be had."""
        while len(self) < count:
            self._must()
        return bytes(self._view[self._from : self._from + count])

    def _must(self) -> None:
        if not self.more():
            raise EOFError("the connection has ended in the middle")

    @property
    def ready(self) -> bool:
        """Whether something is there that the system does not tell of."""
        connection = self.connection
        return isinstance(connection, ssl.SSLSocket) and connection.pending() > 0


class _AnsweredError(Exception):
    """The store has answered before the end of the body."""

    def __init__(self, answer: Head) -> None:
        super().__init__(answer.first)
        self.answer = answer


class Tunnel:
    """`closes` tells that the connection of the client is not to be used again."""

    def __init__(self, store: int, client: socket.socket) -> None:
        self.closes = False
        self._store, self._client = store, client
        self._here = Wire(client)
        self._there: Wire | None = None

    def head(self) -> Head | None:
        """The next call's; None when the client has gone."""
        if not len(self._here) and not self._here.more():
            return None
        return Head.parse(self._here.until(b"\r\n\r\n"))

    def body(self, head: Head) -> bytes:
        """The body of a small call, which is still to be sent."""
        waits = "expect" in head.headers or head.chunked
        return b"" if waits else self._here.ahead(min(head.length, _SMALL))

    def send(
        self,
        head: Head,
        change: Callable[[bytes], bytes] | None = None,
        *,
        more: str = "",
        silent: bool = False,
    ) -> int:
        """Do one call; the status of its answer. `change` gets the whole body of an answer that is
        OK, `more` are lines for its head; `silent` keeps the answer from the client."""
        there = self._connected()
        answer, whole = self._asked(head, there)
        self.closes = head.closes or answer.closes or not whole
        raw = answer.raw if whole else _closing(answer.raw)
        raw = raw[:-2] + more.encode() + b"\r\n"
        bare = head.first.startswith("HEAD ") or answer.status in (204, 304)
        if silent:
            _relay(there, answer, _drop, bare)
        elif change is not None and answer.status == 200:
            parts: list[bytes] = []
            _relay(there, answer, lambda part: parts.append(bytes(part)), bare, data=True)
            body = change(b"".join(parts))
            size = f"\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            self._client.sendall(_SIZE.sub(b"", raw[:-4]) + size + body)
        else:
            out = _Out(self._client, raw)
            there.before = out.flush
            _relay(there, answer, out.put, bare)
            out.flush()
        there.before = _nothing
        return answer.status

    def refuse(self, head: Head, answer: bytes) -> None:
        """Answer without the store."""
        if "expect" in head.headers:
            self.closes = True  # whether the body comes now is the client's choice
            start, _, body = answer.partition(b"\r\n\r\n")
            answer = _closing(start + b"\r\n\r\n") + body
        else:
            _relay(self._here, head, _drop)
            self.closes = head.closes
        self._client.sendall(answer)

    def close(self) -> None:
        if self._there is not None:
            self._there.connection.close()
            self._there = None

    def end(self) -> None:
        """Let whoever waits in here, in another thread, see the end of the connections."""
        for wire in (self._here, self._there):
            with suppress(OSError):
                if wire is not None:  # TLS has no say in it
                    socket.socket.shutdown(wire.connection, socket.SHUT_RDWR)

    def _connected(self) -> Wire:
        if self._there is not None and _heard(0, self._there.connection):
            self.close()  # the store was tired of it
        if self._there is None:
            connection = socket.create_connection(("127.0.0.1", self._store))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._there = Wire(connection)
        return self._there

    def _asked(self, head: Head, there: Wire) -> tuple[Head, bool]:
        """Pass a request on; the answer, and whether it has come after the whole request."""
        out = _Out(there.connection, head.raw)

        def before() -> None:
            out.flush()  # at once: the client may wait for a word about its head
            self._look(there)

        self._here.before = before
        try:
            _relay(self._here, head, out.put)
            out.flush()
        except _AnsweredError as early:
            return early.answer, False
        except BrokenPipeError:  # it has said why, and listens no more
            return self._answer(there), False
        finally:
            self._here.before = _nothing
        return self._answer(there), True

    def _answer(self, there: Wire) -> Head:
        """The store's answer; "100 Continue" is passed on: the body may come."""
        while (answer := Head.parse(there.until(b"\r\n\r\n"))).status < 200:
            self._client.sendall(answer.raw)
        return answer

    def _look(self, there: Wire) -> None:
        """Wait for more of the body; raises _AnsweredError when there is an answer instead."""
        while there.connection in _heard(
            0 if self._here.ready else None, self._client, there.connection
        ):
            answer = Head.parse(there.until(b"\r\n\r\n"))
            if answer.status >= 200:
                raise _AnsweredError(answer)
            self._client.sendall(answer.raw)


class _Out:
    """Sends what is small together with what follows it: each piece by TLS is one on its own."""

    def __init__(self, connection: socket.socket, start: bytes) -> None:
        self._connection = connection
        self._kept = bytearray(start)

    def put(self, part: bytes | memoryview) -> None:
        if len(part) < _SMALL:
            self._kept += part
        if len(self._kept) >= _SMALL or len(part) >= _SMALL:
            self.flush()
        if len(part) >= _SMALL:
            self._connection.sendall(part)

    def flush(self) -> None:
        if self._kept:
            self._connection.sendall(self._kept)
            self._kept.clear()


def _relay(wire: Wire, head: Head, put: Put, bare: bool = False, *, data: bool = False) -> None:
    """Pass the body that `head` announces; `data` leaves out the framing of chunks."""
    if bare:
        return
    if not head.chunked:
        for piece in wire.pieces(head.length):
            put(piece)
        return
    frame = _drop if data else put
    size = -1
    while size:
        line = wire.until(b"\r\n")
        size = int(line.split(b";")[0], 16)
        frame(line)
        for piece in wire.pieces(size):
            put(piece)
        if size:
            frame(wire.until(b"\r\n"))
    line = b""
    while line != b"\r\n":  # the trailers, and the end
        line = wire.until(b"\r\n")
        frame(line)


def _heard(seconds: float | None, *connections: socket.socket) -> list[socket.socket]:
    """Which connections have something to tell, or have ended."""
    ears = select.poll()
    for one in connections:
        ears.register(one, select.POLLIN)
    found = {fd for fd, _ in ears.poll(None if seconds is None else 1000 * seconds)}
    return [one for one in connections if one.fileno() in found]


def _drop(part: bytes | memoryview) -> None:
    """Nobody is to have it."""


def _nothing() -> None:
    """Nothing is to be done before more comes."""


def _closing(raw: bytes) -> bytes:
    return raw[:-2] + b"Connection: close\r\n\r\n"
