"""Outputs copied from S3 to GCS and back on the local clouds, by us and by rclone in turn.

rclone is Debian's: `apt-get install rclone`. It takes as many files at once as we do.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import nan
from resource import RUSAGE_SELF, getrusage
from statistics import median

from portaflow_conformance.emulators.clouds import Clouds, emulate

from portaflow import data, transfer
from portaflow.backend import ObjectStore

from . import Figure

_SETS = {"large": (4, 256 * 10**6), "small": (5_000, 20_000)}  # objects, bytes of one
_NAMES = {"large": "4 x 256 MB", "small": "5,000 x 20 kB"}
_WAYS = (("s3", "gs"), ("gs", "s3"))
_RCLONE = {"s3": "s3", "gs": "gcs"}
_ROUNDS = 5
Took = tuple[float, float]  # seconds, and MB of memory at most


def measure() -> Iterator[Figure]:
    if not shutil.which("rclone"):
        told = "rclone is not there to be measured against; apt-get install rclone"
        yield Figure("transfers", nan, "x as fast", ">= 1 x", False, told)
        return
    for size, name in _NAMES.items():
        with emulate("aws", "gcp", pace=0, buckets=("bench",)) as clouds:
            _python(clouds, "make", size)
            for way in _WAYS:
                pairs = [
                    (_ours(clouds, size, *way), _theirs(clouds, size, *way)) for _ in range(_ROUNDS)
                ]
                mine, ours = _median([ours for ours, _ in pairs])
                other, theirs = _median([theirs for _, theirs in pairs])
                what = f"{name} from {way[0]} to {way[1]}"
                yield Figure(
                    what, other / mine, "x as fast", ">= 1 x", other >= mine,
                    f"rclone {other:.2f} s, ours {mine:.2f} s",
                )  # fmt: skip
                yield Figure(
                    f"{what}: memory at most", ours, "MB", "< 400 MB", ours < 400,
                    f"rclone {theirs:.0f} MB",
                )  # fmt: skip


def _median(rounds: list[Took]) -> Took:
    took, memory = zip(*rounds, strict=True)
    return median(took), max(memory)


def _ours(clouds: Clouds, size: str, one: str, other: str) -> Took:
    took, memory = json.loads(_python(clouds, "copy", size, one, other))
    return took, memory


def _python(clouds: Clouds, *words: str) -> bytes:
    command = [sys.executable, "-m", __name__, *words]
    return subprocess.run(command, env=clouds.environ(), check=True, stdout=subprocess.PIPE).stdout


def _theirs(clouds: Clouds, size: str, one: str, other: str) -> Took:
    env = clouds.environ() | {
        "RCLONE_CONFIG": os.devnull,
        "RCLONE_CONFIG_S3_TYPE": "s3",
        "RCLONE_CONFIG_S3_PROVIDER": "AWS",
        "RCLONE_CONFIG_S3_ENV_AUTH": "true",
        "RCLONE_CONFIG_S3_REGION": "us-east-1",
        "RCLONE_CONFIG_GCS_TYPE": "google cloud storage",
        "RCLONE_CONFIG_GCS_BUCKET_POLICY_ONLY": "true",
        "RCLONE_CONFIG_GCS_SERVICE_ACCOUNT_FILE": clouds.env["GOOGLE_APPLICATION_CREDENTIALS"],
    }
    del env["AWS_CA_BUNDLE"]  # which it cannot read; SSL_CERT_FILE says the same
    source, copy = f"{_RCLONE[one]}:bench/{size}/out", f"{_RCLONE[other]}:bench/rclone"
    began = time.perf_counter()
    with subprocess.Popen(
        ["rclone", "copy", "--retries=1", f"--transfers={transfer._AT_ONCE}", source, copy],
        env=env,
    ) as rclone:
        _, status, used = os.wait4(rclone.pid, 0)
        rclone.returncode = os.waitstatus_to_exitcode(status)
    took = time.perf_counter() - began
    if rclone.returncode:
        sys.exit("rclone could not copy")
    subprocess.run(["rclone", "purge", copy], env=env, check=True)
    return took, used.ru_maxrss / 1024


# -- in the environment of a client


def _stores() -> dict[str, ObjectStore]:
    from portaflow_aws.s3 import S3
    from portaflow_aws.s3 import Config as S3Config
    from portaflow_gcp.gcs import Config, Gcs

    return {"s3": S3(S3Config(root="s3://bench")), "gs": Gcs(Config(root="gs://bench"))}


def _make(size: str) -> None:
    """The same output in both stores, committed."""
    count, of = _SETS[size]
    content = os.urandom(of)
    for store in _stores().values():
        fs, home = store.filesystem(), store.url(size)
        keys = [f"{home}/out/{n}" for n in range(count)]
        with ThreadPoolExecutor(8) as pool:
            for _ in pool.map(partial(fs.pipe_file, value=content), keys):
                pass
        outputs = {"out": data.listed(fs, "out", f"{home}/out")}
        manifest = {"task": "t", "attempt": 1, "outputs": outputs, "value": None}
        fs.pipe_file(f"{home}/_manifest.json", json.dumps(manifest).encode())


def _copy(size: str, one: str, other: str) -> Took:
    stores = _stores()
    systems = {scheme: store.filesystem() for scheme, store in stores.items()}
    for scheme, fs in systems.items():  # what is imported, and the credentials
        fs.exists(stores[scheme].url("x"))
    home, copy = stores[one].url(size), stores[other].url("ours")
    driver = transfer.TransferDriver(lambda uri: systems[uri.partition(":")[0]])
    ends = {"from": f"{home}/out", "to": copy}
    began = time.perf_counter()
    handle = driver.start({"name": "t", "home": home, "copies": {"out": ends}})
    while not (status := driver.poll([handle])["t"]).state.final:  # type: ignore[union-attr]
        time.sleep(0.005)
    took = time.perf_counter() - began
    if status.reason:  # type: ignore[union-attr]
        sys.exit(f"the copy failed: {status}")
    systems[other].rm(copy, recursive=True)
    return took, getrusage(RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    if sys.argv[1] == "make":
        _make(sys.argv[2])
    else:
        print(json.dumps(_copy(*sys.argv[2:])))
