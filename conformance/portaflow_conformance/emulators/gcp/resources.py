"""How the local GCS shows buckets and objects, and gives out their contents."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote

from .items import Bucket, Item
from .wire import Request, Response


def item_json(item: Item, base: str) -> dict[str, Any]:
    """An object's resource."""
    path = f"/storage/v1/b/{item.bucket}/o/{quote(item.name, safe='')}"
    value: dict[str, Any] = {
        "storageClass": "STANDARD",
        **{k: v for k, v in item.fields.items() if v is not None},
        "kind": "storage#object",
        "id": f"{item.bucket}/{item.name}/{item.generation}",
        "selfLink": base + path,
        "mediaLink": f"{base}/download{path}?generation={item.generation}&alt=media",
        "bucket": item.bucket,
        "name": item.name,
        "generation": str(item.generation),
        "metageneration": str(item.metageneration),
        "size": str(item.size),
        "crc32c": item.crc32c,
        "etag": item.etag,
        "timeCreated": stamp(item.created),
        "updated": stamp(item.updated),
        "timeStorageClassUpdated": stamp(item.created),
    }
    if item.finished:
        value["timeFinalized"] = stamp(item.updated if item.appended else item.created)
    if item.md5:
        value["md5Hash"] = item.md5
    if item.components:
        value["componentCount"] = item.components
    return value


def bucket_json(bucket: Bucket, base: str) -> dict[str, Any]:
    """A bucket's resource."""
    return {
        "location": "US-CENTRAL1",
        "locationType": "region",
        "storageClass": "STANDARD",
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": False}},
        **bucket.fields,
        "kind": "storage#bucket",
        "id": bucket.name,
        "name": bucket.name,
        "selfLink": f"{base}/storage/v1/b/{bucket.name}",
        "projectNumber": "1",
        "metageneration": str(bucket.metageneration),
        "etag": base64.b64encode(str(bucket.metageneration).encode()).decode(),
        "timeCreated": stamp(bucket.created),
        "updated": stamp(bucket.updated),
    }


def stamp(seconds: float) -> str:
    """A time as both APIs write it."""
    when = datetime.fromtimestamp(seconds, UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.") + f"{when.microsecond // 1000:03d}Z"


def media(request: Request, item: Item, file: IO[bytes]) -> Response:
    """The contents of an object, or the range of them that is asked for."""
    headers = {
        "Content-Type": item.content_type,
        "ETag": f'"{item.etag}"',
        "Last-Modified": datetime.fromtimestamp(item.updated, UTC).strftime(
            "%a, %d %b %Y %H:%M:%S GMT"
        ),
        "Accept-Ranges": "bytes",
        "X-Goog-Generation": str(item.generation),
        "X-Goog-Metageneration": str(item.metageneration),
        "X-Goog-Stored-Content-Length": str(item.size),
        "X-Goog-Stored-Content-Encoding": str(item.fields.get("contentEncoding") or "identity"),
        "X-Goog-Storage-Class": str(item.fields.get("storageClass") or "STANDARD"),
        "X-Goog-Hash": f"crc32c={item.crc32c}" + (f",md5={item.md5}" if item.md5 else ""),
    }
    for field, header in (
        ("cacheControl", "Cache-Control"), ("contentDisposition", "Content-Disposition"),
        ("contentEncoding", "Content-Encoding"), ("contentLanguage", "Content-Language"),
    ):  # fmt: skip
        if value := item.fields.get(field):
            headers[header] = str(value)
    for key, value in (item.fields.get("metadata") or {}).items():
        headers[f"x-goog-meta-{key}"] = str(value)
    bounds = byte_range(request.headers.get("range", ""), item.size)
    if bounds is None:
        return Response(200, b"", headers, file, item.size)
    start, end = bounds
    if start >= end:
        file.close()
        headers["Content-Range"] = f"bytes */{item.size}"
        return Response(416, b"", headers)
    file.seek(start)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{item.size}"
    return Response(206, b"", headers, file, end - start)


def byte_range(text: str, size: int) -> tuple[int, int] | None:
    """Start and end of a Range header, equal when nothing is there; None for the whole."""
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", text.strip())
    if not found or found[0] == "bytes=-":
        return None
    if not found[1]:
        return (max(size - int(found[2]), 0), size)
    start = int(found[1])
    end = min(int(found[2]) + 1 if found[2] else size, size)
    return (start, max(end, start)) if start < size else (size, size)
