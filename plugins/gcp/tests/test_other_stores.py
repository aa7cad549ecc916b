"""What jobs of Dataproc are told, and given, for a store that is not Google's."""

from __future__ import annotations

from typing import Any

import pytest
from portaflow_gcp.batch import Config as BatchConfig
from portaflow_gcp.batch import DataprocServerless
from portaflow_gcp.dataproc import Config, Dataproc
from portaflow_gcp.gcs import Config as StoreConfig
from portaflow_gcp.gcs import Gcs

from portaflow.backend import JobSpec
from portaflow.errors import RejectedError, TargetError

TO_S3 = {"spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem"}
PACKAGES = "spark.jars.packages"


def properties(image: str = "", **spec: Any) -> dict[str, str]:
    jobs = Dataproc(Config(region="europe-west1", image_version=image)).jobs
    request = jobs.request("pf-x-1", JobSpec(owner="o-1", main="s3://b/main.py", **spec), "c")
    return dict(request["job"]["pyspark_job"]["properties"])


def test_a_job_gets_the_connector_to_s3_of_its_own_hadoop() -> None:
    assert properties(conf=TO_S3)[PACKAGES] == "org.apache.hadoop:hadoop-aws:3.3.6"
    newer = properties("3.0.1-debian12", conf=TO_S3, packages=("a:b:1",))
    assert newer[PACKAGES] == "a:b:1,org.apache.hadoop:hadoop-aws:3.4.1"
    both = properties(conf={**TO_S3, PACKAGES: "c:d:2"}, packages=("a:b:1",))
    assert both[PACKAGES] == "a:b:1,c:d:2,org.apache.hadoop:hadoop-aws:3.3.6"
    own = properties("2.1", conf=TO_S3, packages=("org.apache.hadoop:hadoop-aws:3.3.5",))
    assert own[PACKAGES] == "org.apache.hadoop:hadoop-aws:3.3.5"
    assert PACKAGES not in properties()


def test_an_image_whose_hadoop_is_not_known_needs_the_connector_named() -> None:
    with pytest.raises(RejectedError, match=r"'2.1-debian11' has.*task's `packages`"):
        properties("2.1-debian11", conf=TO_S3)


def test_a_batch_gets_it_as_well() -> None:
    batches = DataprocServerless(BatchConfig(region="europe-west1")).jobs
    spec = JobSpec(owner="o-1", ttl=3600, main="s3://b/main.py", conf=TO_S3)
    batch = batches.request("pf-x-1", spec)["batch"]
    said = batch["runtime_config"]["properties"]
    assert said[PACKAGES] == "org.apache.hadoop:hadoop-aws:3.3.6"


def test_gcs_elsewhere_has_a_key_by_its_place_or_is_refused() -> None:
    plain = Gcs(StoreConfig(root="gs://mine/p"))
    assert plain.spark_conf("gcp") == {}
    with pytest.raises(TargetError, match=r"gs://mine/p.*`bootstrap`.*`key_file`"):
        plain.spark_conf("aws")
    keyed = Gcs(StoreConfig(root="gs://mine/p", key_file="/etc/key.json", project="p-1"))
    assert keyed.spark_conf("gcp") == {}
    assert keyed.spark_conf("aws") == {
        "spark.hadoop.fs.gs.auth.type": "SERVICE_ACCOUNT_JSON_KEYFILE",
        "spark.hadoop.fs.gs.auth.service.account.json.keyfile": "/etc/key.json",
        "spark.hadoop.fs.gs.project.id": "p-1",
    }
