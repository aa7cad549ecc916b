"""Runs of one pipeline at once: each has what is its own.

`python -m tests.clouds_together.side_by_side` does fifty and more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("moto")

from portaflow_conformance.emulators.clouds import Clouds

from .field import Engines
from .side_by_side import side_by_side


@pytest.mark.spark
def test_runs_of_one_pipeline_at_once_mix_nothing_up(
    clouds: Clouds, looker: Engines, tmp_path: Path
) -> None:
    """Four in each process: some share one with another of their pipeline, some do not."""
    runs = {"aws": 2, "gcp": 2, "kubernetes": 8}
    outcome = side_by_side(clouds, looker, tmp_path, runs, processes=3)
    assert outcome.wrong == []
    assert outcome.runs == 12
