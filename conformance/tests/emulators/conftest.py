"""What the tests of the stand-ins share: a way to see that nothing was left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def own_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stand-ins make for themselves goes below the test's folder, where it is looked for."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def left(tmp_path: Path, own_tmp: None) -> Callable[[], list[str]]:
    """Return what is there of stand-ins that lived below the test's folder: processes, files."""

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

    return look
