"""The suite that any backend must pass, on the local AWS: all of it but the store's part, which
test_s3.py runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from portaflow_aws.connect import Access, connect
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.manifest import MANIFEST

TARGETS = """
[targets.emr]
store = {backend = "s3", root = "s3://conformance/emr"}
compute = {backend = "emr", log_uri = "s3://logs/emr"}
"""
_IDLE = 60  # seconds: the shortest idle time that EMR takes


@pytest.mark.spark
@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", ["emr"])
def test_the_backend_conforms(target: str, clouds: Clouds, tmp_path: Path) -> None:
    connect(Access()).client("s3").create_bucket(Bucket="conformance")
    (tmp_path / "portaflow.toml").write_text(TARGETS)
    command = [
        sys.executable, "-m", "pytest", "-p", "portaflow_conformance", "-p", "no:cacheprovider",
        "--target", target, "--target-kind", "emulator", "--level", "L1", "--shortest-ttl", "5",
        "--report", "reports", "-k", "not store",
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    with idle_clusters_age(clouds):
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    partial = 6  # nothing failed, but something was left out
    assert done.returncode == partial, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    mine = {r["id"]: r["outcome"] for r in report["results"] if r["backend"] == target}
    ours = [c for c in MANIFEST if c.area in ("plugin", "spark") and not c.planned]
    assert mine.keys() >= {c.id for c in ours if c.level in ("L0", "L1")}
    assert set(mine.values()) == {"passed"}


@contextmanager
def idle_clusters_age(clouds: Clouds) -> Iterator[None]:
    """Let the clock jump for a cluster that is to end after the shortest idle time of EMR."""
    over = threading.Event()

    def watch() -> None:
        aged = 0
        while not over.wait(0.2):
            calls = clouds.control.seen("aws:emr.RunJobFlow")
            asked = [c.params["AutoTerminationPolicy"]["IdleTimeout"] for c in calls]
            if asked.count(_IDLE) > aged and not over.wait(1.0):  # it is ready by then
                aged = asked.count(_IDLE)
                clouds.control.jump(_IDLE + 1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
