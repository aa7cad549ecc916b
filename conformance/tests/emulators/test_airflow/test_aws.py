"""Airflow's operators for AWS, as they are, on the local AWS."""

from __future__ import annotations

import pytest
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.control import Fault

from ..aws_client import make_ready
from .conftest import RunDag

pytestmark = pytest.mark.timeout(1800)  # many starts of Spark in one test


@pytest.fixture(scope="module", autouse=True)
def spark(migrated: object) -> None:
    pytest.importorskip("moto")
    pytest.importorskip("pyspark")
    make_ready()


@pytest.mark.parametrize("deferrable", [False, True], ids=["waiting", "deferrable"])
def test_emr_and_emr_serverless(run_dag: RunDag, deferrable: bool) -> None:
    with emulate("aws") as clouds:
        control = clouds.control
        for create in ("emr.RunJobFlow", "emr-serverless.CreateApplication"):
            control.order(Fault(effect="fail", operation=f"aws:{create}", skip=1))
        ran = run_dag(clouds, "aws", deferrable=deferrable)

        def sent(operation: str, name: str) -> list[object]:
            return [call.params[name] for call in control.seen(f"aws:{operation}")]

        assert ran.failed() == {
            *("bad-step", "bad-sensor", "cluster-that-fails"),
            *("bad-run", "application-that-fails"),
        }
        codes = ["exits with 0\n", "exits with 0\n", "exits with 3\n", "exits with 4\n"]
        assert sorted(ran.values["said-by-steps"]) == codes
        assert sent("emr.RunJobFlow", "Name") == ["cluster", "cluster-that-fails"]
        assert sent("emr.AddJobFlowSteps", "JobFlowId") == [ran.values["cluster"]] * 3
        ended = sent("emr.TerminateJobFlows", "JobFlowIds")
        assert ended[0] == [ran.values["cluster"]]
        # One that does not start is terminated by the operator that waits, not by its trigger.
        assert len(ended) == (1 if deferrable else 2)

        assert sorted(ran.values["said-by-runs"]) == ["exits with 0\n", "exits with 3\n"]
        applications = sent("emr-serverless.CreateApplication", "name")
        assert applications == ["application", "application-that-fails"]
        application = ran.values["application"]
        assert sent("emr-serverless.StartJobRun", "applicationId") == [application] * 2
        assert sent("emr-serverless.StopApplication", "applicationId") == [application] * 2
        assert sent("emr-serverless.DeleteApplication", "applicationId") == [application]
        assert control.count("proxy:Refused") == 0
