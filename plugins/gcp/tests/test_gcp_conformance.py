"""The suite that any backend must pass, on the local GCP: all of it but the store's part, which
tests/test_bucket_stores.py runs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate

from tests.suite import outcomes

TARGETS = """
[targets.dataproc]
store = {backend = "gcs", root = "gs://conformance/dataproc"}
compute = {backend = "dataproc", region = "europe-west1"}
[targets.dataproc-serverless]
store = {backend = "gcs", root = "gs://conformance/serverless"}
compute = {backend = "dataproc-serverless", region = "europe-west1"}
"""
# Dataproc knows no time-to-live of a job on a cluster: it ends with the cluster.
KNOWN = """
[["spark.job_timeout_cancels"]]
backend = "dataproc"
reason = "Dataproc ends a job when it ends its cluster, and not before"
issue = "https://cloud.google.com/dataproc/docs/reference/rest/v1/projects.regions.jobs"
expires = {expires}
"""
_TTL = 600  # seconds: the shortest time-to-live that Dataproc takes


@pytest.mark.spark
@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", ["dataproc", "dataproc-serverless"])
def test_the_backend_conforms(target: str, tmp_path: Path) -> None:
    (tmp_path / "portaflow.toml").write_text(TARGETS)
    known = KNOWN if target == "dataproc" else ""
    tomorrow = date.today() + timedelta(days=1)
    (tmp_path / "known.toml").write_text(known.format(expires=tomorrow))
    with emulate("gcp", pace=0.02) as clouds:
        env = clouds.environ()
        code = "from google.cloud import storage; storage.Client().create_bucket('conformance')"
        subprocess.run([sys.executable, "-c", code], env=env, check=True)
        with short_lives_pass(clouds):
            seen = outcomes(
                tmp_path, target, target, "spark", "--shortest-ttl", "5", "-k", "not store",
                "--known-failures", "known.toml", env=env,
            )  # fmt: skip
    missed = {id for id, outcome in seen.items() if outcome != "passed"}
    assert missed == ({"spark.job_timeout_cancels"} if known else set())


@contextmanager
def short_lives_pass(clouds: Clouds) -> Iterator[None]:
    """Let the clock jump for what is to end after Dataproc's shortest time-to-live."""
    over = threading.Event()

    def watch() -> None:
        aged = 0
        while not over.wait(0.2):
            short = 0
            for call in clouds.control.seen("gcp:dataproc.Create*"):
                asked = call.params.get("cluster") or call.params["batch"]
                short += asked["labels"].get("portaflow-ttl") == "5"
            if short > aged and not over.wait(1.0):  # it is ready by then
                aged = short
                clouds.control.jump(_TTL + 1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
