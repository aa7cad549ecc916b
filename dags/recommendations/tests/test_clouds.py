"""The same pipeline on local clouds, whole or in part, gives what it gives on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto")
pytest.importorskip("grpc")

from portaflow_conformance.emulators.clouds import Clouds, emulate

ROOT = Path(__file__).parents[3]
DAG = ROOT / "dags" / "recommendations"
MIXED = """
[targets.mixed]
extends = "aws"
place = {train = "gcp"}
"""
Cli = Callable[..., str]


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    images = {"train": DAG / "images" / "train"}
    with emulate("aws", "gcp", "kubernetes", images=images, buckets=["portaflow"]) as running:
        yield running


@pytest.fixture
def cli(clouds: Clouds, tmp_path: Path) -> Cli:
    (tmp_path / "portaflow.toml").write_text((ROOT / "portaflow.toml").read_text() + MIXED)
    env = clouds.environ()

    def portaflow(*words: str) -> str:
        command = [sys.executable, "-m", "portaflow", *words]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    return portaflow


@pytest.mark.spark
@pytest.mark.timeout(1200)
def test_the_same_comes_out_on_every_cloud(cli: Cli, clouds: Clouds) -> None:
    for target in ("local", "mixed", "gcp-serverless"):
        cli("run", str(DAG), "--run-id", target, "--target", target)
    one = ("--set", "compute.executors=1")  # two processors bear no more
    cli("run", str(DAG), "--run-id", "kubernetes", "--target", "kubernetes", *one)
    for a, b in (("local", "mixed"), ("mixed", "gcp-serverless"), ("local", "kubernetes")):
        assert "equal" in cli("compare", a, b, "--target", a, "--target-b", b)
    calls = clouds.control.count
    assert calls("aws:emr.RunJobFlow") == calls("aws:emr.TerminateJobFlows") == 1
    assert calls("aws:emr.AddJobFlowSteps") == 2
    assert calls("gcp:dataproc.CreateBatch") == 2
    assert made(clouds, "kubernetes:jobs.create", "spark-submit") == 2
    assert made(clouds, "kubernetes:pods.create", "spark-app-selector") >= 2  # of drivers
    assert calls("proxy:Refused") == 0


def made(clouds: Clouds, operation: str, word: str) -> int:
    """How many things were asked for in words that hold this one."""
    return sum(word in str(call.params) for call in clouds.control.seen(operation))
