"""One local GCP for a module, and a client of it: Python in a process that has its environment."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("trustme")
pytest.importorskip("grpc")

from portaflow_conformance.emulators.clouds import Clouds, emulate

Client = Callable[..., Any]

_LAST = """
import json as _json
print("\\n" + _json.dumps(told))
"""


@pytest.fixture(scope="module")
def clouds(request: pytest.FixtureRequest) -> Iterator[Clouds]:
    with emulate(*getattr(request.module, "CLOUDS", ("gcp",)), pace=0.05) as clouds:
        yield clouds


@pytest.fixture(scope="module")
def python(clouds: Clouds) -> Client:
    """Run code, and return what it has left in `told`, by way of JSON."""

    def run(code: str, **env: str) -> Any:
        script = "told = []\n" + code + _LAST
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**clouds.environ(), **env},
            capture_output=True,
            text=True,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def client(python: Client, clouds: Clouds) -> Iterator[Client]:
    """`python`, for a test that may order faults."""
    yield python
    clouds.control.clear()
