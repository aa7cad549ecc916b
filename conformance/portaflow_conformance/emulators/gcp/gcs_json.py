"""The JSON API of the local GCS.

An operation is a method `bucket.operation`-wise named after Google's own ("objects.insert"),
found in a table of method and path; what is not in the table answers 501 and names itself.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from email.message import Message
from email.parser import BytesParser
from typing import Any
from urllib.parse import quote, unquote

from .items import Conditions, GcsError, Item, check_bucket_name, check_name, invalid
from .listing import Wanted
from .objects import Objects
from .resources import bucket_json, item_json, media
from .uploads import Resumable, Uploads, finish
from .wire import Request, Response

_LARGEST_METADATA = 2**20
_OURS = {
    "kind", "id", "selfLink", "mediaLink", "bucket", "name", "generation", "metageneration",
    "size", "etag", "timeCreated", "updated", "timeStorageClassUpdated", "componentCount",
    "timeFinalized", "owner", "projectNumber",
}  # fmt: skip
_ROUTES = [
    ("GET", r"/storage/v1/b", "buckets.list"),
    ("POST", r"/storage/v1/b", "buckets.insert"),
    ("GET", r"/storage/v1/b/([^/]+)", "buckets.get"),
    ("PATCH", r"/storage/v1/b/([^/]+)", "buckets.patch"),
    ("PUT", r"/storage/v1/b/([^/]+)", "buckets.update"),
    ("DELETE", r"/storage/v1/b/([^/]+)", "buckets.delete"),
    ("GET", r"/storage/v1/b/([^/]+)/storageLayout", "buckets.getStorageLayout"),
    ("GET", r"/storage/v1/b/([^/]+)/iam/testPermissions", "buckets.testIamPermissions"),
    ("GET", r"/storage/v1/b/([^/]+)/o", "objects.list"),
    ("GET", r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)", "objects.get"),
    ("PATCH", r"/storage/v1/b/([^/]+)/o/([^/]+)", "objects.patch"),
    ("PUT", r"/storage/v1/b/([^/]+)/o/([^/]+)", "objects.update"),
    ("DELETE", r"/storage/v1/b/([^/]+)/o/([^/]+)", "objects.delete"),
    ("POST", r"/storage/v1/b/([^/]+)/o/([^/]+)/compose", "objects.compose"),
    ("POST", r"/storage/v1/b/([^/]+)/o/([^/]+)/moveTo/o/([^/]+)", "objects.move"),
    ("POST", r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)", "objects.rewrite"),
    ("POST", r"/storage/v1/b/([^/]+)/o/([^/]+)/copyTo/b/([^/]+)/o/([^/]+)", "objects.copy"),
    ("POST", r"(?:/resumable)?/upload/storage/v1/b/([^/]+)/o", "objects.insert"),
    ("PUT", r"(?:/resumable)?/upload/storage/v1/b/([^/]+)/o", "objects.upload"),
    ("DELETE", r"(?:/resumable)?/upload/storage/v1/b/([^/]+)/o", "objects.cancelUpload"),
]
_TABLE = [(method, re.compile(path), name) for method, path, name in _ROUTES]


class JsonApi:
    """Answers what begins with /storage/v1, /upload/storage/v1 and /download/storage/v1."""

    def __init__(self, objects: Objects, uploads: Uploads) -> None:
        self._objects = objects
        self._uploads = uploads

    def operation(self, request: Request) -> tuple[str, list[str]]:
        """The name of what is asked for and the decoded parts of its path."""
        for method, pattern, name in _TABLE:
            if method == request.method and (found := pattern.fullmatch(request.path)):
                return name, [unquote(part) for part in found.groups()]
        text = f"{request.method} {request.path} is not in the local GCS"
        raise GcsError(501, "notImplemented", text)

    def answer(self, name: str, parts: list[str], request: Request) -> Response:
        method: Callable[..., Response] = getattr(self, "_" + name.replace(".", "_"))
        return method(request, *parts)

    def _buckets_list(self, request: Request) -> Response:
        found = self._objects.buckets(request.query.get("prefix", ""))
        after, most = _page(request)
        found = [b for b in found if b.name > after]
        answer: dict[str, Any] = {"kind": "storage#buckets"}
        answer["items"] = [bucket_json(b, request.base) for b in found[:most]]
        if len(found) > most:
            answer["nextPageToken"] = page_token(found[most - 1].name)
        return Response.json(answer)

    def _buckets_insert(self, request: Request) -> Response:
        fields = request.json()
        name = str(fields.pop("name", ""))
        check_bucket_name(name)
        if not request.query.get("project"):
            raise GcsError(400, "required", "Required parameter: project")
        return Response.json(bucket_json(self._objects.create_bucket(name, fields), request.base))

    def _buckets_get(self, request: Request, bucket: str) -> Response:
        return Response.json(bucket_json(self._objects.bucket(bucket), request.base))

    def _buckets_patch(self, request: Request, bucket: str) -> Response:
        fields = _settable(request.json())
        return Response.json(bucket_json(self._objects.patch_bucket(bucket, fields), request.base))

    _buckets_update = _buckets_patch

    def _buckets_delete(self, request: Request, bucket: str) -> Response:
        self._objects.delete_bucket(bucket)
        return Response(204)

    def _buckets_getStorageLayout(self, request: Request, bucket: str) -> Response:
        holder = bucket_json(self._objects.bucket(bucket), request.base)
        layout = {"kind": "storage#storageLayout", "bucket": bucket}
        return Response.json({**layout, "location": holder["location"], "locationType": "region"})

    def _buckets_testIamPermissions(self, request: Request, bucket: str) -> Response:
        self._objects.bucket(bucket)
        asked = [request.query["permissions"]] if "permissions" in request.query else []
        return Response.json({"kind": "storage#testIamPermissionsResponse", "permissions": asked})

    def _objects_list(self, request: Request, bucket: str) -> Response:
        after, most = _page(request)
        query = request.query
        wanted = Wanted(
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            after=after,
            most=most,
            first=query.get("startOffset", ""),
            end=query.get("endOffset", ""),
            glob=query.get("matchGlob", ""),
            trailing=query.get("includeTrailingDelimiter", "").lower() == "true",
        )
        found = self._objects.list(bucket, wanted)
        answer: dict[str, Any] = {"kind": "storage#objects"}
        if found.items:
            answer["items"] = [item_json(item, request.base) for item in found.items]
        if found.prefixes:
            answer["prefixes"] = found.prefixes
        if found.after:
            answer["nextPageToken"] = page_token(found.after)
        return Response.json(answer)

    def _objects_get(self, request: Request, bucket: str, name: str) -> Response:
        generation, conditions = _number(request, "generation"), _conditions(request)
        if request.query.get("alt") != "media":
            return _item(request, self._objects.get(bucket, name, generation, conditions))
        return media(request, *self._objects.read(bucket, name, generation, conditions))

    def _objects_patch(
        self, request: Request, bucket: str, name: str, *, whole: bool = False
    ) -> Response:
        fields = _settable(request.json())
        return _item(
            request, self._objects.patch(bucket, name, fields, _conditions(request), whole=whole)
        )

    def _objects_update(self, request: Request, bucket: str, name: str) -> Response:
        return self._objects_patch(request, bucket, name, whole=True)

    def _objects_delete(self, request: Request, bucket: str, name: str) -> Response:
        generation = _number(request, "generation")
        self._objects.delete(bucket, name, generation, _conditions(request))
        return Response(204)

    def _objects_compose(self, request: Request, bucket: str, name: str) -> Response:
        body = request.json()
        sources = []
        for source in body.get("sourceObjects", []):
            wanted = source.get("objectPreconditions", {}).get("ifGenerationMatch")
            conditions = Conditions(generation=None if wanted is None else int(wanted))
            generation = source.get("generation")
            sources.append(
                self._objects.get(
                    bucket, str(source.get("name")), generation and int(generation), conditions,
                    reading=False,
                )
            )  # fmt: skip
        fields = _settable(body.get("destination", {}))
        return _item(
            request, self._objects.compose(bucket, name, sources, fields, _conditions(request))
        )

    def _source(self, request: Request, bucket: str, name: str) -> Item:
        generation = _number(request, "sourceGeneration")
        conditions = _conditions(request, "ifSource")
        return self._objects.get(bucket, name, generation, conditions, reading=False)

    def _copied(self, request: Request, parts: tuple[str, ...]) -> Item:
        source = self._source(request, parts[0], parts[1])
        fields = _settable(request.json()) or None
        return self._objects.copy(source, parts[2], parts[3], fields, _conditions(request))

    def _objects_copy(self, request: Request, *parts: str) -> Response:
        return _item(request, self._copied(request, parts))

    def _objects_rewrite(self, request: Request, *parts: str) -> Response:
        item = self._copied(request, parts)
        answer = {
            "kind": "storage#rewriteResponse",
            "totalBytesRewritten": str(item.size),
            "objectSize": str(item.size),
            "done": True,
            "resource": item_json(item, request.base),
        }
        return Response.json(answer)

    def _objects_move(self, request: Request, bucket: str, name: str, new: str) -> Response:
        source = self._source(request, bucket, name)
        return _item(request, self._objects.move(source, new, _conditions(request)))

    def _objects_insert(self, request: Request, bucket: str) -> Response:
        kind = request.query.get("uploadType", "media")
        if "upload_id" in request.query:
            return self._objects_upload(request, bucket)
        if kind == "media":
            return self._media_upload(request, bucket)
        if kind == "multipart":
            return self._multipart_upload(request, bucket)
        if kind == "resumable":
            return self._resumable_upload(request, bucket)
        raise invalid(f"Invalid value for uploadType: {kind}")

    def _media_upload(self, request: Request, bucket: str) -> Response:
        self._objects.bucket(bucket)
        fields = {"contentType": request.headers.get("content-type")}
        name = _name(request, {})
        draft = self._objects.received(request.chunks())
        return _item(
            request, finish(self._objects, bucket, name, draft, fields, _conditions(request))
        )

    def _multipart_upload(self, request: Request, bucket: str) -> Response:
        self._objects.bucket(bucket)
        metadata, kind, content = _related(request)
        fields = _settable(metadata, hashes=True)
        fields.setdefault("contentType", kind)
        name = _name(request, metadata)
        draft = self._objects.draft()
        draft.write(content)
        return _item(
            request, finish(self._objects, bucket, name, draft, fields, _conditions(request))
        )

    def _resumable_upload(self, request: Request, bucket: str) -> Response:
        metadata = request.json()
        fields = _settable(metadata, hashes=True)
        if kind := request.headers.get("x-upload-content-type"):
            fields.setdefault("contentType", kind)
        announced = request.headers.get("x-upload-content-length")
        name = _name(request, metadata)
        session = self._uploads.begin(
            bucket, name, fields, _conditions(request), int(announced) if announced else None
        )
        path = f"/upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable"
        address = f"{request.base}{path}&upload_id={session.id}"
        return Response(200, b"", {"Location": address, "X-GUploader-UploadID": session.id})

    def _objects_upload(self, request: Request, bucket: str) -> Response:
        session = self._uploads.session(request.query.get("upload_id", ""))
        where = request.headers.get("content-range", "")
        self._uploads.receive(session, where, request.chunks())
        return _item(request, session.item) if session.item else progress(request, session)

    def _objects_cancelUpload(self, request: Request, bucket: str) -> Response:
        self._uploads.cancel(request.query.get("upload_id", ""))
        return Response(499)


def progress(request: Request, session: Resumable) -> Response:
    """How much has arrived of what is not complete. Go's clients take a 308 for a redirection."""
    headers = {"X-GUploader-UploadID": session.id}
    if session.draft.size:
        headers["Range"] = f"bytes=0-{session.draft.size - 1}"
    if request.headers.get("x-guploader-no-308") == "yes":
        return Response(200, b"", {**headers, "X-Http-Status-Code-Override": "308"})
    return Response(308, b"", headers)


