"""What `portaflow doctor` looks at in an account: nothing is made, nothing costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from portaflow.backend import Finding
from portaflow.errors import BackendError, NotFoundError, RejectedError

from .connect import Access, connect, told

if TYPE_CHECKING:
    from .application import Applications
    from .emr import Config
    from .serverless import Config as ServerlessConfig

_EMR = (
    "elasticmapreduce:RunJobFlow", "elasticmapreduce:AddJobFlowSteps",
    "elasticmapreduce:CancelSteps", "elasticmapreduce:TerminateJobFlows",
    "elasticmapreduce:ListClusters", "elasticmapreduce:DescribeCluster",
    "elasticmapreduce:ListSteps", "elasticmapreduce:DescribeStep",
)  # fmt: skip
_SERVERLESS = (
    "emr-serverless:ListApplications", "emr-serverless:CreateApplication",
    "emr-serverless:StartJobRun", "emr-serverless:GetJobRun", "emr-serverless:ListJobRuns",
    "emr-serverless:CancelJobRun",
)  # fmt: skip
_EC2_CORES = "L-1216C47A"
_SERVERLESS_CORES = "L-D05C8A75"


def account(access: Access) -> Finding:
    """Whether AWS knows who asks."""
    what = "AWS credentials"
    try:
        aws = connect(access)
        with told("credentials", access):
            me = aws.client("sts").get_caller_identity()["Arn"]
    except BackendError as error:
        detail, _, fix = str(error).partition("; ")
        return Finding(what=what, ok=False, detail=detail, fix=fix or "see the detail")
    return Finding(what=what, ok=True, detail=f"{me} in {aws.region}")


def looked(access: Access, what: str, look: Callable[[], object], fix: str) -> Finding:
    """One look at a thing. No right to look is no fault of the thing."""
    try:
        with told(what, access):
            detail = look()
    except BackendError as error:
        if isinstance(error, NotFoundError | RejectedError) and "NotImplemented" not in str(error):
            return Finding(what=what, ok=False, detail=str(error), fix=fix)
        return Finding(what=what, ok=True, detail=f"not known: {error}")
    return Finding(what=what, ok=True, detail=str(detail))


def bucket(access: Access, uri: str) -> Finding:
    """Whether the bucket of a folder for logs is there and can be listed."""
    name = uri.partition("://")[2].partition("/")[0]
    s3 = connect(access).client("s3")

    def look() -> str:
        s3.list_objects_v2(Bucket=name, MaxKeys=1)
        return uri

    return looked(access, "log bucket", look, f"aws s3 mb s3://{name}, or correct `log_uri`")


def role(access: Access, what: str, arn: str, fix: str) -> Finding:
    """Whether a role is there; `arn` may be its name alone."""
    iam, name = connect(access).client("iam"), arn.rpartition("/")[2]
    return looked(access, what, lambda: iam.get_role(RoleName=name)["Role"]["Arn"], fix)


def place(access: Access, subnets: Sequence[str], log_uri: str) -> Iterable[Finding]:
    """Whether the subnets have addresses left, and logs a place."""
    if ids := list(subnets):
        ec2 = connect(access).client("ec2")
        yield looked(
            access,
            f"subnets {', '.join(ids)}",
            lambda: ", ".join(
                f"{s['SubnetId']}: {s['AvailableIpAddressCount']} free addresses"
                for s in ec2.describe_subnets(SubnetIds=ids)["Subnets"]
            ),
            "correct `subnets` in the target, or its `region`",
        )
    if log_uri:
        yield bucket(access, log_uri)
        return
    fix = "set `log_uri` in the target to a folder of a bucket, as s3://BUCKET/FOLDER"
    yield Finding(what="log bucket", ok=False, detail="none: jobs keep no logs", fix=fix)


def permissions(access: Access, me: str, actions: Sequence[str]) -> Finding:
    """What policies do not allow `me`, of what a run does. `me`: the ARN of who asks."""
    found = re.fullmatch(r"arn:(aws[\w-]*):sts::(\d+):assumed-role/([^/]+)/.*", me)
    source = f"arn:{found[1]}:iam::{found[2]}:role/{found[3]}" if found else me
    iam = connect(access).client("iam")

    def look() -> str:
        answer = iam.simulate_principal_policy(PolicySourceArn=source, ActionNames=list(actions))
        results = answer["EvaluationResults"]
        lacking = [r["EvalActionName"] for r in results if r["EvalDecision"] != "allowed"]
        if lacking:
            raise RejectedError(f"no policy of {source} allows {', '.join(lacking)}")
        return "all of a run's"

    fix = "attach such a policy; one that allows it for some clusters alone does not count here"
    return looked(access, "permissions", look, fix)


def quota(access: Access, what: str, product: str, code: str) -> Finding:
    quotas = connect(access).client("service-quotas")

    def look() -> object:
        return quotas.get_service_quota(ServiceCode=product, QuotaCode=code)["Quota"]["Value"]

    return looked(access, what, look, "ask AWS for it in the console of Service Quotas")


def emr(config: Config) -> Iterable[Finding]:
    """What clusters of EMR need."""
    yield (first := account(config))
    if not first.ok:
        return
    fix = "aws emr create-default-roles, or correct {} in the target"
    yield permissions(config, first.detail.partition(" ")[0], _EMR)
    what = f"service role {config.service_role}"
    yield role(config, what, config.service_role, fix.format("`service_role`"))
    iam, name = connect(config).client("iam"), config.instance_profile.rpartition("/")[2]
    yield looked(
        config,
        f"instance profile {name}",
        lambda: iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Arn"],
        fix.format("`instance_profile`"),
    )
    yield from place(config, config.subnets, config.log_uri)
    yield quota(config, "cores of EC2's standard instances at one time", "ec2", _EC2_CORES)


def serverless(config: ServerlessConfig, applications: Applications) -> Iterable[Finding]:
    """What jobs of EMR Serverless need."""
    yield (first := account(config))
    if not first.ok:
        return
    yield permissions(config, first.detail.partition(" ")[0], _SERVERLESS)
    what = f"execution role {config.execution_role}"
    fix = "make it, with the right to read the store, or correct `execution_role` in the target"
    yield role(config, what, config.execution_role, fix)

    def look() -> str:
        id = applications.find()
        return f"{id}: {applications.state(id)}" if id else "the first job makes it"

    yield looked(config, "application", look, "correct `application` in the target")
    yield from place(config, config.subnets, config.log_uri)
    what = "cores of EMR Serverless at one time"
    yield quota(config, what, "emr-serverless", _SERVERLESS_CORES)
