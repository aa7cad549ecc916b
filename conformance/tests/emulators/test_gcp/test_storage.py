"""The local GCS as google-cloud-storage and obstore see it, both unmodified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds

pytest.importorskip("google.cloud.storage")

Client = Callable[..., Any]
ACCOUNT = "portaflow@portaflow-local.iam.gserviceaccount.com"

_GOOGLE = """
from google.api_core import exceptions
from google.cloud import storage
client = storage.Client()
def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except exceptions.GoogleAPICallError as error:
        return error.code
    return 0
"""
_OBSTORE = """
import obstore
from obstore.store import GCSStore
def refused(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__
    return ""
"""


def test_objects_are_written_read_and_listed_by_googles_client(client: Client) -> None:
    told = client(
        _GOOGLE
        + """
import base64, hashlib, io
bucket = client.create_bucket("google", location="us-central1")
odd = bucket.blob("a/b c/ü~+.txt")
odd.metadata = {"Key": "value"}
odd.upload_from_string("hello", content_type="text/plain")
odd.reload()
told += [odd.size, odd.md5_hash == base64.b64encode(hashlib.md5(b"hello").digest()).decode()]
told += [odd.crc32c, odd.metadata, odd.content_type]
told += [odd.download_as_bytes().decode(), odd.download_as_bytes(start=1, end=2).decode()]
whole = bytes(range(256)) * 20_000
big = bucket.blob("big", chunk_size=2**20)
big.upload_from_file(io.BytesIO(whole))
told += [big.download_as_bytes() == whole]
with bucket.blob("unknown-length").open("wb", chunk_size=2**18) as file:
    for at in range(0, len(whole), 100_000):
        file.write(whole[at:at + 100_000])
told += [bucket.blob("unknown-length").download_as_bytes() == whole]
for number in range(25):
    bucket.blob(f"l/{number:02}").upload_from_string(b"x")
told += [len(list(client.list_blobs("google", prefix="l/", page_size=10)))]
told += [[b.name for b in client.list_blobs("google", start_offset="l/03", end_offset="l/05")]]
top = client.list_blobs("google", delimiter="/", page_size=1)
told += [[b.name for b in top], sorted(top.prefixes)]
with client.batch():
    for number in range(20):
        bucket.blob(f"l/{number:02}").delete()
told += [len(list(client.list_blobs("google", prefix="l/")))]
both = bucket.blob("both")
both.compose([bucket.blob("l/20"), odd])
told += [both.download_as_bytes().decode(), both.md5_hash, both.component_count]
bucket.copy_blob(both, bucket, "copy")
bucket.rename_blob(bucket.blob("copy"), "moved")
told += [bucket.blob("copy").exists(), bucket.blob("moved").exists()]
told += [refused(bucket.delete), refused(client.get_bucket, "none")]
"""
    )
    assert told == [
        *(5, True, "mnG7TA==", {"Key": "value"}, "text/plain"),
        *("hello", "el", True, True, 25, ["l/03", "l/04"]),
        *(["big", "unknown-length"], ["a/", "l/"], 5),
        *("xhello", None, 2, False, True, 409, 404),
    ]


def test_a_part_of_an_upload_may_have_no_headers_as_gos_clients_send_it(client: Client) -> None:
    told = client(
        _GOOGLE
        + """
bucket = client.create_bucket("gos")
head = b"Content-Type: application/json\\r\\n\\r\\n" + b'{"name": "x"}'
body = b"--b\\r\\n" + head + b"\\r\\n--b\\r\\n\\r\\nwhole\\r\\n\\r\\n\\r\\n--b--"
where = "https://storage.googleapis.com/upload/storage/v1/b/gos/o?uploadType=multipart"
kind = {"Content-Type": "multipart/related; boundary=b"}
told += [client._http.post(where, data=body, headers=kind, timeout=20).json()["size"]]
told += [bucket.blob("x").download_as_bytes().decode()]
"""
    )
    assert told == ["9", "whole\r\n\r\n"]


def test_a_list_is_cut_down_by_the_service_as_asked(client: Client) -> None:
    told = client(
        _GOOGLE
        + """
bucket = client.create_bucket("listed")
for name in ("a.txt", "b/", "b/1.csv", "b/2.txt", "b/c/", "b/c/3.csv", "d/4.csv", "e.csv"):
    bucket.blob(name).upload_from_string(b"")
def names(**how):
    found = client.list_blobs("listed", **how)
    items = [blob.name for page in found.pages for blob in page]
    return [items, sorted(found.prefixes)]
told += [names(match_glob="*.csv"), names(match_glob="**.csv"), names(match_glob="b/*.{csv,txt}")]
told += [names(match_glob="**/[34].csv"), names(match_glob="b/**/?.csv")]
told += [names(delimiter="/", page_size=1)]
told += [names(delimiter="/", include_trailing_delimiter=True)]
told += [names(delimiter="/", prefix="b/", include_trailing_delimiter=True, page_size=2)]
told += [names(start_offset="b/2", end_offset="d/4.csv")]
told += [names(delimiter="/", start_offset="b/c/", end_offset="e")]
"""
    )
    assert told == [
        [["e.csv"], []],
        [["b/1.csv", "b/c/3.csv", "d/4.csv", "e.csv"], []],
        [["b/1.csv", "b/2.txt"], []],
        [["b/c/3.csv", "d/4.csv"], []],
        [["b/1.csv", "b/c/3.csv"], []],
        [["a.txt", "e.csv"], ["b/", "d/"]],
        [["a.txt", "b/", "e.csv"], ["b/", "d/"]],
        [["b/", "b/1.csv", "b/2.txt", "b/c/"], ["b/c/"]],
        [["b/2.txt", "b/c/", "b/c/3.csv"], []],
        [[], ["b/", "d/"]],
    ]


def test_preconditions_hold_for_every_way_to_write(client: Client) -> None:
    told = client(
        _GOOGLE
        + """
import io
from concurrent.futures import ThreadPoolExecutor
bucket = client.create_bucket("conditions")
blob = bucket.blob("x")
blob.upload_from_string("1", if_generation_match=0)
first = blob.generation
again = bucket.blob("x", chunk_size=2**18)
told += [refused(blob.upload_from_string, "2", if_generation_match=0)]
many = io.BytesIO(b"z" * 2**19)
told += [refused(again.upload_from_file, many, if_generation_match=0)]
told += [refused(blob.delete, if_generation_match=first + 1)]
told += [refused(bucket.blob("x").compose, [blob], if_generation_match=0)]
told += [refused(bucket.copy_blob, blob, bucket, "x", if_generation_match=0)]
told += [refused(blob.download_as_bytes, if_generation_match=first + 1)]
told += [refused(bucket.blob("none").delete)]
blob.upload_from_string("3", if_generation_match=first)
told += [blob.download_as_bytes().decode()]
def create(number):
    return refused(storage.Client().bucket("conditions").blob("race").upload_from_string,
                   str(number), if_generation_match=0) == 0
with ThreadPoolExecutor(16) as pool:
    told += [sum(pool.map(create, range(16)))]
"""
    )
    assert told == [412, 412, 412, 412, 412, 412, 404, "3", 1]


def test_obstore_gets_all_it_needs_from_the_xml_api(client: Client) -> None:
    pytest.importorskip("obstore")
    told = client(
        _GOOGLE
        + _OBSTORE
        + """
import os
client.create_bucket("xml")
store = GCSStore("xml")
obstore.put(store, "a/b ü~(1).txt", b"hello")
told += [bytes(obstore.get_range(store, "a/b ü~(1).txt", start=1, end=3)).decode()]
obstore.put(store, "new", b"1", mode="create")
told += [refused(obstore.put, store, "new", b"2", mode="create")]
head = obstore.head(store, "new")
seen = {"e_tag": head["e_tag"], "version": head["version"]}
obstore.put(store, "new", b"3", mode=seen)
told += [refused(obstore.put, store, "new", b"4", mode=seen)]
told += [refused(obstore.get, store, "new", options={"if_match": head["e_tag"]})]
whole = os.urandom(12 * 2**20)
obstore.put(store, "big", whole, chunk_size=5 * 2**20)
told += [bytes(obstore.get(store, "big").bytes()) == whole]
for number in range(1005):
    obstore.put(store, f"l/{number:04}", b"x")
told += [sum(len(page) for page in obstore.list(store, "l"))]
top = obstore.list_with_delimiter(store)
told += [sorted(top["common_prefixes"]), sorted(o["path"] for o in top["objects"])]
told += [[o["path"] for o in list(obstore.list(store, "l", offset="l/1002"))[0]]]
obstore.copy(store, "new", "copy")
told += [refused(obstore.copy, store, "new", "copy", overwrite=False)]
obstore.delete(store, [f"l/{number:04}" for number in range(1005)])
told += [len(list(obstore.list(store, "l"))), refused(obstore.head, store, "none")]
"""
    )
    assert told == [
        *("el", "AlreadyExistsError", "PreconditionError", "PreconditionError", True, 1005),
        *(["a", "l"], ["big", "new"], ["l/1003", "l/1004"]),
        *("AlreadyExistsError", 0, "FileNotFoundError"),
    ]


def test_who_proves_nothing_is_refused_and_who_calls_is_recorded(
    client: Client, clouds: Clouds
) -> None:
    told = client(
        _GOOGLE
        + """
import json, os, urllib.error, urllib.request
client.create_bucket("guarded")
def status(url, token=""):
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", "Bearer " + token)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code
here = "https://storage.googleapis.com/storage/v1/b/guarded"
told += [status(here), status(here, "ya29.made-up"), status("https://guarded.storage.googleapis.com/x")]
from google.oauth2 import service_account
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import rsa
info = json.load(open(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]))
scopes = ["https://www.googleapis.com/auth/cloud-platform"]
real = service_account.Credentials.from_service_account_info(info, scopes=scopes)
real.refresh(Request())
told += [status(here, real.token)]
key = rsa.generate_private_key(65537, 2048)
info["private_key"] = key.private_bytes(
    s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()
try:
    service_account.Credentials.from_service_account_info(info, scopes=scopes).refresh(Request())
except RefreshError as error:
    told += [error.args[1]["error"]]
"""
    )
    assert told == [401, 401, 403, 200, "invalid_grant"]
    made = clouds.control.seen("gcp:storage.buckets.insert")[-1]
    assert made.principal == ACCOUNT


def test_what_is_not_there_says_so(client: Client) -> None:
    told = client(
        _GOOGLE
        + """
bucket = client.create_bucket("missing")
try:
    bucket.get_iam_policy()
except exceptions.GoogleAPICallError as error:
    told += [error.code, "/iam is not in the local GCS" in error.message]
"""
    )
    assert told == [501, True]
