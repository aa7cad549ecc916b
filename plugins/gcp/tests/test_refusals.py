"""What Dataproc would ignore, or not bear, is refused before anything starts."""

from __future__ import annotations

from typing import Any

import pytest
from portaflow_gcp.dataproc import Config, Dataproc

from portaflow.backend import ClusterSpec, JobSpec, Verdict

from .field import REGION, batches

_DATAPROC = Dataproc(Config(region=REGION))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("spark.master", "Dataproc decides it"),
        ("spark.submit.deployMode", "Dataproc decides it"),
        ("yarn.nodemanager.vmem-check-enabled", "only what begins with spark."),
    ],
)
@pytest.mark.parametrize("kind", ["cluster", "job", "batch"])
def test_settings_that_are_not_the_users_are_refused(kind: str, key: str, words: str) -> None:
    drivers = {"cluster": _DATAPROC.clusters, "job": _DATAPROC.jobs, "batch": batches()}
    driver: Any = drivers[kind]

    def spec(**conf: str) -> Any:
        return ClusterSpec(conf=conf) if kind == "cluster" else JobSpec(main="m.py", conf=conf)

    fit = driver.fit(spec(**{key: "x"}))["conf"]
    assert fit.verdict is Verdict.REFUSED
    assert fit.reason.startswith(f"{key}: ")
    assert words in fit.reason
    assert "conf" not in driver.fit(spec(**{"spark.sql.shuffle.partitions": "8"}))
