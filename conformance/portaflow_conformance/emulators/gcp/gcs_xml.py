"""The XML API of the local GCS: what object stores of other clouds' making speak.

Objects are `/{bucket}/{key}`, or `/{key}` at `{bucket}.storage.googleapis.com`.
"""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from .gcs_json import from_token, page_token, progress
from .items import Conditions, GcsError, Item, invalid
from .listing import Wanted
from .objects import Objects
from .resources import media, stamp
from .uploads import Uploads, finish, part_etag
from .wire import Request, Response

_HOST = ".storage.googleapis.com"
_HEADERS = {
    "content-type": "contentType",
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
    "x-goog-storage-class": "storageClass",
}
_ASKED = {
    "response-content-type": "Content-Type",
    "response-content-disposition": "Content-Disposition",
}
_CODES = {
    "notFound": "NoSuchKey",
    "conditionNotMet": "PreconditionFailed",
    "invalid": "InvalidArgument",
    "rateLimitExceeded": "SlowDown",
    "authError": "AuthenticationRequired",
    "forbidden": "AccessDenied",
    "conflict": "BucketNotEmpty",
    "backendError": "InternalError",
}
_XMLNS = 'xmlns="http://doc.s3.amazonaws.com/2006-03-01"'  # a name, and GCS's own
_BANNED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class XmlApi:
    """Answers what is not the JSON API's."""

    def __init__(self, objects: Objects, uploads: Uploads) -> None:
        self._objects = objects
        self._uploads = uploads

    def operation(self, request: Request) -> tuple[str, list[str]]:
        bucket, name = _address(request)
        query, method = request.query, request.method
        if not bucket:
            raise GcsError(501, "NotImplemented", "Listing buckets is not in the local XML API")
        if not name:
            known = {"GET": "xml.listObjects", "HEAD": "xml.getBucket"}
            parts = [bucket]
        else:
            parts = [bucket, name]
            known = {"GET": "objects.get", "HEAD": "objects.get", "DELETE": "objects.delete"}
            known["PUT"] = "objects.copy" if _source(request) else "objects.insert"
            if "uploadId" in query:
                known = {
                    "PUT": "multipart.part",
                    "POST": "multipart.complete",
                    "DELETE": "multipart.abort",
                }
            elif "uploads" in query:
                known = {"POST": "multipart.initiate"}
            elif "upload_id" in query:
                known = {"PUT": "objects.upload", "DELETE": "objects.cancelUpload"}
            elif request.headers.get("x-goog-resumable") == "start":
                known = {"POST": "objects.begin"}
        if method not in known:
            text = f"{method} {request.path} is not in the local XML API"
            raise GcsError(501, "NotImplemented", text)
        return known[method], parts

    def answer(self, name: str, parts: list[str], request: Request) -> Response:
        word = "_" + name.removeprefix("xml.").replace(".", "_")
        method: Callable[..., Response] = getattr(self, word)
        return method(request, *parts)

    def _getBucket(self, request: Request, bucket: str) -> Response:
        self._objects.bucket(bucket)
        return Response(200)

    def _listObjects(self, request: Request, bucket: str) -> Response:
        query = request.query
        unknown = set(query) - {
            "list-type", "prefix", "delimiter", "continuation-token", "max-keys", "start-after",
            "marker", "encoding-type", "fetch-owner",
        }  # fmt: skip
        if unknown:
            text = f"?{min(unknown)} of a bucket is not in the local XML API"
            raise GcsError(501, "NotImplemented", text)
        newer = query.get("list-type") == "2"
        after = query.get("start-after", "") if newer else query.get("marker", "")
        if token := query.get("continuation-token"):
            after = from_token(token)
        most = min(int(query.get("max-keys") or 1000), 1000)
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        wanted = Wanted(prefix=prefix, delimiter=delimiter, after=after, most=most)
        found = self._objects.list(bucket, wanted)
        lines = [f"<Name>{bucket}</Name><Prefix>{_text(prefix)}</Prefix>"]
        lines.append(f"<Delimiter>{_text(delimiter)}</Delimiter><MaxKeys>{most}</MaxKeys>")
        lines.append(f"<KeyCount>{len(found.items) + len(found.prefixes)}</KeyCount>")
        lines.append(f"<IsTruncated>{'true' if found.after else 'false'}</IsTruncated>")
        if found.after:
            token = page_token(found.after)
            tag = "NextContinuationToken" if newer else "NextMarker"
            lines.append(f"<{tag}>{token if newer else _text(found.after)}</{tag}>")
        lines += [_contents(item) for item in found.items]
        for name in found.prefixes:
            lines.append(f"<CommonPrefixes><Prefix>{_text(name)}</Prefix></CommonPrefixes>")
        return _document("ListBucketResult", "".join(lines))

    def _objects_get(self, request: Request, bucket: str, name: str) -> Response:
        generation = request.query.get("generation")
        item, file = self._objects.read(
            bucket, name, int(generation) if generation else None, _conditions(request)
        )
        held = f'"{etag(item)}"'
        wanted, unwanted = (request.headers.get(h) for h in ("if-match", "if-none-match"))
        if wanted not in (None, "*") and held not in str(wanted):
            file.close()
            raise GcsError(412, "PreconditionFailed", "If-Match")
        if unwanted is not None and (unwanted == "*" or held in unwanted):
            file.close()
            return Response(304, b"", {"ETag": held})
        response = media(request, item, file)
        response.headers["ETag"] = held
        for query, header in _ASKED.items():
            if query in request.query:
                response.headers[header] = request.query[query]
        return response

    def _objects_insert(self, request: Request, bucket: str, name: str) -> Response:
        self._objects.bucket(bucket)
        fields = _fields(request)
        draft = self._objects.received(request.chunks())
        item = finish(self._objects, bucket, name, draft, fields, _conditions(request))
        return Response(200, b"", _written(item))

    def _objects_begin(self, request: Request, bucket: str, name: str) -> Response:
        conditions = _conditions(request)
        session = self._uploads.begin(bucket, name, _fields(request), conditions, None)
        address = f"{request.base}{request.path}?upload_id={session.id}"
        return Response(201, b"", {"Location": address})

    def _objects_upload(self, request: Request, bucket: str, name: str) -> Response:
        session = self._uploads.session(request.query["upload_id"])
        where = request.headers.get("content-range", "")
        self._uploads.receive(session, where, request.chunks())
        if session.item:
            return Response(200, b"", _written(session.item))
        return progress(request, session)

    def _objects_cancelUpload(self, request: Request, bucket: str, name: str) -> Response:
        self._uploads.cancel(request.query["upload_id"])
        return Response(499)

    def _objects_copy(self, request: Request, bucket: str, name: str) -> Response:
        path = unquote(_source(request)).lstrip("/")
        source_bucket, _, source_name = path.partition("/")
        number = request.headers.get("x-goog-copy-source-generation")
        match = request.headers.get("x-goog-copy-source-if-generation-match")
        source = self._objects.get(
            source_bucket, source_name, int(number) if number else None,
            Conditions(generation=int(match) if match else None), reading=False,
        )  # fmt: skip
        replacing = request.headers.get("x-goog-metadata-directive", "COPY").upper() == "REPLACE"
        fields = _fields(request) if replacing else None
        item = self._objects.copy(source, bucket, name, fields, _conditions(request))
        text = f'<ETag>"{etag(item)}"</ETag><LastModified>{stamp(item.updated)}</LastModified>'
        response = _document("CopyObjectResult", text)
        response.headers |= _written(item)
        return response

    def _objects_delete(self, request: Request, bucket: str, name: str) -> Response:
        generation = request.query.get("generation")
        self._objects.delete(
            bucket, name, int(generation) if generation else None, _conditions(request)
        )
        return Response(204)

    def _multipart_initiate(self, request: Request, bucket: str, name: str) -> Response:
        upload = self._uploads.initiate(bucket, name, _fields(request))
        text = f"<Bucket>{bucket}</Bucket><Key>{_text(name)}</Key><UploadId>{upload.id}</UploadId>"
        return _document("InitiateMultipartUploadResult", text)

    def _multipart_part(self, request: Request, bucket: str, name: str) -> Response:
        upload = self._uploads.multipart(request.query["uploadId"], bucket, name)
        number = int(request.query.get("partNumber") or 0)
        if copied := _source(request):
            text = f"Copying {copied} as a part is not in the local XML API"
            raise GcsError(501, "NotImplemented", text)
        draft = self._objects.received(request.chunks())
        self._uploads.part(upload, number, draft)
        return Response(200, b"", {"ETag": f'"{part_etag(draft)}"'})

    def _multipart_complete(self, request: Request, bucket: str, name: str) -> Response:
        upload = self._uploads.multipart(request.query["uploadId"], bucket, name)
        try:
            root = ET.fromstring(request.body.read())
            parts = [
                (int(_child(part, "PartNumber")), _child(part, "ETag"))
                for part in root
                if part.tag.rpartition("}")[2] == "Part"
            ]
        except (ET.ParseError, ValueError) as error:
            raise GcsError(400, "MalformedXML", str(error)) from error
        item = self._uploads.complete(upload, parts, _conditions(request))
        text = f"<Bucket>{bucket}</Bucket><Key>{_text(name)}</Key>"
        response = _document("CompleteMultipartUploadResult", f'{text}<ETag>"{etag(item)}"</ETag>')
        response.headers |= _written(item)
        return response

    def _multipart_abort(self, request: Request, bucket: str, name: str) -> Response:
        self._uploads.abort(self._uploads.multipart(request.query["uploadId"], bucket, name))
        return Response(204)