def _item(request: Request, item: Item) -> Response:
    return Response.json(item_json(item, request.base), ETag=item.etag)


def page_token(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode("utf-8", "surrogatepass")).decode()


def from_token(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token).decode("utf-8", "surrogatepass")
    except ValueError as error:
        raise invalid("Invalid page token.") from error


def _page(request: Request) -> tuple[str, int]:
    most = int(request.query.get("maxResults") or 1000)
    if most < 1:
        raise invalid(f"Invalid maxResults: {most}")
    return from_token(request.query.get("pageToken", "")), min(most, 1000)


def _number(request: Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        raise invalid(f"Invalid value for {name}: {text!r}") from error


def _conditions(request: Request, prefix: str = "if") -> Conditions:
    return Conditions(
        _number(request, f"{prefix}GenerationMatch"),
        _number(request, f"{prefix}GenerationNotMatch"),
        _number(request, f"{prefix}MetagenerationMatch"),
        _number(request, f"{prefix}MetagenerationNotMatch"),
    )


def _settable(fields: Mapping[str, Any], *, hashes: bool = False) -> dict[str, Any]:
    kept = {k: v for k, v in fields.items() if k not in _OURS}
    if not hashes:
        kept.pop("md5Hash", None)
        kept.pop("crc32c", None)
    return kept


def _name(request: Request, metadata: Mapping[str, Any]) -> str:
    name = str(request.query.get("name") or metadata.get("name") or "")
    if not name:
        raise GcsError(400, "required", "Required parameter: name")
    check_name(name)
    return name


def _related(request: Request) -> tuple[dict[str, Any], str, bytes]:
    """The metadata, content type and content of a multipart/related body."""
    head = Message()
    head["Content-Type"] = request.headers.get("content-type", "")
    boundary = head.get_param("boundary")
    body = request.body.read()
    if not isinstance(boundary, str):
        raise invalid("A multipart upload needs a boundary.")
    mark = b"--" + boundary.encode()
    pieces = body.split(mark, 2)
    if len(pieces) < 3 or not (at := body.rfind(b"\r\n" + mark + b"--")) > 0:
        raise invalid("A multipart upload has two parts: metadata and media.")
    second = len(pieces[0]) + len(pieces[1]) + 2 * len(mark)
    _, _, first = pieces[1].partition(b"\r\n\r\n")
    media_part = body[second:at]
    head_of_media, _, content = media_part.partition(b"\r\n\r\n")  # Go's clients give none
    kind = BytesParser().parsebytes(head_of_media.lstrip() + b"\r\n\r\n").get_content_type()
    try:
        metadata = json.loads(first or b"{}")
    except ValueError as error:
        raise invalid("Metadata part is not JSON.") from error
    return dict(metadata), kind, content
