"""A small load, by the script that does the large one: nothing is lost, nothing stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "load_kubernetes.py"


@pytest.fixture(scope="module")
def phases() -> list[dict[str, Any]]:
    words = ["--at-once", "30", "--in-a-row", "12", "--jobs", "5x4"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [p["pods"] for p in found] == [30, 12, 20], done.stderr
    return found


def test_no_log_line_and_no_event_is_lost(phases: list[dict[str, Any]]) -> None:
    for phase in phases:
        assert phase["failed"] == []
        lost = {k: phase[k] for k in ("lost_lines", "lost_events", "repeated_events")}
        assert set(lost.values()) == {0}, phase


def test_nothing_stays_after_a_load(phases: list[dict[str, Any]]) -> None:
    for phase in phases:
        assert (phase["left_processes"], phase["left_files"]) == (0, 0)
        before, after = phase["threads"]
        assert after == before
    # The connections that the client keeps are made in the first.
    assert phases[-1]["descriptors"][1] <= phases[0]["descriptors"][1]


def test_cheap_requests_are_answered_meanwhile(phases: list[dict[str, Any]]) -> None:
    """The median: the last hundredth is the business of a machine that does nothing else."""
    for phase in phases:
        assert phase["p50_ms"] < 50, phase
