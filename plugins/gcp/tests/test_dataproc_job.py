"""Jobs on Dataproc: started once, told as they are, their logs whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_gcp import output
from portaflow_gcp.dataproc import Config, Dataproc
from portaflow_gcp.job import _verdict

from portaflow.backend import Cause, Handle, JobSpec, Size, State
from portaflow.errors import (
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)

from .field import REGION, Field, gone, wait


def test_a_job_is_found_polled_stopped_and_listed_from_another_driver(field: Field) -> None:
    cluster = field.cluster()
    job = field.hanging(cluster)
    other = Dataproc(field.config).jobs
    assert other.find(job.name, cluster) == job
    assert other.find(job.name, Handle(name="c", id="another")) is None
    assert other.poll([job])[job.name].state is State.PENDING  # type: ignore[union-attr]
    assert list(other.owned(field.owner)) == [job]
    assert list(other.owned("somebody-else")) == []
    other.stop(job)
    assert wait(other, job).state is State.STOPPED
    other.stop(job)
    assert list(other.owned(field.owner)) == []
    assert other.find(job.name, cluster) == job
    assert other.logs(job).end


def test_one_name_is_one_job_or_a_conflict(field: Field) -> None:
    cluster = field.cluster()
    field.fault("hang", "SubmitJob")
    request = field.job_request(cluster)
    with ThreadPoolExecutor(6) as pool:
        start = lambda _: Dataproc(field.config).jobs.start(request, cluster)  # noqa: E731
        handles = set(pool.map(start, range(6)))
    assert len(handles) == 1
    assert list(field.jobs.owned(field.owner)) == list(handles)
    name = request["job"]["reference"]["job_id"]
    with pytest.raises(ConflictError, match=name):
        field.jobs.start(field.job_request(cluster, name, args=("another",)), cluster)


def test_what_was_made_though_the_answer_was_lost_is_there_once(field: Field) -> None:
    cluster = field.cluster()
    request = field.job_request(cluster)
    field.fault("reset-after", "SubmitJob")
    with pytest.raises(UnavailableError):
        field.jobs.start(request, cluster)
    job = Dataproc(field.config).jobs.start(request, cluster)
    assert field.jobs.find(job.name, cluster) == job


def test_a_job_that_is_not_listed_yet_is_known_all_the_same(field: Field) -> None:
    cluster = field.cluster()
    field.fault("hide", "SubmitJob", seconds=500.0)
    request = field.job_request(cluster)
    job = field.jobs.start(request, cluster)
    other = Dataproc(field.config).jobs
    assert list(other.owned(field.owner)) == []
    assert other.start(request, cluster) == job
    assert not isinstance(other.poll([job])[job.name], NotFoundError)


@pytest.mark.parametrize("effect", ["throttle", "error", "reset-before"])
def test_a_status_call_that_fails_is_no_failed_job(field: Field, effect: str) -> None:
    job = field.hanging(field.cluster())
    field.fault(effect, "ListJobs")
    with pytest.raises(UnavailableError):
        field.jobs.poll([job])
    wait(field.jobs, job, State.PENDING)


def test_a_job_that_the_provider_fails_is_not_the_users_fault(field: Field) -> None:
    cluster = field.cluster()
    field.fault("fail", "SubmitJob")
    job = field.jobs.start(field.job_request(cluster), cluster)
    seen = wait(field.jobs, job, State.FAILED)
    assert (seen.cause, "not acquired" in seen.reason) == (Cause.INFRA, True)


@pytest.mark.spark
def test_a_job_whose_file_is_not_there_is_the_users_fault_and_says_where_its_log_is(
    field: Field,
) -> None:
    cluster = field.cluster()
    job = field.jobs.start(field.job_request(cluster), cluster)
    seen = wait(field.jobs, job, State.FAILED)
    assert (seen.cause, "driveroutput" in seen.reason) == (Cause.USER, True)


def test_who_may_not_is_told_what_to_do(field: Field) -> None:
    cluster = field.cluster()
    field.fault("deny", "SubmitJob")
    with pytest.raises(DeniedError, match="give the account a role"):
        field.jobs.start(field.job_request(cluster), cluster)


def test_a_cluster_that_is_gone_takes_no_job(field: Field) -> None:
    cluster = field.cluster()
    waiting = field.hanging(cluster)
    field.clusters.stop(cluster)
    with pytest.raises(NotFoundError, match=cluster.name):
        field.jobs.start(field.job_request(cluster), cluster)
    gone(field.clusters, cluster)
    with pytest.raises(NotFoundError, match=cluster.name):
        field.jobs.start(field.job_request(cluster), cluster)
    seen = wait(field.jobs, waiting)
    assert (seen.state, seen.cause) == (State.FAILED, Cause.INFRA)
    with pytest.raises(NotFoundError, match="needs a cluster"):
        field.jobs.start(field.job_request(cluster))


def test_what_dataproc_does_not_know_is_not_found(field: Field) -> None:
    known = field.hanging(field.cluster())
    unknown = Handle(name="pf-x", id="pf-x", parent="pf-nonesuch")
    seen = field.jobs.poll([unknown, known])
    assert isinstance(seen["pf-x"], NotFoundError)
    assert seen[known.name].state is State.PENDING  # type: ignore[union-attr]
    field.jobs.stop(unknown)
    assert field.jobs.find("pf-x") is None
    with pytest.raises(NotFoundError, match="pf-x"):
        field.jobs.logs(unknown)


def test_many_jobs_of_a_cluster_cost_one_list_call(field: Field) -> None:
    cluster = field.cluster()
    field.fault("hang", "SubmitJob", times=30)
    requests = [field.job_request(cluster) for _ in range(30)]
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda request: field.jobs.start(request, cluster), requests))
    before = field.control.count("gcp:dataproc.*")
    assert len(field.jobs.poll(jobs)) == 30
    assert field.control.count("gcp:dataproc.*") == before + 1


@pytest.mark.parametrize(
    ("details", "cause"),
    [
        ("Google Cloud Dataproc Agent reports job failure (exit code 1).", Cause.USER),
        ("Task was not acquired", Cause.INFRA),
        ("Cluster pf-c-1 was deleted.", Cause.INFRA),
    ],
)
def test_who_is_to_blame_is_told_by_the_reason(details: str, cause: Cause) -> None:
    status = SimpleNamespace(state=SimpleNamespace(name="ERROR"), details=details)
    work = SimpleNamespace(main_python_file_uri="gs://b/main.py")
    assert _verdict(SimpleNamespace(status=status, pyspark_job=work)).cause is cause


# -- logs


def put(uri: str, data: bytes) -> None:
    from google.cloud import storage

    bucket, _, key = uri.removeprefix("gs://").partition("/")
    storage.Client().bucket(bucket).blob(key).upload_from_string(data)


def test_a_log_has_no_gap_and_no_repeat_while_it_grows(cloud: Clouds) -> None:
    from google.cloud import storage

    bucket = f"logs-{uuid4().hex[:8]}"
    storage.Client().create_bucket(bucket)
    config, uri = Config(region=REGION), f"gs://{bucket}/a/driveroutput"
    data, cursor = b"", ""

    def more(ended: bool) -> bool:
        nonlocal data, cursor
        chunk = output.read(config, uri, cursor, ended)
        data, cursor = data + chunk.data, chunk.cursor
        return chunk.end

    assert not more(False)
    put(f"{uri}.000000000", b"one\n")
    assert not more(False)
    assert data == b"one\n"
    put(f"{uri}.000000000", b"one\ntwo\n")  # it is put anew while it grows
    put(f"{uri}.000000001", b"three\n")
    put(f"{uri}2.000000000", b"of another job")
    assert not more(False)
    assert data == b"one\ntwo\nthree\n"
    put(f"{uri}.000000001", b"three\nfour\n")
    while not more(True):
        pass
    assert data == b"one\ntwo\nthree\nfour\n"


def test_a_long_log_comes_in_pieces(cloud: Clouds) -> None:
    from google.cloud import storage

    bucket = f"logs-{uuid4().hex[:8]}"
    storage.Client().create_bucket(bucket)
    uri, whole = f"gs://{bucket}/a/driveroutput", bytes(range(256)) * 4096
    for n in range(3):
        put(f"{uri}.{n:09}", whole)
    pieces, cursor, end = [], "", False
    while not end:
        chunk = output.read(Config(region=REGION), uri, cursor, True)
        pieces.append(chunk.data)
        cursor, end = chunk.cursor, chunk.end
    assert b"".join(pieces) == whole * 3
    assert max(map(len, pieces)) == 2**20


def test_a_log_whose_bucket_is_gone_is_told(cloud: Clouds) -> None:
    with pytest.raises((NotFoundError, UnavailableError), match="gs://nonesuch/x"):
        output.read(Config(region=REGION), "gs://nonesuch/x", "", True)


# -- requests: they are pure, and need no cloud


def request(spec: JobSpec) -> Any:
    return Dataproc(Config(region=REGION)).jobs.request("pf-j-1", spec, "pf-c-1")


def test_a_request_says_all_of_a_job() -> None:
    said = request(
        JobSpec(
            owner="me", ttl=7200, main="gs://b/main.py", args=("a b", ""),
            py_files=("gs://b/x.py",), jars=("gs://b/z.jar",), packages=("a:b:1", "c:d:2"),
            conf={"spark.x": "1, 2"}, env={"A": "b c"}, size=Size(cpu=2, memory=8),
        )
    )  # fmt: skip
    labels = said["job"]["labels"]
    assert said["request_id"] == labels.pop("portaflow-request")
    assert labels == {"portaflow-owner": "me", "portaflow-ttl": "7200"}
    assert said["job"]["reference"] == {"job_id": "pf-j-1"}
    assert said["job"]["placement"] == {"cluster_name": "pf-c-1"}
    assert said["job"]["pyspark_job"] == {
        "main_python_file_uri": "gs://b/main.py",
        "args": ["a b", ""],
        "python_file_uris": ["gs://b/x.py"],
        "jar_file_uris": ["gs://b/z.jar"],
        "properties": {
            "spark.submit.deployMode": "cluster",
            "spark.yarn.appMasterEnv.A": "b c",
            "spark.executorEnv.A": "b c",
            "spark.executor.cores": "2",
            "spark.executor.memory": "7447m",
            "spark.x": "1, 2",
            "spark.jars.packages": "a:b:1,c:d:2",
        },
    }


def test_a_jar_is_run_by_its_class_or_by_its_manifest() -> None:
    jar = JobSpec(main="gs://b/m.jar", jars=("gs://b/z.jar",))
    assert request(jar)["job"]["spark_job"]["main_jar_file_uri"] == "gs://b/m.jar"
    by_class = JobSpec(main="gs://b/m.jar", main_class="Main", jars=("gs://b/z.jar",))
    said = request(by_class)["job"]["spark_job"]
    assert (said["main_class"], said["jar_file_uris"]) == ("Main", ["gs://b/m.jar", "gs://b/z.jar"])


def test_what_a_job_cannot_have_is_refused_before_anything_starts() -> None:
    jobs = Dataproc(Config(region=REGION)).jobs
    with pytest.raises(RejectedError, match="needs a main"):
        request(JobSpec())
    assert "ends its cluster" in jobs.fit(JobSpec(main="m"))["ttl"].reason
    assert jobs.machines(request(JobSpec(main="m"))) == ()
