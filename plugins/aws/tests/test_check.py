"""What the doctor finds in an account, and says to do."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.stub import Stubber
from portaflow_aws.check import permissions
from portaflow_aws.connect import Access, connect
from portaflow_aws.emr import Config, Emr
from portaflow_aws.serverless import Config as ServerlessConfig
from portaflow_aws.serverless import EmrServerless
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

ROLE = "arn:aws:iam::123456789012:role/job"


def found(backend: Any) -> dict[str, Any]:
    return {finding.what: finding for finding in backend.check()}


def test_what_cannot_be_asked_is_not_known_and_no_fault(clouds: Clouds) -> None:
    seen = found(Emr(Config(log_uri="s3://logs/emr", subnets=("subnet-1",))))
    assert all(f.ok for f in seen.values()), seen
    assert "user/" in seen["AWS credentials"].detail
    assert seen["log bucket"].detail == "s3://logs/emr"
    assert seen["service role EMR_DefaultRole"].detail.startswith("not known: ")


@pytest.mark.parametrize(
    ("uri", "words"), [("", "`log_uri`"), ("s3://none/l", "aws s3 mb s3://none")]
)
def test_a_place_for_logs_that_is_not_there_is_told(clouds: Clouds, uri: str, words: str) -> None:
    for backend in (
        Emr(Config(log_uri=uri)),
        EmrServerless(ServerlessConfig(execution_role=ROLE, log_uri=uri)),
    ):
        bucket = found(backend)["log bucket"]
        assert not bucket.ok
        assert words in bucket.fix


def test_roles_and_subnets_that_are_not_there_are_told_with_the_fix(clouds: Clouds) -> None:
    """The local AWS has no IAM and no EC2: the answers are botocore's own stubs'."""
    aws = connect(Access())
    iam, ec2 = Stubber(aws.client("iam")), Stubber(aws.client("ec2"))
    iam.add_client_error("get_role", "NoSuchEntity", "no such role", 404)
    iam.add_client_error("get_instance_profile", "AccessDenied", "you may not look", 403)
    ec2.add_client_error("describe_subnets", "InvalidSubnetID.NotFound", "no subnet-1", 400)
    with iam, ec2:
        seen = found(Emr(Config(log_uri="s3://logs/emr", subnets=("subnet-1",))))
    role = seen["service role EMR_DefaultRole"]
    assert not role.ok
    assert "aws emr create-default-roles, or correct `service_role`" in role.fix
    assert seen["instance profile EMR_EC2_DefaultRole"].ok  # nobody said that it is not there
    assert not seen["subnets subnet-1"].ok
    assert "`subnets`" in seen["subnets subnet-1"].fix


def test_what_no_policy_allows_is_told(clouds: Clouds) -> None:
    backends = (
        Emr(Config(log_uri="s3://logs/emr")),
        EmrServerless(ServerlessConfig(execution_role=ROLE, log_uri="s3://logs/emr")),
    )
    assert [found(b)["permissions"].ok for b in backends] == [True, True]
    for call in ("emr.RunJobFlow", "emr-serverless.StartJobRun"):
        clouds.control.order(Fault(effect="deny", operation=f"aws:{call}", times=-1))
    seen = [found(b)["permissions"] for b in backends]
    assert [f.ok for f in seen] == [False, False]
    assert [f.detail.partition(" allows ")[2] for f in seen] == [
        "elasticmapreduce:RunJobFlow", "emr-serverless:StartJobRun"
    ]  # fmt: skip
    clouds.control.order(Fault(effect="deny", operation="aws:iam.*", times=-1))
    seen = [found(b)["permissions"] for b in backends]
    assert all(f.ok and f.detail.startswith("not known: ") for f in seen)


def test_a_role_for_a_time_is_asked_for_by_its_role(clouds: Clouds) -> None:
    arn = "arn:aws:sts::123456789012:assumed-role/team/session"
    permissions(Access(), arn, ["elasticmapreduce:RunJobFlow"])
    (call,) = clouds.control.seen("aws:iam.SimulatePrincipalPolicy")[-1:]
    assert call.params["PolicySourceArn"] == "arn:aws:iam::123456789012:role/team"


def test_an_application_is_looked_at(clouds: Clouds) -> None:
    settings = {"execution_role": ROLE, "log_uri": "s3://logs/sls"}
    seen = found(EmrServerless(ServerlessConfig(**settings, tags={"never": "made"})))
    assert seen["application"].detail == "the first job makes it"
    seen = found(EmrServerless(ServerlessConfig(**settings, application="00nonesuch")))
    assert not seen["application"].ok
    assert "correct `application`" in seen["application"].fix


def test_without_credentials_there_is_one_finding(
    clouds: Clouds, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = found(Emr(Config(profile="nonesuch", log_uri="s3://logs/emr")))
    assert [f.ok for f in seen.values()] == [False]
    assert "correct `profile`" in seen["AWS credentials"].fix
