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
