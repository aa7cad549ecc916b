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
        "runs them in the Spark of this machine, as local[2]; a connector to S3 is that Spark's",
        key="dataproc_here",
    ),
    Deviation(
        "Dataproc",
        "runs initialization actions as root on each machine of a cluster",
        "once, as the first master, as the user who runs the stand-in",
        key="dataproc_initialization_once",
    ),
    Deviation(
        "Dataproc",
        "grows and shrinks clusters by their autoscaling policy",
        "keeps policies and lets clusters be as large as they are",
        key="dataproc_autoscaling",
    ),
    Deviation(
        "Dataproc",
        "counts all that runs in a project against its quotas",
        "refuses one cluster or batch of more than 2,000 cores, and counts no others",
        key="dataproc_quota",
    ),
    Deviation(
        "Dataproc",
        "runs a batch in its container image",
        "in the Python that runs the stand-in, whatever the image",
        key="dataproc_batch_image",
    ),
    Deviation(
        "Dataproc",
        "runs Hive, Pig, Presto, Trino, Flink, R and SQL, too",
        "PySpark and Spark alone; UNIMPLEMENTED for another job or batch",
        key="dataproc_kinds",
    ),
    Deviation(
        "Dataproc",
        "has workflow templates, sessions and node groups",
        "has clusters, jobs, batches, autoscaling policies and operations",
        key="dataproc_services",
    ),
    Deviation(
        "Dataproc",
        "a job may call whatever its network reaches",
        "it may call the stand-ins that run; every other host is refused by https",
        key="dataproc_network",
    ),
    Deviation(
        "GKE",
        "each cluster is a Kubernetes of its own, with node pools",
        "all lead to the stand-in for Kubernetes; one, `portaflow`, is there from the start",
        key="gke_shared",
    ),
    Deviation(
        "Secret Manager",
        "rotates secrets, lets them expire, and has filters and regional secrets",
        "does not; a filter is UNIMPLEMENTED",
        key="secretmanager_filters",
    ),
    Deviation(
        "Cloud Billing",
        "lists the prices of today: of all, everywhere, in any currency",
        "of some machines in a few regions, in US dollars, as they were in November 2024",
        key="cloudbilling_some",
    ),
    Deviation(
        "IAM",
        "refuses what a policy does not allow",
        "checks who calls, and lets that one do everything",
        key="gcp_policies",
    ),
    Deviation(
        "IAM",
        "gives tokens to users, too; a cluster's machines have no key",
        "to service accounts alone; a driver has the key of one",
        key="gcp_users",
    ),
)
