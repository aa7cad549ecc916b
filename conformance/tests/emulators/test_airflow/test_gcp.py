"""Airflow's operators for Dataproc, as they are, on the local GCP."""

from __future__ import annotations

import pytest
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.control import Fault

from .conftest import RunDag

pytest.importorskip("grpc")
pytest.importorskip("pyspark")
pytestmark = pytest.mark.timeout(1800)


@pytest.fixture(scope="module", autouse=True)
def spark(migrated: object) -> None:
    from portaflow_conformance.emulators.gcp.driver import GCS
    from portaflow_conformance.emulators.spark import Spark

    Spark(GCS).prepare()


@pytest.mark.parametrize("deferrable", [False, True], ids=["waiting", "deferrable"])
def test_dataproc(run_dag: RunDag, deferrable: bool) -> None:
    with emulate("gcp") as clouds:
        control = clouds.control
        control.order(Fault(effect="fail", operation="gcp:dataproc.CreateCluster", skip=1))
        ran = run_dag(clouds, "gcp", deferrable=deferrable)

        assert ran.failed() == {"bad-job", "bad-batch", "cluster-that-fails"}
        exits = [line for text in ran.values["said"] for line in text.splitlines()]
        exits = sorted(line for line in exits if line.startswith("exits"))
        assert exits == ["exits with 0", "exits with 0", "exits with 3", "exits with 4"]
        assert control.count("gcp:dataproc.CreateCluster") == 2
        assert control.count("gcp:dataproc.SubmitJob") == 2
        assert control.count("gcp:dataproc.CreateBatch") == 2
        # The operator's own, and that for the cluster that did not start.
        deleted = control.seen("gcp:dataproc.DeleteCluster")
        names = ["cluster", "cluster-that-fails"]
        assert [call.params["cluster_name"] for call in deleted] == names
        assert control.count("proxy:Refused") == 0
