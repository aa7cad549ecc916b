"""URLs that Google's client signs, used by whoever holds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

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


def test_a_signed_url_opens_what_it_was_signed_for_and_nothing_else(client: Client) -> None:
    told = client(
        _GOOGLE
        + """
import datetime, re, time, urllib.error, urllib.request
bucket = client.create_bucket("signed")
blob = bucket.blob("a b/ü+~")
blob.upload_from_string("hello", content_type="text/plain")
def call(url, method="GET", data=None, **headers):
    request = urllib.request.Request(url, data=data, method=method)
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            told = error.read().decode()
        return error.code, re.search("<Code>(.*)</Code>", told)[1], error.headers
soon = datetime.timedelta(minutes=5)
def url(method="GET", of=blob, **more):
    return of.generate_signed_url(soon, version="v4", method=method, **more)
told += [call(url())[:2], call(url(virtual_hosted_style=True))[:2]]
shown = url(response_disposition="attachment", response_type="x/y")
told += [[call(shown)[2][h] for h in ("Content-Disposition", "Content-Type")]]
told += [call(url(), "PUT", b"other")[1], call(url().replace("signed/a", "signed/b"))[1]]
told += [call(url()[:-4] + "0000")[1], call(url().replace("Expires=300", "Expires=301"))[1]]
new = bucket.blob("new")
put = url("PUT", new, content_type="text/x")
told += [call(put, "PUT", b"1", Content_Type="text/x")[0], new.download_as_bytes().decode()]
told += [call(put, "PUT", b"1", Content_Type="text/y")[1]]
start = call(url("RESUMABLE", bucket.blob("late")), "POST", b"", x_goog_resumable="start")
told += [start[0], call(start[2]["Location"], "PUT", b"late")[0]]
told += [bucket.blob("late").download_as_bytes().decode()]
told += [call(url("DELETE", new), "DELETE")[0], new.exists()]
short = blob.generate_signed_url(datetime.timedelta(seconds=1), version="v4")
until = time.monotonic() + 20
while (last := call(short)[:2])[0] == 200 and time.monotonic() < until:
    time.sleep(0.1)
told += [last]
"""
    )
    assert told == [
        *([200, "hello"], [200, "hello"], ["attachment", "x/y"]),
        *["SignatureDoesNotMatch"] * 4,
        *(200, "1", "SignatureDoesNotMatch", 201, 200, "late", 204, False),
        [400, "ExpiredToken"],
    ]


def test_a_url_that_obstore_signs_is_good(client: Client) -> None:
    pytest.importorskip("obstore")
    told = client(
        _GOOGLE
        + """
import datetime, obstore, urllib.request
from obstore.store import GCSStore
client.create_bucket("by-obstore").blob("x y").upload_from_string("hello")
store = GCSStore("by-obstore")
url = obstore.sign(store, "GET", "x y", datetime.timedelta(minutes=5))
told += [urllib.request.urlopen(url).read().decode()]
"""
    )
    assert told == ["hello"]
