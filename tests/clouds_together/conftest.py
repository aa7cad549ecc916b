"""Local clouds for processes of engines, and those processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto")
pytest.importorskip("grpc")

from portaflow_conformance.emulators.clouds import Clouds, emulate

from .field import Engines

Start = Callable[[], Engines]


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with emulate("aws", "gcp", "kubernetes", pace=0.02, buckets=["portaflow"]) as running:
        yield running


@pytest.fixture(scope="module")
def looker(clouds: Clouds, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """A client of the clouds that runs no engine."""
    one = Engines(clouds, tmp_path_factory.mktemp("looker"))
    yield one
    one.close()


@pytest.fixture
def start(clouds: Clouds, tmp_path: Path) -> Iterator[Start]:
    """Start a process for engines, on one machine with the others of this test."""
    started: list[Engines] = []

    def one() -> Engines:
        started.append(Engines(clouds, tmp_path))
        return started[-1]

    yield one
    for engines in started:
        engines.kill()
