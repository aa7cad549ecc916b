"""The local AWS as a stand-in: what it starts, which hosts it answers for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import ExitStack
from typing import ClassVar

from portaflow.errors import RunError

from ..environment import routing
from ..place import Emulator, Place
from ..proxy import Proxy
from .front import Front
from .keys import Keys
from .pricing import REGIONS as PRICING
from .s3front import S3Front
from .seaweed import Seaweed
from .shop import S3A, Store

KEY, SECRET = "AKIAPORTAFLOWLOCAL00", "portaflow-local-secret"  # opens nothing but this
REGION = "us-east-1"
_REGIONS = (
    *(REGION, "us-east-2", "us-west-1", "us-west-2", "ca-central-1", "sa-east-1"),
    *("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-2", "eu-west-3", "eu-south-1"),
    *("ap-northeast-1", "ap-northeast-2", "ap-south-1", "ap-southeast-1", "ap-southeast-2"),
)
_only = threading.Lock()  # moto keeps its state in the process
_TWO = (
    "a stand-in for AWS runs in this process already, and two would share what they hold; "
    "stop it first, or run `portaflow emulate aws` as a process of its own"
)


class AwsEmulator(Emulator):
    """`store` is the port of the store itself, in the clear: no fault strikes there."""

    name: ClassVar[str] = "aws"
    connector = S3A
    store: int

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._undo = ExitStack()
        self._s3 = 0
        self._front = 0

    def start(self) -> None:
        if not _only.acquire(blocking=False):
            raise RunError(_TWO)
        self._undo.callback(_only.release)
        stores = ["s3.amazonaws.com", *(f"s3.{region}.amazonaws.com" for region in _REGIONS)]
        pem = self.place.authority.issue(
            *("*.amazonaws.com", *(f"*.{region}.amazonaws.com" for region in _REGIONS)),
            *(f"*.{store}" for store in stores),
            *(f"api.pricing.{region}.amazonaws.com" for region in PRICING),
        )
        store = Seaweed(self.place.folder / "s3", stores, KEY, SECRET, self.place.removes)
        self._undo.callback(store.stop)
        keys = Keys(self.place.control, KEY, SECRET)
        s3 = S3Front(self.place, pem, store.port, keys)
        s3.start()
        self._undo.callback(s3.stop)
        # What a job calls goes by a way of its own: it runs on this machine, and must not reach a
        # real cloud from it.
        proxy = Proxy(self.place.control, self._reached_by_jobs)
        proxy.start()
        self._undo.callback(proxy.stop)
        env = {**routing(self.place.folder, self.place.authority, proxy.port), **self.env()}
        front = Front(self.place, pem, store.port, keys, env)
        self._undo.callback(front.stop)
        store.wait()
        self.store, self._s3, self._front = store.port, s3.port, front.port
        for bucket in self.place.buckets:
            Store(store.port, KEY, SECRET).make_bucket(bucket)
            s3.regions.made(bucket, REGION)

    def _reached_by_jobs(self) -> Mapping[str, int]:
        routes: dict[str, int] = {}
        for other in self.place.others.values():
            routes |= other.routes()
        return {**routes, **self.routes()}

    def routes(self) -> Mapping[str, int]:
        return {
            "*.amazonaws.com": self._front,
            "s3.amazonaws.com": self._s3,
            "s3.*.amazonaws.com": self._s3,
            "*.s3.amazonaws.com": self._s3,
            "*.s3.*.amazonaws.com": self._s3,
        }

    def env(self) -> Mapping[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def stop(self) -> None:
        self._undo.close()
