"""The local GCS as Google's clients see it that speak gRPC, unmodified: the async one, mostly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

pytest.importorskip("google.cloud.storage")
pytest.importorskip("google.cloud._storage_v2")

Client = Callable[..., Any]

_START = """
import asyncio, io, google_crc32c
from google.api_core import exceptions
from google.cloud import storage, _storage_v2 as v2
from google.cloud.storage.asyncio.async_grpc_client import AsyncGrpcClient
from google.cloud.storage.asyncio.async_appendable_object_writer import (
    AsyncAppendableObjectWriter as Writer)
from google.cloud.storage.asyncio.async_multi_range_downloader import (
    AsyncMultiRangeDownloader as Downloader)
whole = bytes(range(256)) * 40_000
async def refused(call):
    try:
        await call
    except exceptions.GoogleAPICallError as error:
        return error.grpc_status_code.name
    return ""
async def read(client, bucket, name):
    got = await Downloader.create_mrd(client, bucket, name)
    whole = io.BytesIO()
    await got.download_ranges([(0, 0, whole)])
    await got.close()
    return whole.getvalue()
async def write(client, bucket, name, data, **more):
    writer = Writer(client, bucket, name, **more)
    await writer.open()
    await writer.append(data)
    return await writer.close(finalize_on_close=True)
def at(bucket):
    return "projects/_/buckets/" + bucket
"""
_END = "\nasyncio.run(main())\n"


def test_an_object_grows_is_read_in_ranges_and_becomes_final(client: Client) -> None:
    told = client(
        _START
        + """
plain = storage.Client().create_bucket("growing")
async def main():
    client = AsyncGrpcClient()
    writer = Writer(client, "growing", "a/ü", generation=0)
    await writer.open()
    await writer.append(whole)
    told.append(await writer.flush() == len(whole))
    told.append(plain.blob("a/ü").download_as_bytes() == whole)
    await writer.append(b"unseen")
    told.append((await client.get_object("growing", "a/ü")).size == len(whole))
    await writer.close()
    told.append(await refused(Writer(client, "growing", "a/ü", generation=0).open()))
    more = Writer(client, "growing", "a/ü", generation=writer.generation)
    await more.open()
    told.append(more.offset == len(whole) + 6)
    await more.append(b"!")
    told.append(await refused(more.finalize(full_object_checksum=1)))
    more = Writer(client, "growing", "a/ü", generation=writer.generation)
    await more.open()
    last = whole + b"unseen!"
    made = await more.finalize(full_object_checksum=google_crc32c.value(last))
    told.extend([made.size == len(last), made.checksums.crc32c == google_crc32c.value(last)])
    told.append(await refused(Writer(client, "growing", "a/ü", writer.generation).open()))
    got = await Downloader.create_mrd(client, "growing", "a/ü")
    parts = [io.BytesIO() for _ in range(3)]
    await got.download_ranges([(0, 0, parts[0]), (len(last) - 3, 0, parts[1]), (5, 2, parts[2])])
    told.append(await refused(got.download_ranges([(len(last) + 1, 1, io.BytesIO())])))
    told.extend([parts[0].getvalue() == last, parts[1].getvalue().decode()])
    told.append(parts[2].getvalue() == whole[5:7])
    await client.delete_object("growing", "a/ü", if_generation_match=made.generation)
    told.append(await refused(Downloader.create_mrd(client, "growing", "a/ü")))
"""
        + _END
    )
    assert told == [
        *(True, True, True, "FAILED_PRECONDITION", True, "INVALID_ARGUMENT", True, True),
        *("FAILED_PRECONDITION", "OUT_OF_RANGE", True, "en!", True, "NOT_FOUND"),
    ]


def test_of_two_writers_the_one_that_came_last_may_write(client: Client) -> None:
    told = client(
        _START
        + """
