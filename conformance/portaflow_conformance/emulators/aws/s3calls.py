"""Which operation of S3 a request is, and the little of S3's XML that we write ourselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

_CREDENTIAL = re.compile(r"Credential=([^/,]+)/\d+/([^/,]+)/")
_HOST = re.compile(
    r"(?:(?P<bucket>.+)\.)?s3(?:[.-](?P<region>[a-z0-9-]+))?\.amazonaws\.com(?::\d+)?"
)
# Of the operations on a bucket or on an object by one verb: that whose mark the query has.
_OF_BUCKET = {
    "GET": ("uploads:ListMultipartUploads", "versions:ListObjectVersions",
            "location:GetBucketLocation", "versioning:GetBucketVersioning",
            "list-type:ListObjectsV2", ":ListObjects"),
    "PUT": ("versioning:PutBucketVersioning", ":CreateBucket"),
    "HEAD": (":HeadBucket",),
    "DELETE": (":DeleteBucket",),
    "POST": ("delete:DeleteObjects",),
}  # fmt: skip
_OF_OBJECT = {
    "GET": ("uploadId:ListParts", "tagging:GetObjectTagging", "acl:GetObjectAcl", ":GetObject"),
    "PUT": ("uploadId:UploadPart", "tagging:PutObjectTagging", ":PutObject"),
    "HEAD": (":HeadObject",),
    "DELETE": ("uploadId:AbortMultipartUpload", "tagging:DeleteObjectTagging", ":DeleteObject"),
    "POST": ("uploads:CreateMultipartUpload", "uploadId:CompleteMultipartUpload"),
}
_SUBRESOURCES = ("acl", "policy", "lifecycle", "cors", "encryption", "tagging", "retention")


@dataclass(frozen=True, slots=True)
class S3Call:
    operation: str  # "GET" and the like for what is not in the tables
    principal: str
    bucket: str
    key: str
    params: Mapping[str, str]
    region: str  # of the address; "" for the one that all regions share
    signed: str  # the region that a header of the call is signed for

    @classmethod
    def read(cls, verb: str, target: str, headers: Mapping[str, str]) -> S3Call:
        path, _, text = target.partition("?")
        query = dict(parse_qsl(text, keep_blank_values=True))
        found = _HOST.fullmatch(headers.get("host", "").lower())
        bucket, key = (found["bucket"] if found else None), path[1:]
        if bucket is None:
            bucket, _, key = key.partition("/")
        signed = _CREDENTIAL.search(headers.get("authorization", ""))
        credential = query.get("X-Amz-Credential", "").partition("/")[0]
        key = unquote(key)
        params = {k: v for k, v in query.items() if not k.lower().startswith("x-amz-")}
        params |= {name: value for name, value in (("Bucket", bucket), ("Key", key)) if value}
        operation = _named(verb, bucket, key, query, "x-amz-copy-source" in headers)
        principal, region = signed.groups() if signed else (credential, "")
        at = (found["region"] if found else None) or ""
        return cls(operation, principal, bucket, key, params, at, region)


def _named(verb: str, bucket: str, key: str, query: Mapping[str, str], copies: bool) -> str:
    if not bucket:
        return "ListBuckets" if verb == "GET" else verb
    for line in (_OF_OBJECT if key else _OF_BUCKET).get(verb, ()):
        mark, _, name = line.partition(":")
        if mark and mark in query:
            return f"{name}Copy" if copies else name
        if not mark and not any(sub in query for sub in _SUBRESOURCES):
            return "CopyObject" if copies else name
    return verb


def error(
    status: int, code: str, message: str, verb: str, more: Mapping[str, str] = {}, home: str = ""
) -> bytes:
    """A whole answer. `more` stands beside the message, `home` is the region of the bucket."""
    told = {"Code": code, "Message": message, **more}
    said = "".join(f"<{name}>{text}</{name}>" for name, text in told.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{said}</Error>'.encode()
    head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
    head += f"{region_header(home)}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + (b"" if verb == "HEAD" else body)


def region_header(region: str) -> str:
    """The line that tells where a bucket is; "" for none."""
    return f"x-amz-bucket-region: {region}\r\n" if region else ""


def without(listing: bytes, hidden: Callable[[str], bool]) -> bytes:
    """A listing of objects without those that `hidden` tells by their key."""
    from html import unescape

    coded = b"<EncodingType>url<" in listing
    gone = 0

    def keep(found: re.Match[bytes]) -> bytes:
        nonlocal gone
        key = unescape(found[1].decode())
        if not hidden(unquote(key) if coded else key):
            return found[0]
        gone += 1
        return b""

    kept = re.sub(rb"<Contents>.*?<Key>(.*?)</Key>.*?</Contents>", keep, listing, flags=re.DOTALL)
    count = re.compile(rb"(?<=<KeyCount>)\d+")
    return count.sub(lambda found: str(int(found[0]) - gone).encode(), kept)
