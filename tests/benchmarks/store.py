"""The folder store against plain obstore on the same disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from obstore.store import LocalStore
from portaflow_local.folder import FolderFileSystem

from . import Figure, paired

_DATA = bytes(range(250)) * 40  # 10 kB
_COUNT = 1_000


def measure() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        fs = FolderFileSystem(root=str(root / "ours"))
        plain = LocalStore(root / "plain", mkdir=True)
        rounds = count()

        def put() -> None:
            n = next(rounds)
            for i in range(_COUNT):
                fs.pipe_file(f"file://{root}/ours/{n}/{i}", _DATA)

        def put_plain() -> None:
            n = next(rounds)
            for i in range(_COUNT):
                plain.put(f"{n}/{i}", _DATA)

        yield _figure("put", *paired(put, put_plain, 5))

        def get() -> None:
            for i in range(_COUNT):
                fs.cat_file(f"file://{root}/ours/0/{i}")

        def get_plain() -> None:
            for i in range(_COUNT):
                plain.get(f"1/{i}").bytes()

        yield _figure("get", *paired(get, get_plain, 5))


def _figure(verb: str, mine: float, other: float) -> Figure:
    ratio = other / mine
    return Figure(
        f"store {verb} of 1,000 x 10 kB", ratio, "x as fast", ">= 0.9 x", ratio >= 0.9,
        f"obstore {other:.3f} s, ours {mine:.3f} s",
    )  # fmt: skip
