"""Checks that prove whether a backend keeps the laws of `portaflow.backend`.

    pytest -p portaflow_conformance --target NAME

This module is the pytest plugin: it names the hooks, plugin.py holds them.
"""

from __future__ import annotations

from .plugin import (
    pytest_addoption,
    pytest_collection,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

__all__ = [
    "pytest_addoption",
    "pytest_collection",
    "pytest_configure",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
    "pytest_terminal_summary",
]