def etag(item: Item) -> str:
    """The XML API's ETag: the MD5 of what has one."""
    return base64.b64decode(item.md5).hex() or item.etag.rstrip("=")


def error_xml(error: GcsError) -> Response:
    """An error as the XML API words it."""
    if error.status == 304:
        return Response(304)
    code = _CODES.get(error.reason, error.reason)
    if code == "NoSuchKey" and "bucket" in error.message:
        code = "NoSuchBucket"
    text = f"<Code>{code}</Code><Message>{_text(error.message)}</Message>"
    return Response.xml(
        f"<?xml version='1.0' encoding='UTF-8'?><Error>{text}</Error>", error.status
    )


def _address(request: Request) -> tuple[str, str]:
    path = request.path.lstrip("/") if request.path.startswith("/") else request.path
    if request.host.endswith(_HOST):
        return request.host.removesuffix(_HOST), unquote(request.path[1:])
    bucket, _, name = path.partition("/")
    return unquote(bucket), unquote(name)


def _source(request: Request) -> str:
    return request.headers.get("x-goog-copy-source") or ""


def _fields(request: Request) -> dict[str, Any]:
    headers = request.headers
    fields: dict[str, Any] = {
        field: headers[header] for header, field in _HEADERS.items() if header in headers
    }
    start = "x-goog-meta-"
    extra = {k.removeprefix(start): v for k, v in headers.items() if k.startswith(start)}
    if extra:
        fields["metadata"] = extra
    if md5 := headers.get("content-md5"):
        fields["md5Hash"] = md5
    for word in headers.get("x-goog-hash", "").split(","):
        kind, _, value = word.strip().partition("=")
        if kind in ("md5", "crc32c"):
            fields["md5Hash" if kind == "md5" else kind] = value
    return fields


