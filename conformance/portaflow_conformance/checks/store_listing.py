"""L1, store: listings show what is there, all of it, and nothing else; so do removals."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..subject import Subject, expect


def list_after_write_and_delete(subject: Subject) -> None:
    """A listing shows at once what was written and not what was removed."""
    fs, prefix = subject.fs, subject.prefix()
    for n in range(3):
        fs.pipe_file(f"{prefix}/{n}", b"x")
        expect(len(_names(fs, prefix)) == n + 1, f"after {n + 1} writes {_names(fs, prefix)}")
    for n in range(3):
        fs.rm_file(f"{prefix}/{n}")
        left = _names(fs, prefix)
        expect(len(left) == 2 - n, f"after {n + 1} removals of three {left} are listed")


def list_2500(subject: Subject) -> None:
    """A listing of several pages has every key once."""
    fs, prefix = subject.fs, subject.prefix()
    _fill(fs, prefix, 2500)
    names = _names(fs, prefix)
    expect(len(names) == len(set(names)), "a listing of several pages has keys twice")
    expect(len(names) == 2500, f"2500 objects were written, {len(names)} are listed")
    expect(len(fs.ls(prefix, detail=False)) == 2500, "ls sees another number than find")


def list_exactly_1000(subject: Subject) -> None:
    """A listing that fills its page to the last place ends there."""
    fs, prefix = subject.fs, subject.prefix()
    _fill(fs, prefix, 1000)
    expect(len(_names(fs, prefix)) == 1000, f"of 1000 objects {len(_names(fs, prefix))} are listed")


def list_delimiter_paged(subject: Subject) -> None:
    """`ls` shows each folder once, over several pages, and does not descend."""
    fs, prefix = subject.fs, subject.prefix()
    _fill(fs, prefix, 1100, "{:05d}/a")
    _fill(fs, prefix, 1100, "{:05d}/b")
    fs.pipe_file(f"{prefix}/file", b"x")
    seen = fs.ls(prefix, detail=True)
    folders = {i["name"].rstrip("/") for i in seen if i["type"] == "directory"}
    files = [i["name"] for i in seen if i["type"] == "file"]
    expect(len(seen) == 1101, f"1100 folders and a file are listed as {len(seen)} entries")
    expect(len(folders) == 1100, f"1100 folders are listed as {len(folders)}")
    expect(len(files) == 1 and files[0].endswith("/file"), f"one file is listed as {files[:3]}")


def list_sibling_prefix(subject: Subject) -> None:
    """What is under `a/b` does not include `a/bc`."""
    fs, prefix = subject.fs, subject.prefix()
    for key in ("b/1", "bc/2", "b.txt", "b-3"):
        fs.pipe_file(f"{prefix}/{key}", b"x")
    for listed in (fs.find(f"{prefix}/b"), fs.find(f"{prefix}/b/"), fs.ls(f"{prefix}/b", False)):
        names = [str(n).rpartition("/")[2] for n in listed]
        expect(names == ["1"], f"under 'b' there is only 'b/1', but {names} are listed")


def list_missing_prefix_empty(subject: Subject) -> None:
    """What is under a prefix that is not there is nothing, and no error."""
    fs, prefix = subject.fs, subject.prefix()
    expect(list(fs.find(f"{prefix}/missing")) == [], "something is found under a missing prefix")
    try:
        listed = fs.ls(f"{prefix}/missing", detail=False)
    except FileNotFoundError:
        return
    expect(listed == [], f"ls of a missing prefix shows {listed}")


def list_during_mutation(subject: Subject) -> None:
    """Keys that nobody touches are in every listing, whatever happens beside them."""
    fs, prefix = subject.fs, subject.prefix()
    _fill(fs, prefix, 50, "stable-{:03d}")
    over = threading.Event()
    turns: list[int] = []

    def change() -> None:
        while not over.is_set():
            fs.pipe_file(f"{prefix}/moving/{len(turns) % 7}", b"x")
            fs.rm_file(f"{prefix}/moving/{len(turns) % 7}")
            turns.append(1)

    with ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        listings = 0
        try:
            while min(listings, len(turns)) < 40 and not changing.done():
                stable = [n for n in _names(fs, prefix) if "/stable-" in n]
                expect(len(stable) == 50, f"of 50 objects {len(stable)} are listed meanwhile")
                listings += 1
        finally:
            over.set()
        changing.result()


def delete_idempotent(subject: Subject) -> None:
    """Removing a key that is gone is silent."""
    fs, key = subject.fs, subject.prefix() + "/k"
    fs.pipe_file(key, b"x")
    for turn in ("first", "second"):
        try:
            fs.rm_file(key)
        except OSError as error:
            raise AssertionError(f"the {turn} removal of a key raises {error!r}") from error
        expect(not fs.exists(key), "a key that was removed exists")


def delete_1001(subject: Subject) -> None:
    """Removing more than one call can name removes all."""
    fs, prefix = subject.fs, subject.prefix()
    _fill(fs, prefix, 1001)
    fs.rm(prefix, recursive=True)
    left = _names(fs, prefix)
    expect(left == [], f"1001 objects were removed, {len(left)} are left")


def delete_prefix_scoped(subject: Subject) -> None:
    """Removing `a/b` leaves `a/bc` and `a/b.txt`."""
    fs, prefix = subject.fs, subject.prefix()
    for key in ("b/1", "b/c/2", "bc/3", "b.txt"):
        fs.pipe_file(f"{prefix}/{key}", b"x")
    fs.rm(f"{prefix}/b", recursive=True)
    left = sorted(n.rpartition("/")[2] for n in _names(fs, prefix))
    expect(left == ["3", "b.txt"], f"beside 'b' there were 'b.txt' and 'bc/3'; left are {left}")


# -- parts


def _names(fs: Any, prefix: str) -> list[str]:
    return [str(n) for n in fs.find(prefix)]


def _fill(fs: Any, prefix: str, count: int, pattern: str = "{:05d}") -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: fs.pipe_file(f"{prefix}/{pattern.format(n)}", b"x"), range(count)))
