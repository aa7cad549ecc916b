"""GCS: a store in a bucket of Google Cloud Storage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from portaflow.bucket import Advice, Bucket

from .connect import CREDENTIALS, Access, TokenSource


@dataclass(frozen=True, kw_only=True)
class Config(Access):
    """`root`: gs://bucket/prefix."""

    root: str


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

    def container_env(self) -> Mapping[str, str]:
        project = self.config.project
        return {"GOOGLE_CLOUD_PROJECT": project} if project else {}
