"""Faults of the local GCS as google-cloud-storage and obstore meet them, both unmodified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

pytest.importorskip("google.cloud.storage")

Client = Callable[..., Any]

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


def test_faults_are_met_as_the_client_would_meet_them(client: Client, clouds: Clouds) -> None:
    order = clouds.control.order
    ordered = [
        order(Fault(effect="throttle", operation="gcp:storage.buckets.list", times=2)),
        order(Fault(effect="error", status=503, operation="gcp:storage.objects.list", times=2)),
        order(Fault(effect="reset-before", operation="gcp:storage.objects.get")),
        order(Fault(effect="reset-after", operation="gcp:storage.objects.insert")),
        order(Fault(effect="reset-after", operation="gcp:storage.objects.upload", skip=1)),
        order(Fault(effect="error", status=503, operation="gcp:storage.objects.upload", skip=3)),
        order(Fault(effect="hang", operation="gcp:storage.objects.patch")),
    ]
    before = clouds.control.count("gcp:storage.objects.insert")
    told = client(
        _GOOGLE
        + """
import io
bucket = client.create_bucket("faults")
told += ["faults" in [b.name for b in client.list_buckets()]]
blob = bucket.blob("x")
told += [refused(blob.upload_from_string, "1", if_generation_match=0)]
told += [[b.name for b in client.list_blobs("faults")]]
told += [blob.download_as_bytes().decode()]
whole = bytes(range(256)) * 5000
parts = bucket.blob("parts", chunk_size=2**18)
parts.upload_from_file(io.BytesIO(whole))
told += [parts.download_as_bytes() == whole]
try:
    blob.patch(timeout=1, retry=None)
except Exception as error:
    told += [type(error).__name__]
"""
    )
    # The answer to the upload was lost, so the client's own retry meets what it has written.
    assert told == [True, 412, ["x"], "1", True, "ReadTimeout"]
    assert [fault.hit for fault in ordered] == [2, 2, 1, 1, 1, 1, 1]
    assert clouds.control.count("gcp:storage.objects.insert") - before == 3  # "parts" is one


def test_an_upload_cut_in_the_middle_goes_on_from_where_it_was(
    client: Client, clouds: Clouds
) -> None:
    order = clouds.control.order
    ordered = [
        order(Fault(effect="die", operation="gcp:storage.objects.upload", skip=1)),
        order(Fault(effect="die", operation="gcp:storage.objects.upload", skip=2)),
        order(Fault(effect="die", operation="gcp:storage.objects.get")),
    ]
    before = clouds.control.count("gcp:storage.objects.upload")
    told = client(
        _GOOGLE
        + """
import io, os, re
bucket = client.create_bucket("cut")
whole = os.urandom(6 * 2**20)
blob = bucket.blob("x", chunk_size=2**21)
blob.upload_from_file(io.BytesIO(whole), if_generation_match=0)
told += [blob.download_as_bytes() == whole]
# By hand: the service says how much has arrived of a chunk whose connection broke.
url = bucket.blob("y").create_resumable_upload_session(size=len(whole))
http = client._http
def put(data, at, total):
    where = f"bytes {at}-{at + len(data) - 1}/{total}" if data else f"bytes */{total}"
    answer = http.put(url, data=data, headers={"Content-Range": where}, timeout=20)
    return answer.status_code, answer.headers.get("Range")
told += [put(b"", 0, "*")]
told += [put(whole[:2**18], 0, "*"), put(b"", 0, "*")]
go = http.put(url, headers={"Content-Range": "bytes */*", "X-GUploader-No-308": "yes"})
told += [[go.status_code, go.headers["X-Http-Status-Code-Override"]]]
told += [put(b"?" * 100, 2**20, "*")[0], put(whole[2**18:2**18 + 7], 2**18, "*")[0]]
told += [put(whole[1000:], 1000, len(whole))[0], put(b"", 0, "*")[0]]
told += [bucket.blob("y").download_as_bytes() == whole]
http.delete(bucket.blob("z").create_resumable_upload_session())
"""
    )
    assert told == [
        *(True, [308, None], [308, "bytes=0-262143"], [308, "bytes=0-262143"]),
        [200, "308"],  # as Go's clients, and so rclone, ask for it
        *(400, 400, 200, 200, True),
    ]
    assert [fault.hit for fault in ordered] == [1, 1, 1]
    assert clouds.control.count("gcp:storage.objects.upload") - before > 10


def test_what_is_hidden_is_there_but_not_listed_until_its_time(
    client: Client, clouds: Clouds
) -> None:
    pytest.importorskip("obstore")
    # "b" begins by an insert, and its last upload is what makes it.
    hidden = (("insert", 0, 1), ("upload", 0, -1), ("compose", 0, 1), ("insert", 1, 1))
    ordered = [
        clouds.control.order(
            Fault(
                effect="hide", seconds=500, skip=skip, times=times,
                operation=f"gcp:storage.objects.{one}",
            )
        )
        for one, skip, times in hidden
    ]  # fmt: skip
    told = client(
        _GOOGLE
        + """
