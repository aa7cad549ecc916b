"""The folder store: whole writes, one winner of a race, nothing outside of the root."""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from portaflow_local.folder import Config, Folder, FolderFileSystem

RACER = """
import sys
from portaflow_local.folder import FolderFileSystem
root, number = sys.argv[1:]
fs = FolderFileSystem(root=root)
sys.stdin.readline()
won = 0
for key in range(20):
    try:
        fs.pipe_file(f"{root}/race/{key}", number.encode() * 1000, mode="create")
        won += 1
    except FileExistsError:
        pass
print(won)
"""


@pytest.fixture
def store(tmp_path: Path) -> Folder:
    return Folder(Config(root=tmp_path / "root"))


@pytest.fixture
def fs(store: Folder) -> FolderFileSystem:
    return store.filesystem()


def interrupted(stream: Any) -> None:
    stream.write(b"x" * 1_000_000)
    raise ZeroDivisionError


def files(store: Folder) -> list[str]:
    """All that is in the folder, drafts as well, seen past the store."""
    root = store.config.root
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


# -- whole or not at all


def test_a_create_race_of_processes_has_one_winner_for_each_key(
    store: Folder, fs: FolderFileSystem
) -> None:
    program = [sys.executable, "-c", RACER, str(store.config.root)]
    pipe = subprocess.PIPE
    racers = [
        subprocess.Popen([*program, str(n)], stdin=pipe, stdout=pipe, text=True) for n in range(4)
    ]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert sum(int(racer.communicate(timeout=30)[0]) for racer in racers) == 20
    for key in range(20):
        assert len(set(fs.cat_file(store.url(f"race/{key}")))) == 1
    assert len(files(store)) == 20  # and no draft of a loser


def test_a_create_race_of_threads_has_one_winner(store: Folder, fs: FolderFileSystem) -> None:
    def create(number: int) -> bool:
        try:
            fs.pipe_file(store.url("a/b/key"), b"%d" % number, mode="create")
        except FileExistsError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(create, range(64)))
    assert won.count(True) == 1
    assert fs.cat_file(store.url("a/b/key")) == b"%d" % won.index(True)


@pytest.mark.parametrize("how", ["pipe", "open", "copy"])
def test_a_reader_sees_the_old_or_the_new_and_never_a_part(
    store: Folder, fs: FolderFileSystem, how: str
) -> None:
    url, size = store.url("key"), 300_000
    contents = [bytes([letter]) * size for letter in b"ab"]
    for name, content in zip("ab", contents, strict=True):
        fs.pipe_file(store.url(f"source-{name}"), content)

    def write(number: int) -> None:
        if how == "pipe":
            fs.pipe_file(url, contents[number % 2])
        elif how == "open":
            with fs.open(url, "wb") as stream:
                for start in range(0, size, 10_000):
                    stream.write(contents[number % 2][start : start + 10_000])
        else:
            fs.copy(store.url(f"source-{'ab'[number % 2]}"), url)

    done, wrong = threading.Event(), []
    write(0)

    def read() -> None:
        while not done.is_set():
            seen = fs.cat_file(url)
            if seen not in contents:
                wrong.append((len(seen), set(seen)))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(60):
        write(number)
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong


def test_a_shorter_overwrite_leaves_nothing_of_the_longer(
    store: Folder, fs: FolderFileSystem
) -> None:
    for data in (b"x" * 100_000, b"short", b""):
        fs.pipe_file(store.url("key"), data)
        assert fs.cat_file(store.url("key")) == data
        assert fs.size(store.url("key")) == len(data)
    with fs.open(store.url("key"), "wb") as stream:
        stream.write(b"new")
    assert store.filesystem().cat_file(store.url("key")) == b"new"


def test_a_writer_that_raises_publishes_nothing(store: Folder, fs: FolderFileSystem) -> None:
    fs.pipe_file(store.url("old"), b"old")
    for name in ("old", "new"):
        with pytest.raises(ZeroDivisionError), fs.open(store.url(name), "wb") as stream:
            interrupted(stream)
    assert files(store) == ["old"]
    assert fs.cat_file(store.url("old")) == b"old"


