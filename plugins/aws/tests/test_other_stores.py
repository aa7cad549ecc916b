"""What jobs of AWS are told for a store that is not AWS's, and others for one that is."""

from __future__ import annotations

import pytest
from portaflow_aws.emr import Config, Emr
from portaflow_aws.s3 import S3
from portaflow_aws.s3 import Config as StoreConfig
from portaflow_aws.serverless import Config as ServerlessConfig
from portaflow_aws.serverless import EmrServerless

from portaflow.backend import JobSpec, Verdict
from portaflow.errors import TargetError

TO_GCS = {"spark.hadoop.fs.gs.auth.type": "SERVICE_ACCOUNT_JSON_KEYFILE"}
SPEC = JobSpec(owner="o-1", main="gs://b/main.py", conf=TO_GCS)


def test_s3_is_awss_own_on_aws_and_elsewhere_has_keys_by_their_place() -> None:
    plain = S3(StoreConfig(root="s3://mine/p", region="eu-west-1"))
    assert plain.spark_conf("aws") == {}
    with pytest.raises(TargetError, match=r"s3://mine/p.*`key_provider`"):
        plain.spark_conf("gcp")
    where = "jceks://gs@theirs/s3.jceks"
    keyed = S3(StoreConfig(root="s3://mine/p", key_provider=where))
    assert keyed.spark_conf("aws") == {}
    assert keyed.spark_conf("gcp") == {
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.hadoop.fs.AbstractFileSystem.s3.impl": "org.apache.hadoop.fs.s3a.S3A",
        "spark.hadoop.fs.s3a.security.credential.provider.path": where,
    }


def test_emr_says_that_googles_connector_must_be_put_there() -> None:
    fit = Emr(Config()).jobs.fit(SPEC)["conf"]
    assert fit.verdict is Verdict.APPROXIMATED
    assert "`bootstrap`" in fit.reason
    assert "conf" not in Emr(Config(bootstrap=("s3://b/connector.sh",))).jobs.fit(SPEC)


def test_emr_serverless_refuses_gcs() -> None:
    role = "arn:aws:iam::123456789012:role/jobs"
    fit = EmrServerless(ServerlessConfig(execution_role=role)).jobs.fit(SPEC)["conf"]
    assert fit.verdict is Verdict.REFUSED
    assert "use emr" in fit.reason
