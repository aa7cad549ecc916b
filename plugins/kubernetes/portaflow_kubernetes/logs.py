"""The log of a pod, read on from where it was read: nothing twice, nothing lost.

A cluster has no positions in a log, only times. So a cursor is the time of the last line, how
much of the lines of that time was read, and a checksum of it. A node serves its newest file
alone and begins another at some size: what stood at the end of the older one is then out of
reach. So while a log is read, its stream is kept open between two calls, and read ahead:
whoever follows a file gets all of it.
"""

from __future__ import annotations

import queue
import re
import threading
import weakref
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

CHUNK = 2**20  # bytes returned at once
SILENCE = 60.0  # seconds without a word after which a stream is opened anew

_BLOCK = 2**16
_AHEAD = 4  # blocks that are read ahead
_FIRST, _FLOWING, _AGAIN = 0.25, 0.05, 5.0  # seconds for news, more of it, what was had
_LEFT = 120.0  # seconds after which a stream that nobody reads is closed
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(Z|[+-]\d\d:\d\d) ")
_LONGEST = 40  # bytes of a time, and the blank after it


class Lines:
    """Takes the times off what a cluster sends, and leaves out what `cursor` has had.

    A line begins with its time, but a long one comes in pieces of which only the first has one.
    """

    def __init__(self, cursor: str) -> None:
        stamp, count, check = cursor.split(" ") if cursor else ("", "0", "0")
        self._stamp, self._count, self._check = stamp.encode(), int(count), int(check, 16)
        self._had = self._count, self._check  # of the lines of `_stamp`
        self.skipping, self._held = bool(cursor), b""
        self._begins, self._line, self._rest = True, b"", b""  # `_line`: the time of this one

    @property
    def cursor(self) -> str:
        return f"{self._stamp.decode()} {self._count} {self._check:x}" if self._stamp else ""

    @property
    def since(self) -> str:
        """The second from which on to ask: a cluster knows no shorter time."""
        if not self._stamp:
            return ""
        text = self._stamp.decode()
        return re.sub(r"\.\d+", "", text)

    def feed(self, block: bytes) -> bytes:
        data, out, at = self._rest + block, [], 0
        while at < len(data):
            stamp = self._line
            if self._begins:
                found = _STAMP.match(data, at, at + _LONGEST)
                if not found and len(data) - at < _LONGEST and b"\n" not in data[at:]:
                    break  # of the time there may be more to come
                if found:
                    stamp, at = found[0][:-1], found.end()
                    if at == len(data):
                        at = found.start()
                        break
            end = data.find(b"\n", at) + 1 or len(data)
            piece = data[at:end]
            at, self._begins, self._line = end, piece.endswith(b"\n"), stamp
            out.append(self._new(stamp, piece) if self.skipping else self._took(stamp, piece))
        self._rest = data[at:]
        return b"".join(out)

    def close(self) -> bytes:
        """What is still held back when nothing follows."""
        return self._undo() if self.skipping and self._held else b""

    def _took(self, stamp: bytes, piece: bytes) -> bytes:
        if stamp != self._stamp:
            self._stamp, self._count, self._check = stamp, 0, 0
        self._count += len(piece)
        self._check = zlib.crc32(piece, self._check)
        return piece

    def _new(self, stamp: bytes, piece: bytes) -> bytes:
        """What of a piece was not had, while that is not yet reached."""
        count, check = self._had
        if stamp == self._stamp:
            self._held += piece
            if len(self._held) < count:
                return b""
            if zlib.crc32(self._held[:count]) != check:
                return self._undo()
            self.skipping, new = False, self._held[count:]
            return self._took(stamp, new) if new else b""
        if not stamp or _time(stamp) < _time(self._stamp):
            return b""
        return self._undo() + self._took(stamp, piece)

    def _undo(self) -> bytes:
        """The lines of that time are others: what was had is no more in what is sent."""
        self.skipping = False
        held, self._count, self._check = self._held, 0, 0
        return self._took(self._stamp, held)


def _time(stamp: bytes) -> tuple[float, int]:
    text = stamp.decode()
    found = re.search(r"\.(\d+)", text)
    whole = datetime.fromisoformat(re.sub(r"\.\d+", "", text))
    return whole.timestamp(), int((found[1] if found else "0").ljust(9, "0"))


class Tail:
    """One stream that is being read. `last`: the pod had ended before it was opened."""

    def __init__(self, lines: Lines, response: Any, *, last: bool) -> None:
        self._lines, self._response, self.last = lines, response, last
        self._blocks: queue.Queue[bytes | None] = queue.Queue(_AHEAD)
        self._left = threading.Event()
        self.whole = False  # whether it came to its end, and was not broken off
        self.over = False
        threading.Thread(target=self._pump, name="pod-log", daemon=True).start()

    @property
    def cursor(self) -> str:
        return self._lines.cursor

    def read(self) -> bytes:
        """What has come, at most a chunk."""
        out, size = [], 0
        while size < CHUNK - _BLOCK and not self.over:
            try:
                block = self._blocks.get(timeout=self._wait(size))
            except queue.Empty:
                break
            if block is None:
                self.over = True
                out.append(self._lines.close() if self.whole else b"")
            else:
                out.append(self._lines.feed(block))
                size += len(out[-1])
        return b"".join(out)

    def _wait(self, size: int) -> float:
        """Seconds to wait for the next block, after `size` bytes of news."""
        if self.last:
            return SILENCE  # all is written: it comes, or the stream breaks
        if self._lines.skipping:
            return _AGAIN
        return _FLOWING if size else _FIRST

    def leave(self) -> None:
        """Nobody will read on: end the stream, though it may be silent."""
        self._left.set()
        with suppress(OSError, ValueError):
            self._response.shutdown()

    def _pump(self) -> None:
        from urllib3.exceptions import HTTPError

        with suppress(HTTPError, OSError, ValueError), self._response as response:
            while block := response.read1(_BLOCK):
                if not self._put(block):
                    return
            self.whole = True
        self._put(None)

    def _put(self, block: bytes | None) -> bool:
        """Wait until there is room; False when nobody reads any more."""
        for _ in range(int(_LEFT)):
            if self._left.is_set():
                return False
            with suppress(queue.Full):
                self._blocks.put(block, timeout=1.0)
                return True
        return False


class Tails:
    """The streams that are kept open between two calls, by the name of what they are of."""

    _MOST = 64

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, Tail] = {}
        weakref.finalize(self, _leave, self._open)

    def take(self, name: str, cursor: str, open_: Callable[[], Tail]) -> Tail:
        """The stream that has come as far as `cursor`, else a new one."""
        with self._lock:
            tail = self._open.pop(name, None)
        if tail is not None and tail.cursor == cursor:
            return tail
        if tail is not None:
            tail.leave()
        return open_()

    def keep(self, name: str, tail: Tail) -> None:
        with self._lock:
            left = [self._open.pop(name, None)]
            if len(self._open) >= self._MOST:
                left.append(self._open.pop(next(iter(self._open))))
            self._open[name] = tail
        for one in filter(None, left):
            one.leave()


def _leave(tails: Mapping[str, Tail]) -> None:
    for tail in tails.values():
        tail.leave()
