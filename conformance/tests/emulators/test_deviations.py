"""Every known deviation has a test that fails when it disappears, and the other way round."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("moto")
pytest.importorskip("aiohttp")
pytest.importorskip("grpc")

from portaflow_conformance.emulators.clouds import EMULATORS
from portaflow_conformance.emulators.deviations import deviations

PREFIX = "test_deviation_"


def _tests() -> Counter[str]:
    """The keys that tests are named after; a name that stands twice in a file runs once."""
    return Counter(
        node.name.removeprefix(PREFIX)
        for path in Path(__file__).parent.rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(PREFIX)
    )


def test_each_has_one_test_and_each_test_has_its_entry() -> None:
    known = Counter(one.key for name in EMULATORS for one in deviations(name))
    assert sorted(known.elements()) == sorted(_tests().elements())
    assert max(known.values(), default=1) == 1
