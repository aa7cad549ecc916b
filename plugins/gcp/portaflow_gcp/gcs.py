"""GCS: a store in a bucket of Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from portaflow.bucket import Advice, Bucket
from portaflow.errors import TargetError

from .connect import CREDENTIALS, Access, TokenSource


@dataclass(frozen=True, kw_only=True)
class Config(Access):
    """`root`: gs://bucket/prefix. `key_file`: where machines that are not Google's have the key of
    a service account, for Spark that runs there: /etc/gcs-key.json."""

    root: str
    key_file: str = ""


class Gcs(Bucket):
    """Objects of Google Cloud Storage."""

    name = "gcs"
    Config = Config
    scheme = "gs"
    advice = Advice(
        credentials=CREDENTIALS,
        rights="give the account the role roles/storage.objectUser on the bucket",
        missing="make it with `gcloud storage buckets create gs://{bucket}`, "
        "or correct the target's `root`",
        region="correct the target's `root`",
        unreachable="look at the network",
    )

    def store(self, bucket: str) -> Any:
        from obstore.store import GCSStore

        return GCSStore(bucket, credential_provider=TokenSource(self.config), **self.patience)

    def spark_conf(self, cloud: str = "") -> Mapping[str, str]:
        """Google's connector is there on its own machines, and knows whose they are."""
        key = self.config.key_file
        if cloud == "aws" and not key:
            raise TargetError(
                f"store {self.root}: Spark that does not run on GCP has no credentials for it; let "
                "a script of the target's `bootstrap` put the key of a service account on the "
                "machines, and name that file as `key_file` in the target's store"
            )
        if cloud == "gcp" or not key:
            return {}
        conf = {
            "spark.hadoop.fs.gs.auth.type": "SERVICE_ACCOUNT_JSON_KEYFILE",
            "spark.hadoop.fs.gs.auth.service.account.json.keyfile": key,
        }
        if self.config.project:
            conf["spark.hadoop.fs.gs.project.id"] = self.config.project
        return conf

    def container_env(self) -> Mapping[str, str]:
        project = self.config.project
        return {"GOOGLE_CLOUD_PROJECT": project} if project else {}
