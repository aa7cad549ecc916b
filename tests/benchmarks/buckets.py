"""The stores in buckets against plain obstore, on the local clouds: their servers are the same.

The calls are made in a process that has the environment of a client from its start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import obstore
from portaflow_conformance.emulators.clouds import emulate

from portaflow.bucket import Bucket

from . import Figure, paired

_DATA = bytes(range(250)) * 40  # 10 kB
_COUNT = 300
_LARGE = 64 * 2**20
_ROUNDS = 25


def measure() -> Iterator[Figure]:
    for cloud, store in (("aws", "s3"), ("gcp", "gcs")):
        with emulate(cloud) as clouds:
            done = subprocess.run(
                [sys.executable, "-m", __name__, cloud],
                env=clouds.environ(), stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
        for what, (mine, other) in json.loads(done.stdout).items():
            ratio = other / mine
            yield Figure(
                f"{store} {what}", ratio, "x as fast", ">= 0.9 x", ratio >= 0.9,
                f"obstore {other:.3f} s, ours {mine:.3f} s",
            )  # fmt: skip


def _opened(cloud: str) -> Bucket:
    if cloud == "aws":
        import boto3
        from portaflow_aws.s3 import S3, Config

        boto3.client("s3").create_bucket(Bucket="bench")
        return S3(Config(root="s3://bench"))
    from google.cloud import storage
    from portaflow_gcp.gcs import Config as GcsConfig
    from portaflow_gcp.gcs import Gcs

    storage.Client().create_bucket("bench")
    return Gcs(GcsConfig(root="gs://bench"))


def _timed(cloud: str) -> dict[str, tuple[float, float]]:
    opened = _opened(cloud)
    fs, root = opened.filesystem(), opened.root
    plain, _ = fs._at(root)  # the same connections
    large = os.urandom(_LARGE)
    rounds = count()

    def each(call: Callable[[str], Any], start: str) -> Callable[[], None]:
        def run() -> None:
            n = next(rounds)
            for i in range(_COUNT):
                call(f"{start}{n if start.endswith('new/') else ''}/{i}")

        return run

    def write() -> None:
        with fs.open(f"{root}/large", "wb") as stream:
            stream.write(large)

    def write_plain() -> None:
        with obstore.open_writer(plain, "plain") as stream:
            stream.write(large)

    def read() -> None:
        with fs.open(f"{root}/large", "rb") as stream:
            while stream.read(2**20):
                pass

    def read_plain() -> None:
        for piece in plain.get("large").stream(min_chunk_size=2**20):
            bytes(piece)

    for i in range(_COUNT):
        plain.put(f"old/{i}", _DATA)
    some = f"{_COUNT} x 10 kB"
    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        f"put of {some}": (
            each(lambda key: fs.pipe_file(key, _DATA), f"{root}/new/"),
            each(lambda key: plain.put(key, _DATA), "new/"),
        ),
        f"get of {some}": (
            each(fs.cat_file, f"{root}/old"),
            each(lambda key: plain.get(key).bytes().to_bytes(), "old"),
        ),
        "write of 64 MB as a stream": (write, write_plain),
        "read of 64 MB as a stream": (read, read_plain),
    }
    return {what: paired(*both, _ROUNDS) for what, both in pairs.items()}


if __name__ == "__main__":
    print(json.dumps(_timed(sys.argv[1])))
