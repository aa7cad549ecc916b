"""One field of all local clouds for each file of tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("moto")
pytest.importorskip("grpc")

from .field import Field, opened


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    with opened(tmp_path_factory.mktemp("clouds")) as field:
        yield field


@pytest.fixture
def field(everywhere: Field) -> Iterator[Field]:
    yield everywhere
    everywhere.control.clear()
