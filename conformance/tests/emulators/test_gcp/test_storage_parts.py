"""Uploads in parts to the local GCS: the parts are the object, and nothing is left of the rest."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("google.cloud.storage")
pytest.importorskip("google_crc32c")

import google_crc32c
from portaflow_conformance.emulators.gcp.items import NONE, Conditions, GcsError, Item
from portaflow_conformance.emulators.gcp.objects import Objects
from portaflow_conformance.emulators.gcp.uploads import Multipart, Uploads, part_etag

Client = Callable[..., Any]
SIZES = (5_000, 1, 70_000, 3)  # bytes of the parts


class Place:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = Objects(folder)
        self.uploads = Uploads(self.objects)
        self.objects.create_bucket("b", {})

    def begun(self, *parts: bytes) -> tuple[Multipart, list[tuple[int, str]]]:
        upload = self.uploads.initiate("b", "o", {})
        return upload, [(n, self.part(upload, n, part)) for n, part in enumerate(parts, 1)]

    def part(self, upload: Multipart, number: int, data: bytes) -> str:
        draft = self.objects.received([data])
        self.uploads.part(upload, number, draft)
        return part_etag(draft)

    def upload(self, *parts: bytes) -> Item:
        return self.uploads.complete(*self.begun(*parts), NONE)

    def read(self, name: str = "o") -> bytes:
        with self.objects.read("b", name)[1] as file:
            return file.read()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "gcs")


def test_the_parts_are_the_object_wherever_it_is_read_from(place: Place) -> None:
    parts = [os.urandom(size) for size in SIZES]
    whole = b"".join(parts)
    item = place.upload(*parts)
    assert (item.size, item.md5, item.components) == (len(whole), "", len(parts))
    assert item.crc32c == base64.b64encode(google_crc32c.Checksum(whole).digest()).decode()
    with place.objects.read("b", "o")[1] as file:
        assert file.read() == whole
        for start in (0, 4_999, 5_000, 5_001, 5_002, 75_000, 75_003, 75_004, 80_000):
            assert (file.seek(start), file.read(70_005)) == (start, whole[start : start + 70_005])
        assert (file.seek(-4, os.SEEK_END), file.read(), file.read()) == (75_000, whole[-4:], b"")
    place.objects.copy(item, "b", "copy")
    place.objects.compose("b", "twice", [item, item], {})
    assert place.read("copy") == whole
    assert place.read("twice") == whole * 2


def test_who_reads_it_reads_to_the_end_when_it_is_replaced(place: Place) -> None:
    whole = b"".join(parts := [os.urandom(size) for size in SIZES])
    place.upload(*parts)
    _, file = place.objects.read("b", "o")
    _, other = place.objects.read("b", "o")
    start = file.read(10)
    place.upload(b"another")
    other.close()
    assert start + file.read() == whole
    file.close()
    assert place.read() == b"another"
    place.objects.delete("b", "o")
    assert list(place.folder.iterdir()) == []


def test_nothing_is_left_of_parts_that_are_not_wanted(place: Place) -> None:
    upload, parts = place.begun(b"one", b"two", b"three")
    again = place.part(upload, 2, b"zwei")
    with pytest.raises(GcsError, match="Part 2 was not found or changed"):
        place.uploads.complete(upload, parts, NONE)
    with pytest.raises(GcsError, match="pre-conditions"):
        place.uploads.complete(upload, parts, Conditions(generation=7))
    place.uploads.complete(upload, [parts[0], (2, again)], NONE)
    assert place.read() == b"onezwei"
    for late in (
        lambda: place.part(upload, 1, b"too late"),
        lambda: place.uploads.complete(upload, parts, NONE),
    ):
        with pytest.raises(GcsError) as refused:
            late()
        assert refused.value.status in (400, 404)
    assert place.read() == b"onezwei"
    place.objects.delete("b", "o")
    upload, _ = place.begun(b"given", b"up")
    place.uploads.abort(upload)
    assert list(place.folder.iterdir()) == []


def test_obstore_reads_ranges_over_the_bounds_of_parts(client: Client) -> None:
    pytest.importorskip("obstore")
    told = client("""
import os
import obstore
from google.cloud import storage
from obstore.store import GCSStore
bucket = storage.Client().create_bucket("parts")
store, part = GCSStore("parts"), 5 * 2**20
whole = os.urandom(2 * part + 7)
obstore.put(store, "o", whole, chunk_size=part)
for start, end in ((part - 3, part + 3), (part, part + 1), (2 * part - 1, len(whole))):
    got = obstore.get_range(store, "o", start=start, end=end)
    told.append(bytes(got) == whole[start:end])
told.append(bucket.blob("o").download_as_bytes(checksum="crc32c") == whole)
""")
    assert told == [True] * 4
