"""Where the local GCS is known to differ: each fails when the deviation has disappeared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("google.cloud.storage")
pytest.importorskip("google.cloud._storage_v2")

Client = Callable[..., Any]


def test_deviation_gcs_appending(client: Client) -> None:
    told = client("""
import asyncio
from google.cloud import storage
from google.cloud.storage.asyncio.async_grpc_client import AsyncGrpcClient
from google.cloud.storage.asyncio.async_appendable_object_writer import AsyncAppendableObjectWriter
bucket = storage.Client().create_bucket("not-zonal")
async def main():
    writer = AsyncAppendableObjectWriter(AsyncGrpcClient(), "not-zonal", "x")
    await writer.open()
    await writer.finalize()
asyncio.run(main())
told += [bucket.location_type, bucket.get_blob("x").size]
""")
    assert told == ["region", 0]


def test_deviation_gcs_versions(client: Client) -> None:
    told = client("""
from google.cloud import storage
client = storage.Client()
bucket = client.create_bucket("versions")
bucket.versioning_enabled = True
bucket.patch()
for text in ("1", "2"):
    bucket.blob("x").upload_from_string(text)
told += [bucket.versioning_enabled, len(list(client.list_blobs("versions", versions=True)))]
""")
    assert told == [True, 1]


def test_deviation_gcs_hmac(client: Client) -> None:
    told = client("""
import datetime, urllib.error, urllib.request
from google.api_core.exceptions import MethodNotImplemented
from google.cloud import storage
client = storage.Client()
try:
    client.create_hmac_key("portaflow@portaflow-local.iam.gserviceaccount.com")
except MethodNotImplemented as error:
    told += [error.code]
blob = client.create_bucket("hmac").blob("x")
blob.upload_from_string("1")
try:
    urllib.request.urlopen(blob.generate_signed_url(datetime.timedelta(minutes=5), version="v2"))
except urllib.error.HTTPError as error:
    told += [error.code]
""")
    assert told == [501, 403]


def test_deviation_gcs_lifecycle(client: Client) -> None:
    told = client("""
import datetime
from google.cloud import storage
from portaflow_conformance.emulators.endpoint import RemoteControl
bucket = storage.Client().create_bucket("lifecycle")
bucket.add_lifecycle_delete_rule(age=1)
bucket.retention_period = 1000
bucket.patch()
blob = bucket.blob("x")
blob.upload_from_string("1")
RemoteControl().jump(10 * 86_400)
told += [blob.exists(), bucket.retention_period]
blob.temporary_hold = True
blob.patch()
blob.delete()
told += [blob.exists()]
""")
    assert told == [True, 1000, False]
