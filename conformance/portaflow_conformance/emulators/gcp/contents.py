"""The bytes of one generation of an object: files, one after the other.

An upload in parts becomes an object without a copy of its parts: GCS makes none that a client
would wait for, and a local one would cost more than all the rest of the upload.
"""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import IO, Any, cast


class Contents:
    """Who has opened them reads them to their end, even when they are removed meanwhile."""

    def __init__(self, path: Path) -> None:
        self.paths = [path]
        self._readers, self._removed = 0, False
        self._lock = threading.Lock()

    def open(self) -> IO[bytes]:
        if len(self.paths) == 1:  # the system itself keeps what is open
            return self.paths[0].open("rb")
        with self._lock:
            if self._removed:
                raise FileNotFoundError(self.paths[0])
            self._readers += 1
        return cast(IO[bytes], io.BufferedReader(_Joined(self.paths, self._closed)))

    def remove(self) -> None:
        with self._lock:
            self._removed = True
            self._sweep()

    def _closed(self) -> None:
        with self._lock:
            self._readers -= 1
            self._sweep()

    def _sweep(self) -> None:
        if self._removed and not self._readers:
            for path in self.paths:
                path.unlink(missing_ok=True)


class _Joined(io.RawIOBase):
    """Files read as one, of which one is open at a time: an object may have 10,000 parts."""

    def __init__(self, paths: Sequence[Path], closed: Callable[[], None]) -> None:
        super().__init__()
        self._paths, self._closed = paths, closed
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._at, self._number, self._file = 0, 0, paths[0].open("rb")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._ends[-1]:
            return 0
        number = bisect_right(self._ends, self._at)  # empty files are passed over
        if number != self._number:
            self._file.close()
            self._number, self._file = number, self._paths[number].open("rb")
        self._file.seek(self._at - (self._ends[number - 1] if number else 0))
        count = self._file.readinto(buffer)
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            self._file.close()
            self._closed()
        super().close()
