"""The local S3 by the way of all clients (proxy, TLS, faults, log), against the store itself."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

from . import Figure, seconds

_LARGE = 256 * 2**20
_SMALL, _COUNT, _AT_ONCE = 10_000, 1_000, 32
_ROUNDS = 3
_BOUNDS = {"put large": 0.8, "get large": 0.3, "put small": 0.5, "get small": 0.4}
_NAMES = {"large": "256 MB", "small": f"{_COUNT} objects of {_SMALL // 1000} kB"}


def measure() -> Iterator[Figure]:
    from portaflow_conformance.emulators.clouds import emulate

    with emulate("aws", pace=0) as clouds:
        store: Any = clouds.emulators["aws"]
        there = [sys.executable, "-m", "tests.benchmarks.s3"]
        direct, front = f"http://127.0.0.1:{store.store}", ""
        subprocess.run([*there, front, "make"], env=clouds.environ(), check=True)
        found: dict[str, dict[str, list[float]]] = {direct: {}, front: {}}
        for _ in range(_ROUNDS):  # in turn
            for where in (direct, front):
                done = subprocess.run(
                    [*there, where], env=clouds.environ(), check=True, capture_output=True
                )
                for name, took in json.loads(done.stdout).items():
                    found[where].setdefault(name, []).append(took)
    for name, bound in _BOUNDS.items():
        mine, other = median(found[front][name]), median(found[direct][name])
        verb, size = name.split()
        yield Figure(
            f"local S3: {verb} {_NAMES[size]}", other / mine, "x as fast", f">= {bound} x",
            other / mine >= bound, f"store itself {other:.2f} s, by the front {mine:.2f} s",
        )  # fmt: skip


def _store(endpoint: str) -> Any:
    import obstore.store

    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    key, secret = (os.environ[name] for name in keys)
    if endpoint:
        way = {"endpoint": endpoint, "client_options": {"allow_http": True}}
    else:
        way = {"client_options": {"proxy_url": os.environ["HTTPS_PROXY"]}}
    return obstore.store.S3Store(
        "bench", region="us-east-1", access_key_id=key, secret_access_key=secret, **way
    )


def _timed(endpoint: str) -> dict[str, float]:
    store = _store(endpoint)
    whole = bytes(range(256)) * (_LARGE // 256)

    async def put(number: int) -> None:
        await store.put_async(f"small/{number}", whole[:_SMALL])

    async def get(number: int) -> None:
        assert len(await (await store.get_async(f"small/{number}")).bytes_async()) == _SMALL

    async def all_of(one: Callable[[int], Any]) -> None:
        turns = asyncio.Semaphore(_AT_ONCE)

        async def turn(number: int) -> None:
            async with turns:
                await one(number)

        await asyncio.gather(*map(turn, range(_COUNT)))

    store.put("warm", b"")
    return {
        "put large": seconds(lambda: store.put("large", whole)),
        "get large": seconds(lambda: store.get("large").bytes()),
        "put small": seconds(lambda: asyncio.run(all_of(put))),
        "get small": seconds(lambda: asyncio.run(all_of(get))),
    }


if __name__ == "__main__":
    if sys.argv[2:]:
        import boto3

        boto3.client("s3").create_bucket(Bucket="bench")
    else:
        print(json.dumps(_timed(sys.argv[1])))