storage.Client().create_bucket("two")
async def main():
    client = AsyncGrpcClient()
    one = Writer(client, "two", "x")
    await one.open()
    await one.append(b"1")
    await one.flush()
    other = Writer(client, "two", "x", generation=one.generation)
    await other.open()
    told.append(other.offset)
    await one.append(b"lost")
    told.append(await refused(one.flush()))
    await other.append(b"2")
    await other.finalize()
    told.append((await read(client, "two", "x")).decode())
    race = [refused(write(client, "two", "race", str(n).encode(), generation=0)) for n in range(8)]
    told.append(sorted(await asyncio.gather(*race)))
"""
        + _END
    )
    assert told == [1, "ABORTED", "12", ["", *["FAILED_PRECONDITION"] * 7]]


def test_buckets_and_objects_by_each_of_their_calls(client: Client) -> None:
    told = client(
        _START
        + """
async def main():
    client = AsyncGrpcClient()
    api = client.grpc_client
    made = await api.create_bucket(request=v2.CreateBucketRequest(
        parent="projects/_", bucket_id="calls",
        bucket=v2.Bucket(project="projects/portaflow-local", labels={"a": "b"})))
    told.append([made.name, made.bucket_id, made.location, dict(made.labels)])
    again = v2.CreateBucketRequest(
        parent="projects/_", bucket_id="calls", bucket=v2.Bucket(project="projects/p"))
    told.append(await refused(api.create_bucket(request=again)))
    told.append((await api.get_bucket(name=at("calls"))).bucket_id)
    told.append(await refused(api.get_bucket(name=at("none"))))
    told.append(await refused(api.get_bucket(name="none")))
    buckets = [b.bucket_id async for b in await api.list_buckets(parent="projects/_")]
    told.append("calls" in buckets)
    for name in ("l/1", "l/2", "l/3/x", "top"):
        await write(client, "calls", name, name.encode())
    pages = await api.list_objects(request=v2.ListObjectsRequest(parent=at("calls"), page_size=1))
    told.append([o.name async for o in pages])
    page = api.list_objects(request=v2.ListObjectsRequest(
        parent=at("calls"), prefix="l/", delimiter="/", lexicographic_start="l/2"))
    page = [p async for p in (await page).pages][0]
    told.append([[o.name for o in page.objects], list(page.prefixes)])
    held = await client.get_object("calls", "top")
    both = await api.compose_object(request=v2.ComposeObjectRequest(
        destination=v2.Object(bucket=at("calls"), name="both", content_type="text/plain"),
        source_objects=[v2.ComposeObjectRequest.SourceObject(name="top"),
                        v2.ComposeObjectRequest.SourceObject(name="l/1")],
        if_generation_match=0))
    told.append([both.content_type, both.component_count, both.size])
    told.append(await refused(api.compose_object(request=v2.ComposeObjectRequest(
        destination=v2.Object(bucket=at("calls"), name="both"),
        source_objects=[v2.ComposeObjectRequest.SourceObject(name="top")],
        if_generation_match=0))))
    copied = await api.rewrite_object(request=v2.RewriteObjectRequest(
        source_bucket=at("calls"), source_object="both", destination_bucket=at("calls"),
        destination_name="copy", if_source_generation_match=both.generation))
    told.append([copied.done, copied.resource.content_type])
    await api.move_object(request=v2.MoveObjectRequest(
        bucket=at("calls"), source_object="copy", destination_object="moved"))
    told.append(await refused(client.get_object("calls", "copy")))
    told.append((await read(client, "calls", "moved")).decode())
    changed = await api.update_object(request=v2.UpdateObjectRequest(
        object_=v2.Object(bucket=at("calls"), name="moved", metadata={"k": "v"}),
        update_mask={"paths": ["metadata", "content_type"]}, if_metageneration_match=1))
    told.append([dict(changed.metadata), changed.content_type, changed.metageneration])
    told.append(await refused(client.get_object(
        "calls", "moved", if_generation_not_match=changed.generation)))
    told.append(await refused(client.delete_object("calls", "moved", if_generation_match=1)))
    told.append(await refused(api.delete_bucket(name=at("calls"))))
    for name in ("l/1", "l/2", "l/3/x", "top", "both", "moved"):
        await client.delete_object("calls", name)
    await api.delete_bucket(name=at("calls"))
    told.append(await refused(api.get_bucket(name=at("calls"))))
