"""kill -9 of the engine where it hurts most on a cloud: a resume finishes the run, nothing is
made twice and nothing is left. `python -m tests.clouds_kill aws` does so at every call."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("moto")
pytest.importorskip("grpc")

from .cases import tried
from .place import Place, What, place
from .points import Point

POINTS = {
    "aws": (
        Point("aws:emr.RunJobFlow"),
        Point("aws:emr.AddJobFlowSteps", "features", "*pf-kill-features-*"),
        Point("kubernetes:jobs.create"),
        Point("aws:emr.AddJobFlowSteps", "recommend", "*pf-kill-recommend-*"),
        Point("aws:emr.TerminateJobFlows"),
    ),
    "gcp": (
        Point("gcp:dataproc.CreateCluster"),
        Point("gcp:dataproc.SubmitJob", "features", "*pf-kill-features-*"),
        Point("kubernetes:jobs.create"),
        Point("gcp:dataproc.SubmitJob", "recommend", "*pf-kill-recommend-*"),
        Point("gcp:dataproc.DeleteCluster"),
    ),
    "kubernetes": (
        Point("kubernetes:jobs.create", "features", "*pf-kill-features-*"),
        Point("kubernetes:jobs.create", "train", "*pf-kill-train-*"),
        Point("kubernetes:jobs.create", "recommend", "*pf-kill-recommend-*"),
    ),
}


@pytest.fixture(params=POINTS)
def cloud(request: pytest.FixtureRequest) -> Iterator[Place]:
    what: What = "programs" if request.param == "kubernetes" else "jobs"  # CI's two minutes
    with place(request.param, what) as here:
        yield here


@pytest.mark.spark
@pytest.mark.timeout(600)
def test_a_run_killed_over_and_over_makes_each_thing_once(cloud: Place) -> None:
    """Three runs at once: what is not at work waits."""
    points = POINTS[cloud.target]
    made = [point for point in points if point.creates]
    with ThreadPoolExecutor(3) as threads:
        runs = [
            threads.submit(tried, cloud, points, "after", "case-after"),
            threads.submit(tried, cloud, made, "hidden", "case-hidden"),
            threads.submit(tried, cloud, points, "lost", "case-lost"),
        ]
        outcomes = [run.result() for run in runs]
    assert [one for one in outcomes if not one.good] == []
