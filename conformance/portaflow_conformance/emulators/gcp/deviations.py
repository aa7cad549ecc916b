"""Where the local GCP is known to differ."""

from __future__ import annotations

from ..place import Deviation

DEVIATIONS: tuple[Deviation, ...] = (
    Deviation(
        "GCS",
        "keeps old generations where versioning is on",
        "keeps the live one alone",
        key="gcs_versions",
    ),
    Deviation(
        "GCS",
        "objects can be appended to where the bucket is zonal",
        "in every bucket",
        key="gcs_appending",
    ),
    Deviation(
        "GCS",
        "takes HMAC keys and signatures of version 2",
        "URLs signed by version 4 with the key of the service account",
        key="gcs_hmac",
    ),
    Deviation(
        "GCS",
        "acts on lifecycle rules, retention, holds and soft deletion",
        "keeps what a bucket says of them, and does not act on it",
        key="gcs_lifecycle",
    ),
    Deviation(
        "Dataproc",
        "runs jobs on the machines of a cluster, in its image's version of Spark",
        "runs them on this machine in the Spark that is installed, as local[2]",
    ),
    Deviation(
        "Dataproc",
        "runs initialization actions, autoscaling policies and a batch's container image",
        "accepts them and does nothing with them",
    ),
    Deviation(
        "Dataproc",
        "runs Hive, Pig, Presto, Trino, Flink, R and SQL, too",
        "PySpark and Spark alone; UNIMPLEMENTED for another job or batch",
    ),
    Deviation(
        "Dataproc",
        "has workflow templates, autoscaling policies, sessions and node groups",
        "has clusters, jobs, batches and operations",
    ),
    Deviation(
        "Dataproc, GKE, Secret Manager",
        "are spoken to by REST, too, and so by gcloud",
        "by gRPC alone, as Google's clients for Python do; a REST call finds no server",
    ),
    Deviation(
        "Dataproc",
        "a job may call whatever its network reaches",
        "it may call the stand-ins that run; every other host is refused by https",
    ),
    Deviation(
        "GKE",
        "each cluster is a Kubernetes of its own, with node pools",
        "all lead to the stand-in for Kubernetes; one, `portaflow`, is there from the start",
    ),
    Deviation(
        "Secret Manager",
        "rotates secrets, lets them expire, and has filters and regional secrets",
        "does not; a filter is UNIMPLEMENTED",
    ),
    Deviation(
        "IAM",
        "refuses what a policy does not allow",
        "checks who calls, and lets that one do everything",
    ),
    Deviation(
        "IAM",
        "gives tokens to users, by impersonation and on a cluster's machines",
        "to one service account by its key alone; a driver has that key",
    ),
)