"""
        + _END
    )
    assert told == [
        ["projects/_/buckets/calls", "calls", "US-CENTRAL1", {"a": "b"}],
        *("ALREADY_EXISTS", "calls", "NOT_FOUND", "INVALID_ARGUMENT", True),
        *(["l/1", "l/2", "l/3/x", "top"], [["l/2"], ["l/3/"]]),
        *(["text/plain", 2, 6], "FAILED_PRECONDITION", [True, "text/plain"]),
        *("NOT_FOUND", "topl/1", [{"k": "v"}, "application/octet-stream", 2]),
        *("ABORTED", "FAILED_PRECONDITION", "FAILED_PRECONDITION", "NOT_FOUND"),
    ]


_UPLOADS = """
def data(at, content, **more):
    sent = v2.ChecksummedData(content=content, crc32c=google_crc32c.value(content))
    return {"write_offset": at, "checksummed_data": sent, **more}
def spec(name, **more):
    return v2.WriteObjectSpec(resource=v2.Object(bucket=at("uploads"), name=name), **more)
async def sent(api, *messages):
    async def all():
        for message in messages:
            yield v2.WriteObjectRequest(**message)
    return await (await api.write_object(all(), metadata=(("x-goog-request-params", "bucket=x"),)))
"""


def test_an_upload_is_cut_asked_about_and_resumed(client: Client, clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="die", operation="gcp:storage.WriteObject", skip=1))
    told = client(
        _START
        + _UPLOADS
        + """
storage.Client().create_bucket("uploads")
async def main():
    api = AsyncGrpcClient().grpc_client
    one = await sent(api, data(0, b"one", write_object_spec=spec("x", if_generation_match=0),
                               finish_write=True))
    told.append(one.resource.size)
    begun = await api.start_resumable_write(request=v2.StartResumableWriteRequest(
        write_object_spec=spec("big")))
    half = len(whole) // 4
    told.append(await refused(sent(
        api, data(0, whole[:half], upload_id=begun.upload_id),
        data(half, whole[half:2 * half], finish_write=True))))
    status = await api.query_write_status(upload_id=begun.upload_id)
    told.append(status.persisted_size == half)
    told.append(await refused(sent(
        api, data(half + 1, b"gap", upload_id=begun.upload_id, finish_write=True))))
    broken = data(half, b"x", upload_id=begun.upload_id, finish_write=True)
    broken["checksummed_data"].crc32c += 1
    told.append(await refused(sent(api, broken)))
    done = await sent(api, data(half - 5, whole[half - 5:2 * half], upload_id=begun.upload_id),
                      data(2 * half, b"", finish_write=True))
    told.append(done.resource.checksums.crc32c == google_crc32c.value(whole[:2 * half]))
    status = await api.query_write_status(upload_id=begun.upload_id)
    told.append(status.resource.generation == done.resource.generation)
    parts = [p async for p in await api.read_object(request=v2.ReadObjectRequest(
        bucket=at("uploads"), object_="big", read_offset=-7, read_limit=3))]
    told.append(parts[0].checksummed_data.content == whole[2 * half - 7:2 * half - 4])
    told.append([parts[0].content_range.complete_length == 2 * half, len(parts)])
    told.append(await refused(sent(api, data(0, b"no end", write_object_spec=spec("y")))))
    told.append(await refused(sent(
        api, data(0, b"two", write_object_spec=spec("x", if_generation_match=0),
                  finish_write=True))))
