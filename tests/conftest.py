"""What all tests of the core share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

# The machine may be busy, so an example has no deadline; and no file is left behind.
settings.register_profile("portaflow", deadline=None, database=None, print_blob=True)
settings.load_profile("portaflow")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts `make test &` like this, and what a test starts would not hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings must not decide about a test."""
    for name in os.environ:
        if name.startswith("PORTAFLOW_"):
            monkeypatch.delenv(name)


@pytest.fixture
def install() -> Callable[..., Path]:
    """Put a real distribution with a plugin into a folder, as pip would: not a test double."""

    def make(folder: Path, name: str, module: str | None, announced: str = "") -> Path:
        top = name.replace("-", "_")
        info = folder / f"{top}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        entry = announced or f"[portaflow]\n{name} = {top}\n"
        (info / "entry_points.txt").write_text(entry)
        if module is not None:
            (folder / f"{top}.py").write_text(module)
        return info

    return make