def _conditions(request: Request) -> Conditions:
    def number(name: str) -> int | None:
        text = request.headers.get(f"x-goog-if-{name}")
        try:
            return int(text) if text else None
        except ValueError as error:
            raise invalid(f"x-goog-if-{name}: {text}") from error

    return Conditions(
        generation=number("generation-match"), metageneration=number("metageneration-match")
    )


def _written(item: Item) -> dict[str, str]:
    hashes = f"crc32c={item.crc32c}" + (f",md5={item.md5}" if item.md5 else "")
    return {
        "ETag": f'"{etag(item)}"',
        "x-goog-generation": str(item.generation),
        "x-goog-metageneration": str(item.metageneration),
        "x-goog-hash": hashes,
        "x-goog-stored-content-length": str(item.size),
    }


def _contents(item: Item) -> str:
    return (
        f"<Contents><Key>{_text(item.name)}</Key><Generation>{item.generation}</Generation>"
        f"<MetaGeneration>{item.metageneration}</MetaGeneration>"
        f"<LastModified>{stamp(item.updated)}</LastModified>"
        f'<ETag>"{etag(item)}"</ETag><Size>{item.size}</Size></Contents>'
    )


def _child(element: Mapping[str, Any] | ET.Element, name: str) -> str:
    for child in element:
        if isinstance(child, ET.Element) and child.tag.rpartition("}")[2] == name:
            return child.text or ""
    raise ValueError(f"<Part> without <{name}>")


def _text(value: str) -> str:
    return _BANNED.sub("\ufffd", escape(value)).replace("\r", "&#13;")


def _document(root: str, body: str) -> Response:
    return Response.xml(f"<?xml version='1.0' encoding='UTF-8'?><{root} {_XMLNS}>{body}</{root}>")
