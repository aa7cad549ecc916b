"""A cluster that really runs pods for each file of tests, and a namespace for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_kubernetes.containers import Config, Kubernetes

from .field import Field


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with emulate("kubernetes", pace=0.02) as running:
        yield running


@pytest.fixture
def field(clouds: Clouds) -> Iterator[Field]:
    emulator: Any = clouds.emulators["kubernetes"]
    config = Config(kubeconfig=Path(emulator.kubeconfig), namespace=f"t-{uuid.uuid4().hex[:8]}")
    one = Field(clouds, Kubernetes(config))
    one.make("namespaces", {"metadata": {"name": config.namespace}})
    yield one
    clouds.control.clear()
    one.close()
