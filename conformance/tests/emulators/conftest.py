"""What the tests of the stand-ins share: a way to see that nothing was left behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate

from .frame import HERE, Left, Started


@pytest.fixture
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stand-ins make for themselves goes below the test's folder, where it is looked for."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def left(tmp_path: Path, own_tmp: None) -> Iterator[Callable[[], list[str]]]:
    """Tell what is there of stand-ins that lived below the test's folder: processes, files.

    What a test that failed has left is ended after it.
    """

    def look() -> list[str]:
        mark = os.fsencode(tmp_path / "tmp")
        found = [str(path) for path in (tmp_path / "tmp").iterdir()]
        for process in Path("/proc").glob("[0-9]*"):
            if int(process.name) == os.getpid():
                continue
            try:
                told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
                told += os.fsencode(os.readlink(process / "cwd"))
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:  # it has ended
                continue
            if mark in told:
                found.append(f"{process.name}: {words}")
        return found

    yield look
    for thing in look():
        with suppress(ValueError, ProcessLookupError):  # a file, or gone
            os.kill(int(thing.partition(":")[0]), signal.SIGKILL)


@pytest.fixture
def clouds(own_tmp: None) -> Iterator[Clouds]:
    with emulate("echo_cloud:Echo") as clouds:
        yield clouds


@pytest.fixture
def start(left: Left) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def make(*words: str, **more: Any) -> Started:
        started.append(Started(*words, **more))
        return started[-1]

    yield make
    for one in started:
        one.child.kill()
        one.child.wait()
        for stream in (one.child.stdout, one.child.stderr):
            if stream:
                stream.close()  # what it has left may hold the other end
