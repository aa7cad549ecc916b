"""What `portaflow doctor` looks at in an account: nothing is made, nothing costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from portaflow.backend import Finding
from portaflow.errors import BackendError, NotFoundError, RejectedError

from .connect import Access, connect, told

if TYPE_CHECKING:
    from .emr import Config

_VCPUS = "L-1216C47A"  # the quota of EC2 that most clusters meet first


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
    except (NotFoundError, RejectedError) as error:
        return Finding(what=what, ok=False, detail=str(error), fix=fix)
    except BackendError as error:
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


def emr(config: Config) -> Iterable[Finding]:
    """What clusters of EMR need."""
    yield (first := account(config))
    if not first.ok:
        return
    aws = connect(config)
    iam, roles = aws.client("iam"), "aws emr create-default-roles, or correct {} in the target"
    yield looked(
        config,
        f"service role {config.service_role}",
        lambda: iam.get_role(RoleName=config.service_role.rpartition("/")[2])["Role"]["Arn"],
        roles.format("`service_role`"),
    )
    profile = config.instance_profile
    yield looked(
        config,
        f"instance profile {profile}",
        lambda: iam.get_instance_profile(InstanceProfileName=profile.rpartition("/")[2])[
            "InstanceProfile"
        ]["Arn"],
        roles.format("`instance_profile`"),
    )
    if config.subnets:
        ec2, fix = aws.client("ec2"), "correct `subnets` in the target, or its `region`"
        ids = list(config.subnets)
        yield looked(
            config,
            f"subnets {', '.join(ids)}",
            lambda: ", ".join(
                f"{s['SubnetId']}: {s['AvailableIpAddressCount']} free addresses"
                for s in ec2.describe_subnets(SubnetIds=ids)["Subnets"]
            ),
            fix,
        )
    if config.log_uri:
        yield bucket(config, config.log_uri)
    else:
        fix = "set `log_uri` in the target to a folder of a bucket, as s3://BUCKET/FOLDER"
        yield Finding(what="log bucket", ok=False, detail="none: jobs keep no logs", fix=fix)
    quotas = aws.client("service-quotas")
    yield looked(
        config,
        "quota of cores of EC2's standard instances",
        lambda: quotas.get_service_quota(ServiceCode="ec2", QuotaCode=_VCPUS)["Quota"]["Value"],
        "",
    )