import io, obstore
from obstore.store import GCSStore
from portaflow_conformance.emulators.endpoint import RemoteControl
bucket = client.create_bucket("hidden")
bucket.blob("a").upload_from_string(b"1")
many = bucket.blob("b", chunk_size=2**18)
many.upload_from_file(io.BytesIO(b"2" * 2**18))
bucket.blob("c").compose([bucket.blob("a"), many])
store = GCSStore("hidden")
obstore.put(store, "d/e", b"3")
bucket.blob("seen").upload_from_string(b"1")
def names():
    by_google = [blob.name for blob in client.list_blobs("hidden")]
    return [by_google, sorted(o["path"] for page in obstore.list(store) for o in page)]
told += [names(), bucket.blob("c").exists(), bytes(obstore.get(store, "d/e").bytes()).decode()]
told += [list(obstore.list_with_delimiter(store)["common_prefixes"])]
bucket.blob("a").upload_from_string(b"4")  # what is written anew stays as hidden as it was
told += [names()[0]]
RemoteControl().jump(501)
told += [names()]
"""
    )
    seen = ["a", "b", "c", "d/e", "seen"]
    assert told == [[["seen"], ["seen"]], True, "3", [], ["seen"], [seen, seen]]
    assert all(fault.hit for fault in ordered)


def test_refusals_on_order_are_worded_as_each_api_does(client: Client, clouds: Clouds) -> None:
    pytest.importorskip("obstore")
    for status in (401, 403, 503):
        fault = Fault(effect="error", status=status, operation="gcp:storage.objects.get", times=2)
        clouds.control.order(fault)
    clouds.control.order(Fault(effect="throttle", operation="gcp:storage.objects.get", times=2))
    told = client(
        _GOOGLE
        + """
import re
http = client._http
http.MAX_REFRESH_ATTEMPTS = 0
client.create_bucket("refused").blob("x").upload_from_string(b"1")
http._max_refresh_attempts = 0
for _ in range(4):
    answer = http.get("https://storage.googleapis.com/storage/v1/b/refused/o/x")
    told += [answer.status_code, answer.json()["error"]["errors"][0]["reason"]]
    answer = http.get("https://storage.googleapis.com/refused/x")
    told += [answer.status_code, re.search("<Code>(.*)</Code>", answer.text)[1]]
"""
    )
    assert told == [
        *(401, "authError", 401, "AuthenticationRequired", 403, "forbidden", 403, "AccessDenied"),
        *(503, "backendError", 503, "InternalError", 429, "rateLimitExceeded", 429, "SlowDown"),
    ]


def test_obstore_meets_faults_of_the_xml_api(client: Client, clouds: Clouds) -> None:
    pytest.importorskip("obstore")
    order = clouds.control.order
    ordered = [
        order(Fault(effect="throttle", operation="gcp:storage.objects.insert", skip=1)),
        order(Fault(effect="error", status=503, operation="gcp:storage.xml.listObjects")),
        order(Fault(effect="reset-before", operation="gcp:storage.objects.get")),
        order(Fault(effect="reset-after", operation="gcp:storage.multipart.part")),
        order(Fault(effect="error", status=403, operation="gcp:storage.objects.delete")),
    ]
    told = client(
        _GOOGLE
        + """
import obstore, os
from obstore.store import GCSStore
client.create_bucket("resets").blob("x").upload_from_string(b"1")
store = GCSStore("resets")
whole = os.urandom(12 * 2**20)
obstore.put(store, "small", b"2")
obstore.put(store, "big", whole, chunk_size=5 * 2**20)
told += [sorted(o["path"] for page in obstore.list(store) for o in page)]
told += [bytes(obstore.get(store, "x").bytes()).decode()]
told += [bytes(obstore.get(store, "big").bytes()) == whole]
try:
    obstore.delete(store, "small")
except Exception as error:
    told += [type(error).__name__]
"""
    )
    assert told == [["big", "small", "x"], "1", True, "PermissionDeniedError"]
    assert [fault.hit for fault in ordered] == [1] * 5
