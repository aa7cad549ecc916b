"""Airflow's operators for pods and Jobs, as they are, on the local Kubernetes, EKS and GKE."""

from __future__ import annotations

import re

import pytest
from portaflow_conformance.emulators.clouds import emulate

from .conftest import RunDag

pytest.importorskip("kubernetes")
pytest.importorskip("moto")
pytest.importorskip("grpc")
pytestmark = pytest.mark.timeout(1800)

PODS = {"pod-good", "pod-bad", "eks-good", "eks-bad", "gke-good", "gke-bad"}


@pytest.mark.parametrize("deferrable", [False, True], ids=["waiting", "deferrable"])
def test_pods_and_jobs(run_dag: RunDag, deferrable: bool) -> None:
    with emulate("aws", "gcp", "kubernetes") as clouds:
        control = clouds.control
        ran = run_dag(clouds, "kubernetes", deferrable=deferrable)

        assert ran.failed() == {"pod-bad", "eks-bad", "gke-bad", "job-bad"}
        good = ("pod-good", "eks-good", "gke-good")
        assert ran.values == {task: {"answer": 42} for task in good}
        said = re.findall(r"\[base\] (?:logs: )?said by ([\w-]+)", ran.log)
        assert sorted(said) == sorted({*PODS, "job-good"})

        def names(operation: str) -> list[str]:
            return sorted(call.params["name"] for call in control.seen(f"kubernetes:{operation}"))

        assert len(names("kubelet.RunPod")) == len(PODS) + 2
        assert names("pods.delete") == names("kubelet.RunPod")
        assert control.count("kubernetes:pods.create") == len(PODS)
        assert control.count("kubernetes:jobs.create") == 2
        assert control.count("aws:eks.DescribeCluster") >= 2
        assert control.count("gcp:container.GetCluster") >= 2
        assert control.count("proxy:Refused") == 0
