"""What all tests of the core share."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A developer's own settings must not decide about a test."""
    for name in os.environ:
        if name.startswith("PORTAFLOW_"):
            monkeypatch.delenv(name)
