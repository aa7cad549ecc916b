"""S3: a store in a bucket of AWS."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from portaflow.bucket import Advice, Bucket
from portaflow.errors import DeniedError, RejectedError, TargetError

from .connect import Access, connect, told

_S3A = "org.apache.hadoop.fs.s3a"


@dataclass(frozen=True, kw_only=True)
class Config(Access):
    """`root`: s3://bucket/prefix. `key_provider`: where Spark that does not run on AWS finds
    keys, as Hadoop says it: jceks://gs@BUCKET/FILE."""

    root: str
    key_provider: str = ""


class S3(Bucket):
    """Objects of S3."""

    name = "s3"
    Config = Config
    scheme = "s3"
    advice = Advice(
        credentials="name a `profile` or a `connection` in the target, or set AWS_PROFILE; "
        "`aws sts get-caller-identity` says who you are",
        rights="allow s3:ListBucket on the bucket and s3:GetObject, s3:PutObject, "
        "s3:DeleteObject, s3:AbortMultipartUpload on its objects",
        missing="make it with `aws s3 mb s3://{bucket}`, or correct the target's `root`",
        region="set the `region` of the target's store to that of the bucket; "
        "`aws s3api head-bucket` tells it",
        unreachable="look at the network, and whether the target's `region` is one of AWS",
    )

    def store(self, bucket: str) -> Any:
        from obstore.auth.boto3 import Boto3CredentialProvider
        from obstore.store import S3Store

        with told("credentials", self.config):
            session = connect(self.config).session
            if session.get_credentials() is None:
                raise DeniedError(
                    f"s3://{bucket}: there are no credentials; {self.advice.credentials}"
                )
            provider = Boto3CredentialProvider(session)
            endpoint = connect(self.config).client("s3").meta.endpoint_url
        region = session.region_name or "us-east-1"
        if not re.fullmatch("[a-z0-9-]+", region):
            raise RejectedError(f"s3://{bucket}: {region!r} is no region; {self.advice.region}")
        settings = dict(self.patience)
        if not str(urlsplit(endpoint).hostname).endswith(".amazonaws.com"):
            settings["endpoint"] = endpoint  # of a connection, a profile, or another part of AWS
            plain = endpoint.startswith("http://")
            settings["client_options"] = {**settings["client_options"], "allow_http": plain}
        return S3Store(bucket, credential_provider=provider, region=region, **settings)

    def region_of(self, bucket: str) -> str:
        answer: Any
        try:
            answer = connect(self.config).client("s3").head_bucket(Bucket=bucket)
        except Exception as error:  # S3 tells it to who may not see the bucket, too
            answer = getattr(error, "response", {})
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return str(headers.get("x-amz-bucket-region", ""))

    def spark_conf(self, cloud: str = "") -> Mapping[str, str]:
        """AWS reads s3:// by itself; other engines by the connector that Hadoop has for it."""
        if cloud == "aws":
            return {}
        where = self.config.key_provider
        if cloud and not where:
            raise TargetError(
                f"store {self.root}: Spark that does not run on AWS has no keys for it; put them "
                "into a file with `hadoop credential create fs.s3a.access.key -provider "
                "jceks://gs@BUCKET/FILE` (and fs.s3a.secret.key), and name that provider as "
                "`key_provider` in the target's store"
            )
        conf = {
            "spark.hadoop.fs.s3.impl": f"{_S3A}.S3AFileSystem",
            "spark.hadoop.fs.AbstractFileSystem.s3.impl": f"{_S3A}.S3A",
        }
        if self.config.region:
            conf["spark.hadoop.fs.s3a.endpoint.region"] = self.config.region
        if where:
            conf["spark.hadoop.fs.s3a.security.credential.provider.path"] = where
        return conf

    def container_env(self) -> Mapping[str, str]:
        region = self.config.region
        return {"AWS_REGION": region, "AWS_DEFAULT_REGION": region} if region else {}
