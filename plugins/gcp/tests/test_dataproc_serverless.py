"""Batches of Dataproc: one name is one batch, whatever happens on the way; how each ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from portaflow_gcp.batch import BatchDriver, Config, DataprocServerless

from portaflow.backend import Cause, Handle, JobSpec, Size, State, Verdict
from portaflow.errors import (
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)

from .field import REGION, Field, batches, wait


def hanging(field: Field, **spec: Any) -> Handle:
    """A batch that waits for ever."""
    field.fault("hang", "CreateBatch")
    return field.batches.start(field.batch_request(**spec))


def test_a_batch_is_found_polled_stopped_and_listed_from_another_driver(field: Field) -> None:
    job = hanging(field)
    other = batches()
    assert other.find(job.name) == job
    assert other.poll([job])[job.name].state is State.PENDING  # type: ignore[union-attr]
    assert list(other.owned(field.owner)) == [job]
    assert list(other.owned("somebody-else")) == []
    other.stop(job)
    assert wait(other, job).state is State.STOPPED
    other.stop(job)
    assert list(other.owned(field.owner)) == []
    assert other.find(job.name) == job
    assert other.logs(job).end


def test_one_name_is_one_batch_or_a_conflict(field: Field) -> None:
    field.fault("hang", "CreateBatch")
    request = field.batch_request()
    with ThreadPoolExecutor(6) as pool:
        handles = set(pool.map(lambda _: batches().start(request), range(6)))
    assert len(handles) == 1
    assert list(field.batches.owned(field.owner)) == list(handles)
    with pytest.raises(ConflictError, match=request["batch_id"]):
        field.batches.start(field.batch_request(request["batch_id"], args=("another",)))


def test_what_was_made_though_the_answer_was_lost_is_there_once(field: Field) -> None:
    request = field.batch_request()
    field.fault("reset-after", "CreateBatch")
    with pytest.raises(UnavailableError):
        field.batches.start(request)
    job = batches().start(request)
    assert field.batches.find(job.name) == job
    assert [h for h in field.batches.owned(field.owner) if h != job] == []


def test_what_is_not_listed_yet_is_known_all_the_same(field: Field) -> None:
    field.fault("hide", "CreateBatch", seconds=500.0)
    job = field.batches.start(field.batch_request())
    assert list(batches().owned(field.owner)) == []
    assert not isinstance(batches().poll([job])[job.name], NotFoundError)
    field.batches.stop(job)
    wait(batches(), job)


@pytest.mark.parametrize("effect", ["throttle", "error", "reset-before"])
def test_a_status_call_that_fails_is_no_failed_batch(field: Field, effect: str) -> None:
    job = hanging(field)
    field.fault(effect, "ListBatches")
    with pytest.raises(UnavailableError):
        field.batches.poll([job])
    wait(field.batches, job, State.PENDING)


def test_a_batch_that_the_provider_fails_is_told_with_its_cause(field: Field) -> None:
    field.fault("fail", "CreateBatch")
    job = field.batches.start(field.batch_request())
    seen = wait(field.batches, job, State.FAILED)
    assert (seen.cause, seen.reason[:22]) == (Cause.CAPACITY, "Insufficient resources")
    before = field.control.count("gcp:dataproc.*")
    assert field.batches.poll([job])[job.name] == seen  # an end does not change: nobody is asked
    assert field.control.count("gcp:dataproc.*") == before


@pytest.mark.spark
def test_a_batch_whose_driver_dies_is_not_the_users_fault(field: Field) -> None:
    field.fault("die", "CreateBatch")
    job = field.batches.start(field.batch_request())
    seen = wait(field.batches, job, State.FAILED)
    assert (seen.cause, "driver was killed" in seen.reason) == (Cause.INFRA, True)


def test_a_batch_ends_when_its_time_is_over(field: Field) -> None:
    job = hanging(field, ttl=60)
    field.control.jump(500)
    wait(field.batches, job, State.PENDING)
    field.control.jump(101)
    assert wait(field.batches, job).state is State.STOPPED


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"runtime_version": "0.1"}, "'0.1' is not supported"),
        ({"staging_bucket": "nonesuch"}, "bucket does not exist 'nonesuch'"),
        ({"region": "mars"}, "nobody answers for region 'mars'"),
    ],
)
def test_what_dataproc_refuses_is_named_and_leaves_nothing(
    field: Field, config: Any, words: str
) -> None:
    other = batches(**config)
    spec = JobSpec(owner=field.owner, main="gs://b/main.py")
    with pytest.raises(RejectedError, match=words):
        other.start(other.request(field.name(), spec))
    assert list(field.batches.owned(field.owner)) == []


def test_who_may_not_is_told_what_to_do(field: Field) -> None:
    field.fault("deny", "CreateBatch")
    with pytest.raises(DeniedError, match="give the account a role"):
        field.batches.start(field.batch_request())


def test_what_dataproc_does_not_know_is_not_found(field: Field) -> None:
    known, unknown = hanging(field), Handle(name="pf-x", id="pf-xxxx")
    seen = field.batches.poll([unknown, known])
    assert isinstance(seen["pf-x"], NotFoundError)
    assert seen[known.name].state is State.PENDING  # type: ignore[union-attr]
    field.batches.stop(unknown)
    assert field.batches.find("pf-xxxx") is None


def test_the_doctor_looks_at_the_account_and_what_it_may(field: Field) -> None:
    backend = DataprocServerless(Config(region=REGION))
    assert [f.ok for f in backend.check()] == [True] * 3
    field.fault("deny", "ListBatches")
    found = list(backend.check())
    assert [f.ok for f in found] == [True, False, True]
    assert "roles/dataproc.editor" in found[1].fix


# -- requests: they are pure, and need no cloud


def driver(**config: Any) -> BatchDriver:
    return batches(**config)


def test_a_request_says_all_of_a_batch() -> None:
    jobs = driver(
        container_image="img", service_account="a@b", subnet="sub", network_tags=("t",),
        staging_bucket="s", labels={"team": "x"},
    )  # fmt: skip
    spec = JobSpec(
        owner="me", ttl=7200, main="gs://b/main.py", args=("a b", ""), py_files=("gs://b/x.py",),
        jars=("gs://b/z.jar",), packages=("a:b:1",), conf={"spark.x": "1, 2"}, env={"A": "b c"},
        size=Size(cpu=5, memory=20),
    )  # fmt: skip
    said = jobs.request("pf-j-1", spec)
    batch = said["batch"]
    assert (said["batch_id"], said["request_id"]) == (
        "pf-j-1",
        batch["labels"].pop("portaflow-request"),
    )
    assert batch["labels"] == {"team": "x", "portaflow-owner": "me", "portaflow-ttl": "7200"}
    assert batch["pyspark_batch"] == {
        "main_python_file_uri": "gs://b/main.py",
        "args": ["a b", ""],
        "python_file_uris": ["gs://b/x.py"],
        "jar_file_uris": ["gs://b/z.jar"],
    }
    assert batch["runtime_config"]["container_image"] == "img"
    properties = batch["runtime_config"]["properties"]
    assert properties["spark.dataproc.driverEnv.A"] == "b c"
    assert properties["spark.executorEnv.A"] == "b c"
    assert properties["spark.executor.cores"] == "8"
    assert properties["spark.jars.packages"] == "a:b:1"
    assert properties["spark.x"] == "1, 2"
    assert batch["environment_config"]["execution_config"] == {
        "ttl": {"seconds": 7200}, "service_account": "a@b", "subnetwork_uri": "sub",
        "network_tags": ["t"], "staging_bucket": "s",
    }  # fmt: skip


def test_what_a_batch_cannot_have_is_told_before_anything_starts() -> None:
    jobs = driver()
    with pytest.raises(RejectedError, match="needs a main"):
        jobs.request("pf-j-1", JobSpec())
    fits = jobs.fit(JobSpec(main="m", ttl=5, size=Size(cpu=4)))
    assert {k: f.verdict for k, f in fits.items()} == {
        "ttl": Verdict.APPROXIMATED, "size": Verdict.APPROXIMATED,
    }  # fmt: skip
    assert jobs.machines(jobs.request("pf-j-1", JobSpec(main="m"))) is None
