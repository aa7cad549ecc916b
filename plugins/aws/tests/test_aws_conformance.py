"""The suite that any backend must pass, on the local AWS: all of it but the store's part, which
tests/test_bucket_stores.py runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from portaflow_aws.connect import Access, connect
from portaflow_conformance.emulators.clouds import Clouds

from tests.suite import outcomes

TARGETS = """
[targets.emr]
store = {backend = "s3", root = "s3://conformance-emr/x"}
compute = {backend = "emr", log_uri = "s3://logs/emr"}
[targets.emr-serverless]
store = {backend = "s3", root = "s3://conformance-emr-serverless/x"}
[targets.emr-serverless.compute]
backend = "emr-serverless"
log_uri = "s3://logs/emr-serverless"
execution_role = "arn:aws:iam::123456789012:role/job"
"""


@pytest.mark.spark
@pytest.mark.timeout(900)
@pytest.mark.parametrize("target", ["emr", "emr-serverless"])
def test_the_backend_conforms(target: str, clouds: Clouds, tmp_path: Path) -> None:
    connect(Access()).client("s3").create_bucket(Bucket=f"conformance-{target}")
    (tmp_path / "portaflow.toml").write_text(TARGETS)
    with time_flies(clouds):
        seen = outcomes(tmp_path, target, target, "spark", "--shortest-ttl", "5", "-k", "not store")
    assert set(seen.values()) == {"passed"}


@contextmanager
def time_flies(clouds: Clouds) -> Iterator[None]:
    """Let the clock jump for what is to end after the shortest time that AWS takes."""
    over = threading.Event()

    def short() -> tuple[int, int]:
        """How many clusters, and jobs, were asked for that are to end so soon."""
        clusters = clouds.control.seen("aws:emr.RunJobFlow")
        jobs = clouds.control.seen("aws:emr-serverless.StartJobRun")
        idle = [c.params["AutoTerminationPolicy"]["IdleTimeout"] for c in clusters]
        limits = [c.params["executionTimeoutMinutes"] for c in jobs]
        return idle.count(60), limits.count(5)

    def watch() -> None:
        clusters, jobs = short()
        while not over.wait(0.2):
            now = short()
            seconds = 61 * (now[0] > clusters) + 301 * (now[1] > jobs)
            clusters, jobs = now
            for _ in range(3 if seconds else 0):  # its time begins only when it is ready
                if not over.wait(2.0):
                    clouds.control.jump(seconds)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
