"""A local GCP of our own, in whose environment the clients of these tests are made."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate

from .field import Field

PACE = 0.02  # a cluster takes so much of two seconds


@pytest.fixture(scope="session")
def local_gcp() -> Iterator[Clouds]:
    """One for all: gRPC reads whom it trusts once in a process."""
    with emulate("gcp", "kubernetes", pace=PACE) as clouds:
        yield clouds


@pytest.fixture
def cloud(local_gcp: Clouds) -> Iterator[Clouds]:
    """The local GCP without a fault on order, and its environment."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(local_gcp.environ(before))
    yield local_gcp
    os.environ.clear()
    os.environ.update(before)
    local_gcp.control.clear()


@pytest.fixture
def field(cloud: Clouds) -> Iterator[Field]:
    one = Field(cloud)
    yield one
    one.clear()
