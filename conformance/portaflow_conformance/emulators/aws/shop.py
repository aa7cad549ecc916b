"""What everything that runs Spark shares: where it works, the clock, and the store."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..control import Control
from ..spark import Connector

_SDK = "2.35.4"  # the version that Hadoop 3.5.0 is built with
S3A = Connector(
    "s3a",
    (
        "org.apache.hadoop:hadoop-aws:3.5.0",
        *(
            f"software.amazon.awssdk:{name}:{_SDK}"
            for name in ("s3", "s3-transfer-manager", "sts", "apache-client", "netty-nio-client")
        ),
    ),
    (
        *("io.netty", "org.slf4j", "software.amazon.awssdk:bundle"),
        "org.wildfly.openssl",
    ),
)


_THEIRS = ("JAVA_HOME", "PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON")


class Store:
    """The local S3 itself, for what services put there and fetch: no fault strikes them."""

    def __init__(self, port: int, key: str, secret: str) -> None:
        self._port, self._key, self._secret = port, key, secret
        self._client: Any = None
        self._making = threading.Lock()

    def make_bucket(self, name: str) -> None:
        self._connected().create_bucket(Bucket=name)

    def put(self, uri: str, body: bytes) -> None:
        bucket, key = _parts(uri)
        self._connected().put_object(Bucket=bucket, Key=key, Body=body)

    def get(self, uri: str) -> bytes:
        bucket, key = _parts(uri)
        body: bytes = self._connected().get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    def _connected(self) -> Any:
        import boto3  # type: ignore[import-untyped]
        from botocore.config import Config  # type: ignore[import-untyped]

        with self._making:  # making a client is not thread-safe
            if self._client is None:
                self._client = boto3.client(
                    "s3",
                    endpoint_url=f"http://127.0.0.1:{self._port}",
                    region_name="us-east-1",
                    aws_access_key_id=self._key,
                    aws_secret_access_key=self._secret,
                    config=Config(proxies={}, s3={"addressing_style": "path"}),
                )
        return self._client


@dataclass(frozen=True, slots=True)
class Shop:
    """`folder` is for the files of what runs; `env` is that of a client of the local clouds, as
    what runs is one; `conf` are further defaults for Spark."""

    folder: Path
    control: Control
    pace: float
    store: Store
    env: Mapping[str, str]
    conf: Mapping[str, str] = field(default_factory=dict)

    def below(self, name: str, conf: Mapping[str, str], env: Mapping[str, str]) -> Shop:
        """The same in a folder of its own, with defaults and variables of its own for Spark."""
        return replace(self, folder=self.folder / name, conf=conf, env={**self.env, **own(env)})

    def spark_conf(self) -> dict[str, str]:
        """`s3://` is S3A here, as it is EMRFS or S3A there; it goes the way of all clients."""
        return {
            "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
            "spark.hadoop.fs.s3a.endpoint.region": self.env["AWS_REGION"],
            **self.conf,
        }

    def keep_log(self, path: Path, uri: str, lost: str) -> None:
        """Put a log into the store as AWS does; noted as `lost` when its bucket is not there."""
        body = path.read_bytes() if path.exists() else b""
        try:
            self.store.put(uri, gzip.compress(body))
        except Exception as error:  # what runs goes on without its logs, as in AWS
            self.control.note(lost, uri=uri, error=str(error))


def own(env: Mapping[str, str]) -> dict[str, str]:
    """The variables but those that lead to what an image or a machine of the cloud has."""
    return {name: value for name, value in env.items() if name not in _THEIRS}


def _parts(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key
