"""Logs of containers, kept and read as a kubelet does it: CRI lines, rotation, follow.

A line in a file is `2026-01-02T03:04:05.678901234Z stdout F text`; P instead of F marks a
piece of a line that is too long. Rotation keeps the newest files; a client is served from the
newest one alone, as by a real kubelet, but a follower loses nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PIECE = 16 * 1024  # bytes of a line that are kept together
_KEPT = 5  # files, the newest included
_CHUNK = 2**16


def stamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


class Log:
    """One container's log: written by its pumps, read by any number of clients."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size  # bytes of a file before the next is begun
        self._written = 0
        self._file = self._named(0).open("ab", buffering=0)
        self._cut: dict[str, bytes] = {}  # stream -> what came without its end of line
        self._waiting: set[asyncio.Event] = set()
        self.ended = False
        self.number = 0

    def _named(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def write(self, stream: str, data: bytes) -> None:
        """Take what a container wrote, in pieces of any kind."""
        data = self._cut.pop(stream, b"") + data
        lines = data.split(b"\n")
        rest = lines.pop()
        head = f"{stamp(time.time_ns())} {stream} ".encode()
        out = [piece for line in lines for piece in _pieces(head, line)]
        while len(rest) >= _PIECE:
            out.append(head + b"P " + rest[:_PIECE] + b"\n")
            rest = rest[_PIECE:]
        if rest:
            self._cut[stream] = rest
        if out:
            self._put(out)

    def close(self) -> None:
        """The container has ended: nothing will ever follow."""
        for stream, rest in self._cut.items():  # a last line without its end stays without
            self._put([f"{stamp(time.time_ns())} {stream} P ".encode() + rest + b"\n"])
        self._cut.clear()
        self.ended = True
        self._file.close()
        self._wake()

    def _put(self, lines: Iterable[bytes]) -> None:
        batch: list[bytes] = []
        for line in lines:
            if self._written and self._written + len(line) > self._size:
                self._file.write(b"".join(batch))
                batch.clear()
                self._rotate()
            batch.append(line)
            self._written += len(line)
        self._file.write(b"".join(batch))
        self._wake()

    def _rotate(self) -> None:
        self._file.close()
        self.number += 1
        self._written = 0
        self._file = self._named(self.number).open("ab", buffering=0)
        with suppress(FileNotFoundError):
            self._named(self.number - _KEPT).unlink()

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    def newest(self) -> Iterator[bytes]:
        """The lines of the newest file, as they are in it."""
        with self._named(self.number).open("rb") as file:
            yield from file

    async def chunks(self, follow: bool) -> AsyncIterator[bytes]:
        """Whole lines from the newest file on, many at once, to the end or for ever."""
        woken = asyncio.Event()
        self._waiting.add(woken)
        number = self.number
        file = self._named(number).open("rb")
        try:
            while True:
                woken.clear()
                ended, newest = self.ended, self.number
                if data := file.read(_CHUNK):
                    if not data.endswith(b"\n"):
                        data += file.readline()
                    yield data
                elif number < newest:
                    file.close()
                    number = max(number + 1, newest - _KEPT + 1)
                    file = self._named(number).open("rb")
                elif ended or not follow:
                    return
                else:
                    await woken.wait()
        finally:
            file.close()
            self._waiting.discard(woken)


def _pieces(head: bytes, line: bytes) -> list[bytes]:
    if len(line) <= _PIECE:
        return [head + b"F " + line + b"\n"]
    cuts = [line[i : i + _PIECE] for i in range(0, len(line), _PIECE)]
    return [head + b"P " + c + b"\n" for c in cuts[:-1]] + [head + b"F " + cuts[-1] + b"\n"]


@dataclass(frozen=True, slots=True)
class View:
    """How a client wants a log: see PodLogOptions."""

    follow: bool = False
    timestamps: bool = False
    since: float = 0.0  # seconds since the epoch
    tail: int | None = None
    limit: int | None = None  # bytes
    stream: str = "All"

    def _shown(self, data: bytes, begins: bool = True) -> list[bytes]:
        """Lines as the client sees them: of a long one only the first piece has its time."""
        out = []
        for line in data.splitlines(keepends=True):
            time_, stream, flag, text = line.split(b" ", 3)
            if self.since and _seconds(time_) < self.since:
                continue
            if self.stream != "All" and stream.decode() != self.stream.lower():
                continue
            if flag == b"P":
                text = text[:-1]
            out.append(time_ + b" " + text if self.timestamps and begins else text)
            begins = flag != b"P"
        return out

    async def of(self, log: Log) -> AsyncIterator[bytes]:
        """What to send, in order."""
        left = self.limit
        skip = 0
        if self.tail is not None:
            lines = self._shown(b"".join(log.newest()))
            skip = max(0, len(lines) - self.tail)
        begins = True
        async for data in log.chunks(self.follow):
            lines = self._shown(data, begins)
            begins = not lines or lines[-1].endswith(b"\n")
            if skip:
                lines, skip = lines[skip:], max(0, skip - len(lines))
            piece = b"".join(lines)
            if left is not None:
                piece = piece[:left]
                left -= len(piece)
            if piece:
                yield piece
            if left == 0:
                return


def _seconds(time_: bytes) -> float:
    # fromisoformat reads at most microseconds
    text = time_.decode().rstrip("Z")[:26]
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
