"""What stores in a bucket have in common, whichever cloud has it. For plugins."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from .backend import SUPPORTED, Capability, Finding, ObjectStore, Support
from .errors import BackendError, TargetError
from .refusals import Advice

if TYPE_CHECKING:
    from .objects import ObjectFileSystem

__all__ = ["Advice", "Bucket"]


class Bucket(ObjectStore):
    """A store below `config.root`, such as s3://bucket/prefix.

    `patience` is for obstore's store: how often it asks again by itself, which is what a lost
    packet needs (the rest is the core's part), and how long it waits. A large object may take
    its time as long as bytes come.
    """

    scheme: ClassVar[str]
    advice: ClassVar[Advice]
    patience: ClassVar[Mapping[str, Any]] = {
        "retry_config": {"max_retries": 3, "retry_timeout": timedelta(seconds=30)},
        "client_options": {"connect_timeout": "5s", "read_timeout": "60s", "timeout": "1h"},
    }
    capabilities = {
        Capability.CREATE_IF_ABSENT: SUPPORTED,
        Capability.KEY_AND_PREFIX: SUPPORTED,
        Capability.CASE_SENSITIVE: SUPPORTED,
        Capability.PRESIGN: SUPPORTED,
        Capability.METADATA: Support(False, "objects carry no metadata of the user's"),
        Capability.VERSIONS: Support(False, "the newest version alone is seen"),
    }

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.root = str(config.root).rstrip("/")
        if not re.fullmatch(rf"{self.scheme}://[a-z0-9][a-z0-9._-]+(/[^/]+)*", self.root):
            raise TargetError(
                f"store root {config.root!r} is no place in a bucket; "
                f'write it as root = "{self.scheme}://bucket/prefix"'
            )

    @abstractmethod
    def store(self, bucket: str) -> Any:
        """Obstore's store of a bucket, with the credentials that the settings name."""

    def region_of(self, bucket: str) -> str:
        """Where a bucket is; "" when it cannot be told, or does not matter."""
        return ""

    def url(self, key: str) -> str:
        return f"{self.root}/{key}"

    def filesystem(self) -> ObjectFileSystem:
        from .objects import ObjectFileSystem  # with fsspec, which no plan needs

        return ObjectFileSystem(self.scheme, self.store, self.advice, self.region_of)

    def check(self) -> Iterable[Finding]:
        """Do once what every run does here."""
        fs, key = self.filesystem(), self.url(f".portaflow-doctor-{uuid4().hex}")
        tries: tuple[tuple[str, Callable[[], Any]], ...] = (
            ("list", lambda: fs.ls(self.root)),
            ("write", lambda: fs.pipe_file(key, b"", mode="create")),
            ("read", lambda: fs.cat_file(key)),
            ("delete", lambda: fs.rm_file(key)),
        )
        for verb, call in tries:
            try:
                call()
            except (BackendError, OSError) as error:
                yield self._wrong(f"{verb} {self.root}", str(error))
                return
            yield Finding(what=f"{verb} {self.root}", ok=True)

    def _wrong(self, what: str, told: str) -> Finding:
        bucket = self.root.partition("://")[2].partition("/")[0]
        advice = (one.format(bucket=bucket) for one in astuple(self.advice))
        fix = next((one for one in advice if told.endswith(f"; {one}")), "")
        _, _, cause = told.removesuffix(f"; {fix}").partition(": ")  # `what` says where
        return Finding(what=what, ok=False, detail=cause or told, fix=fix)