"""
        + _END
    )
    assert told == [
        *(3, "UNAVAILABLE", True, "OUT_OF_RANGE", "INVALID_ARGUMENT", True, True, True),
        *([True, 1], "INVALID_ARGUMENT", "FAILED_PRECONDITION"),
    ]


def test_faults_are_met_as_the_async_client_would_meet_them(client: Client, clouds: Clouds) -> None:
    order = clouds.control.order
    ordered = [
        order(Fault(effect="throttle", operation="gcp:storage.BidiWriteObject")),
        order(Fault(effect="reset-before", operation="gcp:storage.BidiWriteObject")),
        order(Fault(effect="reset-after", operation="gcp:storage.BidiWriteObject")),
        order(Fault(effect="die", operation="gcp:storage.BidiReadObject")),
        order(Fault(effect="error", status=503, operation="gcp:storage.BidiReadObject")),
        order(Fault(effect="throttle", operation="gcp:storage.GetObject")),
        order(Fault(effect="error", status=500, operation="gcp:storage.GetObject")),
        order(Fault(effect="reset-after", operation="gcp:storage.DeleteObject")),
    ]
    told = client(
        _START
        + """
from google.api_core.retry_async import AsyncRetry
storage.Client().create_bucket("faults")
retry = AsyncRetry(predicate=lambda error: isinstance(
    error, (exceptions.ResourceExhausted, exceptions.Unknown, exceptions.InternalServerError,
            exceptions.ServiceUnavailable)), initial=0.01)
async def main():
    client = AsyncGrpcClient()
    made = await write(client, "faults", "x", whole)
    told.append([made.size == len(whole), await read(client, "faults", "x") == whole])
    told.append((await client.get_object("faults", "x", retry=retry)).size == len(whole))
    told.append(await refused(client.delete_object("faults", "x", retry=retry)))
"""
        + _END
    )
    # The answer to the deletion was lost, so the retry finds nothing.
    assert told == [[True, True], True, "NOT_FOUND"]
    assert [fault.hit for fault in ordered] == [1] * 8
    assert clouds.control.count("gcp:storage.BidiWriteObject") >= 4


def test_what_is_hidden_is_listed_later_and_who_proves_nothing_is_refused(
    client: Client, clouds: Clouds
) -> None:
    hide = Fault(effect="hide", seconds=1000, operation="gcp:storage.BidiWriteObject")
    clouds.control.order(hide)
    told = client(
        _START
        + """
from portaflow_conformance.emulators.endpoint import RemoteControl
plain = storage.Client()
plain.create_bucket("hidden")
from google.oauth2.credentials import Credentials
async def main():
    client = AsyncGrpcClient()
    await write(client, "hidden", "x", b"1")
    told.append((await client.get_object("hidden", "x")).size)
    told.append([o.name async for o in await client.grpc_client.list_objects(parent=at("hidden"))])
    told.append([o.name for o in plain.list_blobs("hidden")])
    RemoteControl().jump(1001)
    told.append([o.name async for o in await client.grpc_client.list_objects(parent=at("hidden"))])
    nobody = AsyncGrpcClient(credentials=Credentials("ya29.made-up"))
    told.append(await refused(nobody.get_object("hidden", "x")))
    told.append(await refused(Downloader.create_mrd(nobody, "hidden", "x")))
"""
        + _END
    )
    assert told == [1, [], [], ["x"], "UNAUTHENTICATED", "UNAUTHENTICATED"]


def test_the_synchronous_client_of_grpc_reads_the_same_objects(client: Client) -> None:
    told = client("""
from google.cloud import storage, _storage_v2 as v2
from google.cloud.storage.grpc_client import GrpcClient
storage.Client().create_bucket("plainly").blob("x").upload_from_string("hello")
api = GrpcClient(project="portaflow-local").grpc_client
where = "projects/_/buckets/plainly"
told += [api.get_bucket(name=where).bucket_id, [o.name for o in api.list_objects(parent=where)]]
parts = api.read_object(request=v2.ReadObjectRequest(bucket=where, object_="x"))
told += [b"".join(part.checksummed_data.content for part in parts).decode()]
""")
    assert told == ["plainly", ["x"], "hello"]
