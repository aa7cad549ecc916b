"""The local GCS as gcloud-aio-storage sees it, the client of Airflow's asynchronous hooks.

It reads proxies from the environment where its session does (`trust_env`), as Airflow's does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("google.cloud.storage")
pytest.importorskip("gcloud.aio.storage")

Client = Callable[..., Any]


def test_objects_are_written_read_listed_and_composed(client: Client) -> None:
    told = client("""
import asyncio, os, aiohttp
from google.cloud import storage
from gcloud.aio.storage import Storage
storage.Client().create_bucket("aio")
async def main():
    async with aiohttp.ClientSession(trust_env=True) as session:
        client = Storage(session=session)
        await client.upload("aio", "a b/ü", b"hello", content_type="text/plain")
        told.append((await client.download("aio", "a b/ü")).decode())
        whole = os.urandom(3 * 2**20)
        await client.upload("aio", "big", whole, force_resumable_upload=True)
        told.append(await client.download("aio", "big") == whole)
        await client.upload("aio", "with", b"1", metadata={"metadata": {"a": "b"}})
        told.append((await client.download_metadata("aio", "with"))["metadata"])
        await client.copy("aio", "big", "aio", new_name="copy")
        made = await client.compose("aio", "both", ["big", "copy"])
        told.append([made["componentCount"], int(made["size"]) == 2 * len(whole)])
        found = await client.list_objects("aio", params={"matchGlob": "b*"})
        told.append([item["name"] for item in found["items"]])
        await client.delete("aio", "copy")
        try:
            await client.download("aio", "copy")
        except aiohttp.ClientResponseError as error:
            told.append(error.status)
        bucket = client.get_bucket("aio")
        told.append([await bucket.list_blobs(prefix="a b/"), await bucket.blob_exists("copy")])
        stream = await client.download_stream("aio", "big")
        told.append(await stream.read() == whole)
asyncio.run(main())
""")
    assert told == [
        *("hello", True, {"a": "b"}, [2, True], ["big", "both"], 404),
        *([["a b/ü"], False], True),
    ]
