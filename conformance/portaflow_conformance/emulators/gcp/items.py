"""What the local GCS holds, what may be asked of it first, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c

from . import crc32c
from .contents import Contents


class GcsError(Exception):
    """What a call is refused with; each API words it in its own way."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason, self.message = status, reason, message


def not_found(what: str) -> GcsError:
    return GcsError(404, "notFound", f"No such object: {what}")


def invalid(message: str) -> GcsError:
    return GcsError(400, "invalid", message)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What must hold of the live object; 0 as a generation: there must be none."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None

    def check(self, live: Item | None, *, reading: bool = False) -> None:
        generation = live.generation if live else 0
        metageneration = live.metageneration if live else 0
        if self.generation not in (None, generation):
            self._refuse("ifGenerationMatch", 412)
        if self.metageneration not in (None, metageneration):
            self._refuse("ifMetagenerationMatch", 412)
        if self.not_generation == generation:
            self._refuse("ifGenerationNotMatch", 304 if reading else 412)
        if self.not_metageneration == metageneration and live:
            self._refuse("ifMetagenerationNotMatch", 304 if reading else 412)

    @staticmethod
    def _refuse(name: str, status: int) -> None:
        message = "At least one of the pre-conditions you specified did not hold."
        raise GcsError(status, "conditionNotMet", f"{message} ({name})")


NONE = Conditions()


@dataclass(frozen=True, slots=True)
class Item:
    """One generation of an object. `fields` are those a client may set, as in the JSON API."""

    bucket: str
    name: str
    generation: int
    contents: Contents
    size: int
    crc32c: str
    md5: str  # "" for a composed object, which has none
    fields: Mapping[str, Any]
    created: float
    updated: float
    metageneration: int = 1
    components: int = 0
    hidden: float = 0.0  # lists do not tell of it before this time
    finished: bool = True  # else it can still be appended to
    appended: bool = False  # it could be once

    @property
    def etag(self) -> str:
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()

    @property
    def content_type(self) -> str:
        return str(self.fields.get("contentType") or "application/octet-stream")


@dataclass(slots=True)
class Bucket:
    name: str
    fields: dict[str, Any]
    created: float
    updated: float
    metageneration: int = 1
    items: dict[str, Item] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Listing:
    items: list[Item]
    prefixes: list[str]
    after: str  # where the next page begins; "" when there is none


class Draft:
    """Bytes on their way to being an object, hashed as they come.

    It can be written to after it was closed: between two requests no file is open. What is
    composed has no MD5 with GCS; to make one costs more than all else.
    """

    def __init__(self, path: Path, composed: bool = False) -> None:
        self.path = path
        self.contents = Contents(path)
        self.size = 0
        self._md5 = None if composed else hashlib.md5()
        self._crc = 0
        self._file = path.open("wb")

    def write(self, data: bytes) -> None:
        if self._file.closed:
            self._file = self.path.open("ab")
        self._file.write(data)
        if self._md5:
            self._md5.update(data)
        self._crc = google_crc32c.extend(self._crc, data)
        self.size += len(data)

    def adopt(self, part: Draft) -> None:
        """Take over the file of a part, to follow what there is: it is not copied."""
        self.size += part.size
        self._crc = crc32c.joined(self._crc, part._crc, part.size)
        self.contents.paths.append(part.close().path)

    def close(self) -> Draft:
        self._file.close()
        return self

    def discard(self) -> None:
        self._file.close()
        self.contents.remove()

    @property
    def md5(self) -> str:
        return base64.b64encode(self._md5.digest()).decode() if self._md5 else ""

    @property
    def crc32c(self) -> str:
        return base64.b64encode(self._crc.to_bytes(4)).decode()


def check_bucket_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", name):
        raise invalid(f"Invalid bucket name: '{name}'")


def check_name(name: str) -> None:
    """Refuse what GCS refuses as a name."""
    if not name or len(name.encode("utf-8", "surrogatepass")) > 1024:
        raise invalid("The object name must be 1 to 1024 bytes long.")
    if name in (".", "..") or name.startswith(".well-known/acme-challenge/"):
        raise invalid(f"Invalid object name: {name!r}")
    if "\r" in name or "\n" in name:
        raise invalid("Object names cannot contain carriage return or line feed characters.")
