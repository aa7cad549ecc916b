"""A subject made of any backend classes: correct ones, and such that break one promise."""

from __future__ import annotations

import os
import signal
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.elsewhere import act
from portaflow_conformance.subject import Options, Subject
from portaflow_local.folder import Folder

from portaflow.backend import Backend
from portaflow.hookspecs import BackendKind, BackendSpec
from portaflow.plugins import Backends, Offer, Registry
from portaflow.target import Target

Make = Callable[..., Subject]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    """Return `make(store=, container=, compute=, patience=)`: a subject with these backends.

    "Another process" is a fresh set of backends in this one: what a driver keeps in memory
    is lost, as it would be, and a check costs milliseconds.
    """
    made: list[Subject] = []

    def subject(
        patience: float = 60.0, registry: type[Registry] = Registry, **classes: Any
    ) -> Subject:
        classes = {"store": Folder, **classes}
        offers, settings = [], {}
        for role, cls in classes.items():
            offers.append(Offer(_announced(role, cls, monkeypatch), "portaflow-local"))
            settings[role] = {"backend": f"{role}-under-test", "root": str(tmp_path / role)}
        target = Target.model_validate({"name": "test", "base": tmp_path, **settings})
        opened = registry(offers, [])

        def elsewhere(verb: str, kill_at: str = "", **what: Any) -> Any:
            return None if kill_at == "asked" else act(Backends(target, opened), verb, **what)

        limits = {"container": patience, "job": patience, "cluster": patience}
        options = Options(shortest_ttl=1, patience=limits)  # type: ignore[arg-type]
        made.append(Subject(target, opened, elsewhere, options))
        return made[-1]

    yield subject
    for one in made:
        _kill(one.token)


def _announced(role: BackendKind, cls: Any, monkeypatch: pytest.MonkeyPatch) -> BackendSpec:
    if isinstance(cls, str):
        return BackendSpec(f"{role}-under-test", role, cls)
    assert issubclass(cls, Backend)
    module = types.ModuleType(f"portaflow_under_test_{role}")
    module.Broken = cls  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return BackendSpec(f"{role}-under-test", role, f"{module.__name__}:Broken")


def _kill(token: str) -> None:
    """End what a broken backend has left: processes that carry the subject's token.

    One that is killed may have started another since the list was made: look again.
    """
    while found := [pid for pid in _pids() if token.encode() in _marks(pid)]:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*")]


def _marks(pid: int) -> bytes:
    """Environment and folder of a process; nothing of one that has ended."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        return environment + os.fsencode(os.readlink(f"/proc/{pid}/cwd"))
    except OSError:
        return b""
