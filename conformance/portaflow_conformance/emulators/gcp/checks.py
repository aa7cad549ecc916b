"""What Dataproc refuses before it does anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from .items import GcsError
from .machines import cores, has_image, has_machine, has_runtime, machine
from .objects import Objects
from .regions import REGIONS
from .rpc import Code, RefusedError, invalid

_NAME = re.compile(r"[a-z]([-a-z0-9]{0,49}[a-z0-9])?")
_KEY = re.compile(r"[a-z][-_a-z0-9]{0,62}")
_VALUE = re.compile(r"[-_a-z0-9]{0,63}")
_JOB = re.compile(r"[A-Za-z0-9_-]{1,100}")
_BATCH = re.compile(r"[a-z0-9][-a-z0-9]{2,61}[a-z0-9]")
_REQUEST = re.compile(r"[A-Za-z0-9_-]{0,40}")
_DAY = 86_400
CORES = 2000  # that a project may have at one time
_TTLS = {
    "idle_delete_ttl": (300, 14 * _DAY),
    "auto_delete_ttl": (600, 14 * _DAY),
    "idle_stop_ttl": (300, 14 * _DAY),
    "auto_stop_ttl": (600, 14 * _DAY),
}
_PREFIX = re.compile(
    r"(am|capacity-scheduler|core|dataproc(\.[a-z]+)*|distcp|flink|hadoop|hbase|hdfs|hive|hudi"
    r"|iceberg|mapred|oozie|pig|presto|ranger|solr|spark|tez|webhcat|yarn|zeppelin|zookeeper)"
    r"(-env|-log4j2?|-jvm|-site)?"
)
ALLOW_ZERO = "dataproc:dataproc.allow.zero.workers"


def check_place(project: str, region: str, request_id: str = "") -> None:
    if not project:
        raise invalid("Project id must not be empty")
    if region not in REGIONS and region != "global":
        # Nobody is at the address of such a region, and this is what gRPC makes of the page there.
        raise RefusedError(Code.UNIMPLEMENTED, "Received http2 header with status: 404")
    if not _REQUEST.fullmatch(request_id):
        raise invalid("Request id must be at most 40 letters, digits, underscores and hyphens")


def over_quota(asked: int) -> str:
    """What is said to who asks for more cores than a project may have; "" to all others."""
    if asked <= CORES:
        return ""
    return f"Insufficient 'CPUS' quota. Requested {asked}.0, available {CORES}.0."


def check_labels(labels: Mapping[str, str]) -> None:
    if len(labels) > 64:
        raise invalid("No more than 64 labels can be given")
    for key, value in labels.items():
        if not _KEY.fullmatch(key):
            raise invalid(f"Label key '{key}' must conform to '{_KEY.pattern}' pattern")
        if not _VALUE.fullmatch(value):
            raise invalid(f"Label value '{value}' must conform to '{_VALUE.pattern}' pattern")


def check_cluster(cluster: Any, objects: Objects) -> None:
    name = cluster.cluster_name
    if not _NAME.fullmatch(name):
        raise invalid(f"Invalid cluster name '{name}': it must match '{_NAME.pattern}'")
    if cluster.HasField("virtual_cluster_config"):
        text = "Dataproc on GKE (virtual_cluster_config) is not in the local Dataproc"
        raise RefusedError(Code.UNIMPLEMENTED, text)
    check_labels(cluster.labels)
    config = cluster.config
    workers = config.worker_config.num_instances
    zero = config.software_config.properties.get(ALLOW_ZERO, "") == "true"
    if config.HasField("worker_config") and (workers < 0 or workers == 1):
        raise invalid("Multi-node clusters must have at least 2 primary workers")
    if zero and workers:
        raise invalid("A single-node cluster cannot have workers")
    if config.master_config.num_instances not in (0, 1, 3):
        raise invalid("The number of masters must be 1 or 3")
    check_lifecycle(config.lifecycle_config)
    _check_machines(config)
    for action in config.initialization_actions:
        _check_object(action.executable_file, objects)
    for bucket in filter(None, (config.config_bucket, config.temp_bucket)):
        check_bucket(bucket, objects)


def _check_machines(config: Any) -> None:
    compute, software = config.gce_cluster_config, config.software_config
    groups = (config.master_config, config.worker_config, config.secondary_worker_config)
    zone = compute.zone_uri.rpartition("/")[2] or "(auto)"
    for group in groups:
        if group.num_instances < 0:
            raise invalid("The number of instances must not be negative")
        if (uri := group.machine_type_uri) and not has_machine(uri):
            name = f"Machine type with name '{machine(uri)}'"
            raise invalid(f"{name} does not exist in zone '{zone}'.")
    if why := over_quota(sum(g.num_instances * cores(g.machine_type_uri) for g in groups)):
        raise invalid(why)
    if compute.network_uri and compute.subnetwork_uri:
        raise invalid("Only one of network_uri and subnetwork_uri can be given")
    if software.image_version and not has_image(software.image_version):
        raise invalid(f"Image version '{software.image_version}' is not supported.")
    for key in software.properties:
        prefix, colon, _ = key.partition(":")
        if not colon or not _PREFIX.fullmatch(prefix):
            raise invalid(f"Property '{key}' must be prefix:property, of a known prefix")


def _check_object(uri: str, objects: Objects) -> None:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not name:
        raise invalid(f"'{uri}' is not the URI of an object in Google Cloud Storage")
    try:
        objects.get(bucket, name)
    except GcsError as error:
        raise invalid(f"Google Cloud Storage object does not exist '{uri}'.") from error


def check_bucket(name: str, objects: Objects) -> None:
    if name not in {bucket.name for bucket in objects.buckets(name)}:
        raise invalid(f"Google Cloud Storage bucket does not exist '{name}'.")


def check_lifecycle(lifecycle: Any) -> None:
    for name, (least, most) in _TTLS.items():
        if lifecycle.HasField(name) and not least <= getattr(lifecycle, name).seconds <= most:
            raise invalid(f"{name} must be from {least} s to {most} s")


def check_job(job: Any, project: str) -> None:
    if not job.placement.cluster_name:
        raise invalid("Cluster name is required")
    if job.reference.project_id not in ("", project):
        raise invalid("Job reference's project does not match the request's")
    if job.reference.job_id and not _JOB.fullmatch(job.reference.job_id):
        raise invalid(f"Invalid job id '{job.reference.job_id}': it must match '{_JOB.pattern}'")
    check_labels(job.labels)
    kind = job.WhichOneof("type_job")
    if not kind:
        raise invalid("Job type must be set")
    if not 0 <= job.scheduling.max_failures_per_hour <= 10:
        raise invalid("max_failures_per_hour must be from 0 to 10")
    if not 0 <= job.scheduling.max_failures_total <= 240:
        raise invalid("max_failures_total must be from 0 to 240")
    check_work(getattr(job, kind), kind)


def check_batch(batch: Any, name: str) -> None:
    if not _BATCH.fullmatch(name):
        raise invalid(f"Invalid batch id '{name}': it must match '{_BATCH.pattern}'")
    check_labels(batch.labels)
    kind = batch.WhichOneof("batch_config")
    if not kind:
        raise invalid("Batch config must be set")
    runtime = batch.runtime_config
    if runtime.version and not has_runtime(runtime.version):
        raise invalid(f"Runtime version '{runtime.version}' is not supported.")
    for key in runtime.properties:
        if not key.startswith(("spark.", "dataproc.")):
            raise invalid(f"Property '{key}' must begin with 'spark.' or 'dataproc.'")
    execution = batch.environment_config.execution_config
    if execution.HasField("ttl") and not 600 <= execution.ttl.seconds <= 14 * _DAY:
        raise invalid("ttl must be from 600 s to 1209600 s")
    check_work(getattr(batch, kind), kind)


def check_work(work: Any, kind: str) -> None:
    """Check what a job and a batch have in common: what is to run."""
    if kind in ("pyspark_job", "pyspark_batch"):
        if not work.main_python_file_uri:
            raise invalid("Main python file must be set")
    elif kind in ("spark_job", "spark_batch"):
        if not (work.main_class or work.main_jar_file_uri):
            raise invalid("Either main class or main jar file must be set")
    else:
        raise RefusedError(Code.UNIMPLEMENTED, f"{kind} is not in the local Dataproc")