def test_a_writer_that_is_let_go_of_publishes_nothing(store: Folder, fs: FolderFileSystem) -> None:
    stream = fs.open(store.url("key"), "wb")
    stream.write(b"x" * 1_000_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # Python's own, and a deserved one
        del stream
        gc.collect()
    assert files(store) == []


def test_a_writer_that_was_killed_publishes_nothing(store: Folder) -> None:
    program = (
        "import os, sys; from portaflow_local.folder import FolderFileSystem\n"
        "fs = FolderFileSystem(root=sys.argv[1]); s = fs.open(sys.argv[1] + '/key', 'wb')\n"
        "s.write(b'x' * 1000000); s.flush(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(store.config.root)], check=False)
    fs = store.filesystem()
    assert not fs.exists(store.url("key"))
    assert fs.find(str(store.config.root)) == []  # the draft is there, and no reader sees it


def test_an_object_appears_when_its_writer_is_closed(store: Folder, fs: FolderFileSystem) -> None:
    with fs.open(store.url("a/key"), "wb") as stream:
        stream.write(b"data")
        stream.flush()
        assert not fs.exists(store.url("a/key"))
    assert fs.cat_file(store.url("a/key")) == b"data"


def test_an_exclusive_open_loses_against_what_is_there(store: Folder, fs: FolderFileSystem) -> None:
    fs.pipe_file(store.url("key"), b"first")
    with pytest.raises(FileExistsError), fs.open(store.url("key"), "xb") as stream:
        stream.write(b"second")
    assert fs.cat_file(store.url("key")) == b"first"
    assert files(store) == ["key"]


def test_appending_is_refused(store: Folder, fs: FolderFileSystem) -> None:
    for mode in ("ab", "r+b", "w+b"):
        with pytest.raises(ValueError, match="whole"):
            fs.open(store.url("key"), mode)


def test_many_writers_of_one_key_leave_one_whole_object(
    store: Folder, fs: FolderFileSystem
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: fs.pipe_file(store.url("hot"), bytes([n]) * 100_000), range(1, 65)))
    seen = fs.cat_file(store.url("hot"))
    assert len(seen) == 100_000
    assert len(set(seen)) == 1
    assert files(store) == ["hot"]


def test_writing_and_removing_neighbours_at_once_loses_nothing(
    store: Folder, fs: FolderFileSystem
) -> None:
    """A folder that was left empty may vanish while somebody writes into it."""

    def work(number: int) -> None:
        for _ in range(50):
            fs.pipe_file(store.url(f"deep/folder/{number}"), b"x")
            fs.rm_file(store.url(f"deep/folder/{number}"))
        fs.pipe_file(store.url(f"deep/folder/{number}"), b"last")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert files(store) == [f"deep/folder/{n}" for n in range(4)]


# -- keys


def test_listing_is_of_the_prefix_and_not_of_its_siblings(
    store: Folder, fs: FolderFileSystem
) -> None:
    for key in ("a/b/1", "a/b/2", "a/b/c/3", "a/bc", "d"):
        fs.pipe_file(store.url(key), b"")
    root = str(store.config.root)
    assert sorted(fs.find(store.url("a/b"))) == [f"{root}/a/b/{k}" for k in ("1", "2", "c/3")]
    assert sorted(fs.ls(store.url("a"), detail=False)) == [f"{root}/a/b", f"{root}/a/bc"]
    assert sorted(fs.ls(root, detail=False)) == [f"{root}/a", f"{root}/d"]  # and no drafts
    assert fs.find(store.url("none")) == []
    fs.rm(store.url("a/b"), recursive=True)
    assert files(store) == ["a/bc", "d"]


def test_a_listing_of_2500_keys_is_whole(store: Folder, fs: FolderFileSystem) -> None:
    for number in range(2500):
        fs.pipe_file(store.url(f"many/{number:04}"), b"")
    assert len(fs.find(store.url("many"))) == 2500


@pytest.mark.parametrize(
    "key",
    [
        "sp ace",
        "p+l&u?s#=",
        "q'u\"o[t]e",
        "100%25",
        "smile-\U0001f600",
        "\u00e9",
        "e\u0301",
        "x" * 200,
    ],
)
def test_odd_keys_are_kept_as_they_are(store: Folder, fs: FolderFileSystem, key: str) -> None:
    url = store.url(f"odd/{key}")
    fs.pipe_file(url, b"1")
    assert fs.cat_file(url) == b"1"
    assert fs.ls(store.url("odd"), detail=False) == [f"{store.config.root}/odd/{key}"]
    with fs.open(url, "rb") as stream:
        assert stream.read() == b"1"
    fs.rm_file(url)
    assert files(store) == []


def test_composed_and_decomposed_letters_are_two_keys(store: Folder, fs: FolderFileSystem) -> None:
    fs.pipe_file(store.url("\u00e9"), b"composed")
    fs.pipe_file(store.url("e\u0301"), b"decomposed")
    assert fs.cat_file(store.url("\u00e9")) == b"composed"
    assert len(files(store)) == 2


def test_a_removal_is_silent_twice_and_leaves_no_folder(
    store: Folder, fs: FolderFileSystem
) -> None:
    fs.pipe_file(store.url("a/b/c"), b"")
    for _ in range(2):
        fs.rm_file(store.url("a/b/c"))
        fs.rm(store.url("a"), recursive=True)
    assert not fs.exists(store.url("a"))
    assert not (store.config.root / "a").exists()


def test_a_missing_key_is_said_to_be_missing(store: Folder, fs: FolderFileSystem) -> None:
    for call in (fs.cat_file, fs.info, fs.size, lambda url: fs.open(url, "rb")):
        with pytest.raises(FileNotFoundError):
            call(store.url("none"))


def test_a_key_below_a_key_is_told_for_what_it_is(store: Folder, fs: FolderFileSystem) -> None:
    fs.pipe_file(store.url("a"), b"1")
    for mode in ("overwrite", "create"):  # FileExistsError would say that somebody was faster
        with pytest.raises(NotADirectoryError, match="is a key"):
            fs.pipe_file(store.url("a/b"), b"2", mode=mode)
    assert files(store) == ["a"]


def test_ranges_are_read(store: Folder, fs: FolderFileSystem) -> None:
    fs.pipe_file(store.url("key"), bytes(range(100)))
    assert fs.cat_file(store.url("key"), start=10, end=20) == bytes(range(10, 20))


def test_large_objects_arrive_whole(store: Folder, fs: FolderFileSystem) -> None:
    data = bytes(range(256)) * 2**16
    fs.pipe_file(store.url("large"), data)
    digest = hashlib.sha256(data).digest()
    assert hashlib.sha256(fs.cat_file(store.url("large"))).digest() == digest


# -- what is outside


def _writes(fs: FolderFileSystem, inside: str) -> list[Callable[[str], Any]]:
    return [
        lambda url: fs.pipe_file(url, b"new"),
        lambda url: fs.pipe_file(url, b"new", mode="create"),
        lambda url: fs.open(url, "wb"),
        lambda url: fs.copy(inside, url),
        lambda url: fs.mv(inside, url),
        lambda url: fs.put_file(inside, url),
        lambda url: fs.touch(url),
        lambda url: fs.rm_file(url),
        lambda url: fs.rm(url, recursive=True),
    ]


@pytest.mark.parametrize(
    "path",
    ["{root}/../secret", "{root}2/secret", "{root}/a/../../secret", "{root}/link/secret",
     "{root}/a/../..", "{root}/..", "{root}/.", "{root}/.drafts/x", "{root}/.drafts"],
)  # fmt: skip
def test_nothing_outside_the_root_is_changed(
    store: Folder, fs: FolderFileSystem, tmp_path: Path, path: str
) -> None:
    root = store.config.root
    fs.pipe_file(store.url("a/inside"), b"inside")
    fs.pipe_file(store.url("b"), b"inside")
    for folder in (tmp_path, tmp_path / "root2", tmp_path / "elsewhere"):
        folder.mkdir(exist_ok=True)
        (folder / "secret").write_bytes(b"old")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for write in _writes(fs, store.url("b")):
        with pytest.raises((PermissionError, ValueError)):
            write(path.format(root=root))
    with pytest.raises(PermissionError):
        fs.rm(str(root), recursive=True)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_objects_are_copied_in_and_out_and_moved(
    store: Folder, fs: FolderFileSystem, tmp_path: Path
) -> None:
    (tmp_path / "in").write_bytes(b"data")
    fs.put_file(str(tmp_path / "in"), store.url("a/b"))
    fs.get_file(store.url("a/b"), str(tmp_path / "out"))
    assert (tmp_path / "out").read_bytes() == b"data"
    fs.mv(store.url("a/b"), store.url("c/d"))
    assert files(store) == ["c/d"]
    fs.get(store.url("c"), str(tmp_path / "all"), recursive=True)
    assert [p.read_bytes() for p in (tmp_path / "all").rglob("d")] == [b"data"]
    fs.touch(store.url("e"))
    fs.touch(store.url("c/d"), truncate=False)
    assert fs.cat_file(store.url("e")) == b""
    assert fs.cat_file(store.url("c/d")) == b"data"
    with pytest.raises(NotImplementedError):
        fs.symlink(store.url("c/d"), store.url("f"))


def test_a_root_behind_a_link_is_the_same_root(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    store = Folder(Config(root=tmp_path / "link"))
    fs = store.filesystem()
    fs.pipe_file(store.url("a/b"), b"x")
    assert fs.cat_file(f"file://{tmp_path}/real/a/b") == b"x"
    fs.rm(store.url("a"), recursive=True)
    assert files(store) == []


def test_making_the_store_touches_nothing_and_doctor_finds_it_writable(store: Folder) -> None:
    store.filesystem()
    assert not store.config.root.exists()
    assert all(finding.ok for finding in store.check())
    assert list(store.mounts()) == [str(store.config.root)]
