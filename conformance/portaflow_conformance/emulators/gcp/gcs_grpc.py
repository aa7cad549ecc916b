"""The gRPC API of the local GCS: google.storage.v2.Storage, which Google's async client speaks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.cloud import _storage_v2 as v2
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from . import gcs_proto as proto
from .gcs_json import from_token, page_token
from .gcs_streams import Streams
from .items import Conditions, GcsError, Item, check_bucket_name, check_name
from .listing import Wanted
from .objects import Objects
from .rpc import Call, Code, Method, RefusedError, Service, Stream, invalid
from .uploads import Uploads

_MOST = 1000


class GrpcApi:
    """Reads and writes what the JSON API does."""

    def __init__(self, objects: Objects, uploads: Uploads, project: str) -> None:
        self._objects, self._uploads, self._project = objects, uploads, project
        self._streams = Streams(objects, uploads)

    def service(self) -> Service:
        methods: dict[str, tuple[Any, Method]] = {
            "GetBucket": (v2.GetBucketRequest, self._get_bucket),
            "CreateBucket": (v2.CreateBucketRequest, self._create_bucket),
            "ListBuckets": (v2.ListBucketsRequest, self._list_buckets),
            "DeleteBucket": (v2.DeleteBucketRequest, self._delete_bucket),
            "GetObject": (v2.GetObjectRequest, self._get_object),
            "ListObjects": (v2.ListObjectsRequest, self._list_objects),
            "UpdateObject": (v2.UpdateObjectRequest, self._update_object),
            "DeleteObject": (v2.DeleteObjectRequest, self._delete_object),
            "ComposeObject": (v2.ComposeObjectRequest, self._compose_object),
            "RewriteObject": (v2.RewriteObjectRequest, self._rewrite_object),
            "MoveObject": (v2.MoveObjectRequest, self._move_object),
            "StartResumableWrite": (v2.StartResumableWriteRequest, self._start_write),
            "QueryWriteStatus": (v2.QueryWriteStatusRequest, self._query_write),
            "CancelResumableWrite": (v2.CancelResumableWriteRequest, self._cancel_write),
        }
        streams: dict[str, tuple[Any, Stream]] = {
            "ReadObject": (v2.ReadObjectRequest, self._streams.read_object),
            "BidiReadObject": (v2.BidiReadObjectRequest, self._streams.bidi_read_object),
            "WriteObject": (v2.WriteObjectRequest, self._streams.write_object),
            "BidiWriteObject": (v2.BidiWriteObjectRequest, self._streams.bidi_write_object),
        }
        return Service(
            "storage",
            {name: (asked, self._worded(do)) for name, (asked, do) in methods.items()},
            streams={name: (asked, self._flowing(do)) for name, (asked, do) in streams.items()},
            private=frozenset(("checksummed_data", "upload_id")),
        )

    def _worded(self, do: Method) -> Method:
        """Errors as gRPC has them, and what is made hidden if that was ordered."""

        def method(request: Any, call: Call) -> Any:
            try:
                with self._objects.hiding(call.fault):
                    return do(request, call)
            except GcsError as error:
                raise proto.refused(error) from error

        return method

    def _flowing(self, do: Stream) -> Stream:
        def stream(requests: Iterator[Any], call: Call) -> Iterator[Any]:
            try:
                with self._objects.hiding(call.fault):
                    yield from do(requests, call)
            except GcsError as error:
                raise proto.refused(error) from error

        return stream

    def _get_bucket(self, request: Any, call: Call) -> Any:
        holder = self._objects.bucket(proto.bucket_name(request.name))
        return proto.bucket_message(holder, self._project)

    def _create_bucket(self, request: Any, call: Call) -> Any:
        check_bucket_name(request.bucket_id)
        if not re.fullmatch(r"projects/[^/]+", request.bucket.project or request.parent):
            raise invalid("A bucket belongs to a project: projects/*")
        fields = proto.bucket_fields(request.bucket)
        try:
            holder = self._objects.create_bucket(request.bucket_id, fields)
        except GcsError as error:
            raise RefusedError(Code.ALREADY_EXISTS, error.message) from error
        return proto.bucket_message(holder, self._project)

    def _list_buckets(self, request: Any, call: Call) -> Any:
        after, most = from_token(request.page_token), request.page_size or _MOST
        prefix = request.prefix.removeprefix("projects/_/buckets/")
        found = [b for b in self._objects.buckets(prefix) if b.name > after]
        answer = v2.ListBucketsResponse.pb()()
        answer.buckets.extend(proto.bucket_message(b, self._project) for b in found[:most])
        if len(found) > most:
            answer.next_page_token = page_token(found[most - 1].name)
        return answer

    def _delete_bucket(self, request: Any, call: Call) -> Any:
        self._objects.delete_bucket(proto.bucket_name(request.name))
        return empty_pb2.Empty()

    def _live(self, request: Any) -> Item:
        bucket, generation = proto.bucket_name(request.bucket), request.generation or None
        return self._objects.get(bucket, request.object_, generation, proto.conditions(request))

    def _get_object(self, request: Any, call: Call) -> Any:
        return proto.object_message(self._live(request))

    def _list_objects(self, request: Any, call: Call) -> Any:
        wanted = Wanted(
            prefix=request.prefix,
            delimiter=request.delimiter,
            after=from_token(request.page_token),
            most=min(request.page_size or _MOST, _MOST),
            first=request.lexicographic_start,
            end=request.lexicographic_end,
            glob=request.match_glob,
            trailing=request.include_trailing_delimiter,
        )
        found = self._objects.list(proto.bucket_name(request.parent), wanted)
        answer = v2.ListObjectsResponse.pb()()
        answer.objects.extend(map(proto.object_message, found.items))
        answer.prefixes.extend(found.prefixes)
        answer.next_page_token = page_token(found.after)
        return answer

    def _update_object(self, request: Any, call: Call) -> Any:
        asked = request.object_
        bucket, name = proto.bucket_name(asked.bucket), asked.name
        held = self._objects.get(bucket, name, asked.generation or None)
        changed = proto.changes(asked, request.update_mask, held)
        item = self._objects.patch(bucket, name, changed, proto.conditions(request))
        return proto.object_message(item)

    def _delete_object(self, request: Any, call: Call) -> Any:
        self._objects.delete(
            proto.bucket_name(request.bucket), request.object_, request.generation or None,
            proto.conditions(request),
        )  # fmt: skip
        return empty_pb2.Empty()

    def _compose_object(self, request: Any, call: Call) -> Any:
        made = request.destination
        bucket = proto.bucket_name(made.bucket)
        sources = [
            self._objects.get(
                bucket, one.name, one.generation or None,
                Conditions(proto.optional(one.object_preconditions, "if_generation_match")),
                reading=False,
            )
            for one in request.source_objects
        ]  # fmt: skip
        item = self._objects.compose(
            bucket, made.name, sources, proto.object_fields(made), proto.conditions(request)
        )
        if request.delete_source_objects:
            for source in sources:
                self._objects.delete(bucket, source.name, source.generation)
        return proto.object_message(item)

    def _rewrite_object(self, request: Any, call: Call) -> Any:
        source = self._objects.get(
            proto.bucket_name(request.source_bucket), request.source_object,
            request.source_generation or None, proto.conditions(request, "if_source_"),
            reading=False,
        )  # fmt: skip
        fields = proto.object_fields(request.destination) or None
        item = self._objects.copy(
            source, proto.bucket_name(request.destination_bucket), request.destination_name,
            fields, proto.conditions(request),
        )  # fmt: skip
        answer = v2.RewriteResponse.pb()()
        answer.total_bytes_rewritten = answer.object_size = item.size
        answer.done = True
        answer.resource.CopyFrom(proto.object_message(item))
        return answer

    def _move_object(self, request: Any, call: Call) -> Any:
        bucket = proto.bucket_name(request.bucket)
        source = self._objects.get(
            bucket, request.source_object, None, proto.conditions(request, "if_source_"),
            reading=False,
        )  # fmt: skip
        conditions = proto.conditions(request)
        item = self._objects.move(source, request.destination_object, conditions)
        return proto.object_message(item)

    def _start_write(self, request: Any, call: Call) -> Any:
        spec = request.write_object_spec
        check_name(spec.resource.name)
        fields = proto.object_fields(spec.resource) | proto.promised(request.object_checksums)
        session = self._uploads.begin(
            proto.bucket_name(spec.resource.bucket), spec.resource.name, fields,
            proto.conditions(spec), proto.optional(spec, "object_size"),
        )  # fmt: skip
        answer = v2.StartResumableWriteResponse.pb()()
        answer.upload_id = session.id
        return answer

    def _query_write(self, request: Any, call: Call) -> Any:
        session = self._uploads.session(request.upload_id)
        answer = v2.QueryWriteStatusResponse.pb()()
        if session.item is None:
            answer.persisted_size = session.draft.size
        else:
            answer.resource.CopyFrom(proto.object_message(session.item))
        return answer

    def _cancel_write(self, request: Any, call: Call) -> Any:
        self._uploads.cancel(request.upload_id)
        return v2.CancelResumableWriteResponse.pb()()
