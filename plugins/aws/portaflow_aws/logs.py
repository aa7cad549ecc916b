"""Logs that AWS keeps in a bucket: files that grow while something runs, each put anew, whole."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from portaflow.backend import LogChunk

_CHUNK = 2**20  # bytes returned at once
_LOST = timedelta(minutes=10)  # after its end, what is not there will not come
_SETTLED = timedelta(seconds=2)  # one file is put after the other
_KEPT = 4  # files held, so that to read a long one piece by piece does not fetch it as often


class Logs:
    """Reads them. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[tuple[str, str], bytes] = {}  # by key and ETag

    def read(
        self, s3: Any, folder: str, names: Sequence[str], cursor: str, ended: datetime | None
    ) -> LogChunk:
        """What follows `cursor` of the files `names` + ".gz" of a folder, one after the other.

        `ended`: when what wrote them did. The end is there when they were put since then.
        """
        bucket, _, prefix = folder.partition("://")[2].partition("/")
        answer = s3.list_objects_v2(Bucket=bucket, Prefix=prefix)
        found = {o["Key"].removeprefix(prefix): o for o in answer.get("Contents", ())}
        places = [int(n) for n in cursor.split(",")] if cursor else [0] * len(names)
        data, whole = b"", True
        for n, name in enumerate(names):
            if one := found.get(f"{name}.gz"):
                body = self._file(s3, bucket, one)
                piece = body[places[n] : places[n] + _CHUNK - len(data)]
                places[n] += len(piece)
                data += piece
                whole = whole and places[n] >= len(body)
        end = whole and ended is not None and _complete(found, ended)
        return LogChunk(data=data, cursor=",".join(map(str, places)), end=end)

    def _file(self, s3: Any, bucket: str, listed: Mapping[str, Any]) -> bytes:
        key = listed["Key"], listed["ETag"]
        with self._lock:
            if key in self._files:
                return self._files[key]
        answer = s3.get_object(Bucket=bucket, Key=listed["Key"])
        body = gzip.decompress(answer["Body"].read())
        with self._lock:
            self._files[listed["Key"], answer["ETag"]] = body
            while len(self._files) > _KEPT:
                del self._files[next(iter(self._files))]
        return body


def _complete(found: Mapping[str, Any], ended: datetime) -> bool:
    """Whether the files were put for the last time: S3 tells whole seconds."""
    now = datetime.now(UTC)
    last = max((o["LastModified"] for o in found.values()), default=None)
    put = last is not None and last >= ended.replace(microsecond=0) and now >= last + _SETTLED
    return put or now > ended + _LOST
