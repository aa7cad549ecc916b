"""An engine is killed in the middle and nobody comes again: the clouds end all of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("moto")

from portaflow_conformance.emulators.clouds import Clouds

from .field import Engines, until

JOB = 30 * 60 + 15 * 60  # seconds that a task of `held` may live: its own, and the engine's
CLUSTER = 2 * 3600
KEPT = 86400  # that a Job of Kubernetes stays after its end
MARGIN = 300

PLACES = {
    "aws": {"cluster", "step", "Job", "pod"},
    "aws-serverless": {"job run", "Job", "pod"},
    "gcp": {"cluster", "job", "Job", "pod"},
    "gcp-serverless": {"batch", "Job", "pod"},
    "kubernetes": {"Job", "pod"},
}
LONGER = {"cluster", "job"}  # than a task: Dataproc ends a job with its cluster

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def _the_clock_is_right_again(clouds: Clouds) -> Iterator[None]:
    """Clouds take no token of a client whose clock is days behind theirs."""
    yield
    clouds.control.jump(time.time() - clouds.control.now())


@pytest.mark.parametrize("target", PLACES)
def test_what_a_dead_engine_leaves_is_gone_when_its_time_is_over(
    start: Callable[[], Engines], clouds: Clouds, looker: Engines, target: str
) -> None:
    bucket = "gs://portaflow" if target.startswith("gcp") else "s3://portaflow"
    pipeline = "boxes" if target == "kubernetes" else "held"
    ttl = 86400 + 15 * 60 if target == "kubernetes" else JOB
    engines = start()
    engines.begin("run", target, pipeline, target, token="never", gate=f"{bucket}/gates/none")
    until(lambda: engines.ready() or kinds(looker) == PLACES[target])
    assert not engines.ready(), engines.told()
    engines.kill()
    made = {operation: clouds.control.count(operation) for operation in ENDINGS}

    clouds.control.jump(ttl - MARGIN)
    assert stays(lambda: kinds(looker) == PLACES[target])
    clouds.control.jump(2 * MARGIN)
    until(lambda: kinds(looker) <= LONGER)
    clouds.control.jump(CLUSTER)
    until(lambda: not kinds(looker))
    assert looker.answer("kept"), "the pods' logs are there for a day"
    clouds.control.jump(KEPT + MARGIN)
    until(lambda: not looker.answer("kept"))
    assert made == {operation: clouds.control.count(operation) for operation in ENDINGS}


ENDINGS = (
    *("aws:emr.TerminateJobFlows", "aws:emr.CancelSteps", "aws:emr-serverless.CancelJobRun"),
    *("gcp:dataproc.DeleteCluster", "gcp:dataproc.CancelJob", "gcp:*.CancelOperation"),
    "kubernetes:jobs.delete",
)
"""The calls that end something: nobody makes them here."""


def kinds(looker: Engines) -> set[str]:
    """The kinds of what lives: cluster, step, job run, job, batch, Job, pod."""
    return {str(one).rpartition(" ")[0] for one in looker.answer("alive")}


def stays(what: Callable[[], Any], seconds: float = 1.0) -> bool:
    """Whether something is so, and stays so for longer than a stand-in needs to look."""
    end = time.monotonic() + seconds
    while what():
        if time.monotonic() > end:
            return True
        time.sleep(0.05)
    return False
