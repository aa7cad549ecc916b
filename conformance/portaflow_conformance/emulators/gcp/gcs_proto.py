"""Buckets and objects of the local GCS in the messages of google.storage.v2."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from google.cloud import _storage_v2 as v2
from google.protobuf.json_format import MessageToDict, ParseDict  # type: ignore[import-untyped]
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from .items import Bucket, Conditions, GcsError, Item, invalid
from .rpc import Code, RefusedError

_BUCKETS = "projects/_/buckets/"
# What a client may set, in the words of the JSON API, which are those of the messages as JSON.
_OF_OBJECTS = (
    *("contentType", "cacheControl", "contentEncoding", "contentDisposition", "contentLanguage"),
    *("metadata", "storageClass", "customTime", "temporaryHold", "eventBasedHold"),
)
_OF_BUCKETS = ("location", "storageClass", "labels", "versioning")
_CODES = {
    304: Code.ABORTED,
    400: Code.INVALID_ARGUMENT,
    404: Code.NOT_FOUND,
    409: Code.FAILED_PRECONDITION,
    412: Code.FAILED_PRECONDITION,
}
_BY_REASON = {"aborted": Code.ABORTED, "outOfRange": Code.OUT_OF_RANGE}


def refused(error: GcsError) -> RefusedError:
    """The error of the other APIs as gRPC has it."""
    code = _BY_REASON.get(error.reason) or _CODES.get(error.status, Code.UNKNOWN)
    return RefusedError(code, error.message)


def bucket_name(resource: str) -> str:
    """The name in `projects/_/buckets/NAME`."""
    if not resource.startswith(_BUCKETS) or not (name := resource.removeprefix(_BUCKETS)):
        raise invalid(f"Invalid resource name: {resource!r} is not {_BUCKETS}*")
    return name


def optional(request: Any, field: str) -> int | None:
    """A field that a client need not have set, and that may be 0 when it has."""
    return int(getattr(request, field)) if request.HasField(field) else None


def conditions(request: Any, prefix: str = "if_") -> Conditions:
    known = request.DESCRIPTOR.fields_by_name

    def given(name: str) -> int | None:
        return optional(request, prefix + name) if prefix + name in known else None

    return Conditions(
        given("generation_match"), given("generation_not_match"),
        given("metageneration_match"), given("metageneration_not_match"),
    )  # fmt: skip


def crc(text: str) -> int:
    """A checksum as a number, which the JSON API writes in base64."""
    return int.from_bytes(base64.b64decode(text))


def promised(checksums: Any) -> dict[str, str]:
    """The hashes that a client gives of the whole of an object, as `finish` wants them."""
    hashes: dict[str, str] = {}
    if checksums.HasField("crc32c"):
        hashes["crc32c"] = base64.b64encode(checksums.crc32c.to_bytes(4)).decode()
    if checksums.md5_hash:
        hashes["md5Hash"] = base64.b64encode(checksums.md5_hash).decode()
    return hashes


def object_fields(resource: Any) -> dict[str, Any]:
    told = MessageToDict(resource)
    return {name: told[name] for name in _OF_OBJECTS if name in told}


def bucket_fields(resource: Any) -> dict[str, Any]:
    told = MessageToDict(resource)
    return {name: told[name] for name in _OF_BUCKETS if name in told}


def changes(resource: Any, mask: Any, item: Item) -> dict[str, Any]:
    """What an update of these fields changes; None for what it takes away."""
    new = object_fields(resource)
    told = {_camel(path.partition(".")[0]): path.partition(".")[2] for path in mask.paths}
    if "*" in told:
        told = dict.fromkeys(_OF_OBJECTS, "")
    changed: dict[str, Any] = {}
    for name, key in told.items():
        if name not in _OF_OBJECTS:
            raise invalid(f"Invalid update_mask: {name} cannot be changed")
        changed[name] = new.get(name)
        if name == "metadata":
            now = new.get(name, {})
            old = item.fields.get(name) or {}
            changed[name] = {key: now.get(key)} if key else {**dict.fromkeys(old), **now}
    return changed


def _camel(path: str) -> str:
    first, *others = path.split("_")
    return first + "".join(word.capitalize() for word in others)


def object_message(item: Item) -> Any:
    message = _message(v2.Object, _OF_OBJECTS, item.fields)
    message.name, message.bucket = item.name, _BUCKETS + item.bucket
    message.etag, message.size = item.etag, item.size
    message.generation, message.metageneration = item.generation, item.metageneration
    message.content_type = item.content_type
    message.storage_class = message.storage_class or "STANDARD"
    message.component_count = item.components
    message.checksums.crc32c = crc(item.crc32c)
    message.checksums.md5_hash = base64.b64decode(item.md5)
    message.create_time.CopyFrom(_stamp(item.created))
    message.update_time.CopyFrom(_stamp(item.updated))
    message.update_storage_class_time.CopyFrom(_stamp(item.created))
    if item.finished:
        message.finalize_time.CopyFrom(_stamp(item.updated if item.appended else item.created))
    return message


def bucket_message(bucket: Bucket, project: str) -> Any:
    message = _message(v2.Bucket, _OF_BUCKETS, bucket.fields)
    message.name, message.bucket_id = _BUCKETS + bucket.name, bucket.name
    message.project = f"projects/{project}"
    message.location = message.location or "US-CENTRAL1"
    message.location_type = "region"
    message.storage_class = message.storage_class or "STANDARD"
    message.metageneration = bucket.metageneration
    message.etag = str(bucket.metageneration)
    message.create_time.CopyFrom(_stamp(bucket.created))
    message.update_time.CopyFrom(_stamp(bucket.updated))
    return message


def _message(kind: Any, names: tuple[str, ...], fields: Mapping[str, Any]) -> Any:
    make: Callable[[], Any] = kind.pb()
    told = {name: fields[name] for name in names if fields.get(name) is not None}
    return ParseDict(told, make())


def _stamp(seconds: float) -> Any:
    message = Timestamp()
    message.FromNanoseconds(int(seconds * 1e9))
    return message
