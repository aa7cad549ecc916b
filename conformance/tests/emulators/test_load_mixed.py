"""A minute of the mixed load, by the script that does the long one: nothing grows or stays."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("boto3", "grpc", "google.cloud.dataproc_v1", "google.cloud.storage", "kubernetes"):
    pytest.importorskip(module)

SCRIPT = Path(__file__).with_name("load_mixed.py")


@pytest.mark.spark
def test_a_mixed_load_leaves_nothing() -> None:
    pytest.importorskip("pyspark")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--minutes", "1", "--spark-every", "1000"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    *rounds, total = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 0, (total, done.stderr[-2000:])
    assert total["rounds"] == len(rounds) >= 3
    assert (total["problems"], total["grown"], total["left"]) == ([], [], [])
    assert total["struck"] >= len(rounds)  # the faults have found somebody
