"""Jobs on EMR as steps: started once, ended in time, their logs whole. What runs is a shell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from portaflow_aws.emr import Emr

from portaflow.backend import Cause, Handle, JobSpec, LogChunk, State, Verdict
from portaflow.errors import ConflictError, NotFoundError, UnavailableError

from .field import Field

ADD = "aws:emr.AddJobFlowSteps"


def log(field: Field, job: Handle, until: Any, text: bytes = b"") -> bytes:
    """The whole log of a job, or what it has once `text` is in it; cursors join."""
    data, cursor = b"", ""

    def read() -> bool:
        nonlocal data, cursor
        chunk = Emr(field.config).jobs.logs(job, cursor)
        data, cursor = data + chunk.data, chunk.cursor
        return chunk.end or bool(text and text in data)

    until(read)
    return data


def test_a_job_is_found_polled_and_listed_from_another_driver(field: Field) -> None:
    cluster = field.cluster()
    job = field.sh(cluster, "sleep 60")
    other = Emr(field.config).jobs
    assert other.find(job.name, cluster) == job
    assert field.wait(other, job, State.RUNNING)
    assert list(other.owned(field.owner)) == [job]
    assert list(other.owned("somebody-else")) == []
    other.stop(job)
    seen = field.wait(other, job)
    assert (seen.state, seen.reason) == (State.STOPPED, "it was asked to stop")
    other.stop(job)
    assert list(other.owned(field.owner)) == []
    assert other.find(job.name, cluster) == job


def test_one_name_is_one_job_or_a_conflict(field: Field) -> None:
    cluster = field.cluster()
    name, before = field.name(), field.control.count(ADD)
    request = field.job_request(name, cluster, "true")
    job = field.emr.jobs.start(request, cluster)
    field.wait(field.emr.jobs, job, State.SUCCEEDED)
    assert Emr(field.config).jobs.start(request, cluster) == job
    assert field.control.count(ADD) == before + 1
    sent = field.control.seen(ADD)[-1].params
    assert sent == {**request, "JobFlowId": cluster.id}  # as planned, but for its cluster's id
    with pytest.raises(ConflictError, match=name):
        field.emr.jobs.start(field.job_request(name, cluster, "false"), cluster)


def test_a_job_whose_answer_was_lost_is_adopted(field: Field) -> None:
    cluster = field.cluster()
    name, before = field.name(), field.control.count(ADD)
    field.fault("reset-after", "emr.AddJobFlowSteps")
    request = field.job_request(name, cluster, "sleep", "30")
    with pytest.raises(UnavailableError):
        field.emr.jobs.start(request, cluster)
    assert field.emr.jobs.start(request, cluster).name == name
    assert field.control.count(ADD) == before + 1


def test_a_job_that_is_not_listed_yet_is_known_all_the_same(field: Field) -> None:
    cluster = field.cluster()
    field.fault("hide", "emr.AddJobFlowSteps", seconds=5.0)
    name, before = field.name(), field.control.count(ADD)
    request = field.job_request(name, cluster, "true")
    job = field.emr.jobs.start(request, cluster)
    assert field.emr.jobs.start(request, cluster) == job
    assert field.emr.jobs.find(name, cluster) == job
    field.wait(Emr(field.config).jobs, job, State.SUCCEEDED)
    assert field.control.count(ADD) == before + 1


@pytest.mark.parametrize("effect", ["throttle", "error", "reset-before"])
def test_a_status_call_that_fails_is_no_failed_job(field: Field, effect: str) -> None:
    cluster = field.cluster()
    job = field.sh(cluster, "sleep 60")
    field.fault(effect, "emr.ListSteps")
    with pytest.raises(UnavailableError):
        field.emr.jobs.poll([job])
    assert field.wait(field.emr.jobs, job, State.RUNNING)


def test_a_job_that_fails_says_why_and_where_its_log_is(field: Field) -> None:
    job = field.sh(field.cluster(), "echo 'ValueError: no such film' >&2; exit 3")
    seen = field.wait(field.emr.jobs, job, State.FAILED)
    assert seen.cause is Cause.USER
    assert seen.reason.startswith("ValueError: no such film\nlog: s3://logs/emr/")


@pytest.mark.parametrize("effect", ["fail", "die"])
def test_a_job_that_the_provider_fails_has_failed(field: Field, effect: str) -> None:
    cluster = field.cluster()
    field.fault(effect, "emr.AddJobFlowSteps")
    job = field.sh(cluster, "sleep 60")
    assert field.wait(field.emr.jobs, job, State.FAILED).reason


def test_a_job_that_hangs_is_stopped(field: Field) -> None:
    cluster = field.cluster()
    field.fault("hang", "emr.AddJobFlowSteps")
    job = field.sh(cluster, "true")
    assert field.emr.jobs.poll([job])[job.name].state is State.PENDING  # type: ignore[union-attr]
    field.emr.jobs.stop(job)
    assert field.wait(field.emr.jobs, job).state is State.STOPPED
    assert field.emr.jobs.logs(job) == LogChunk(data=b"", cursor="", end=True)


def test_a_job_ends_when_its_time_is_over(field: Field) -> None:
    job = field.sh(field.cluster(), "sleep 60", ttl=1)
    seen = field.wait(field.emr.jobs, job)
    assert (seen.state, seen.reason) == (State.STOPPED, "its time-to-live of 1 s was over")


def test_a_stop_is_polite_first_and_hard_after_the_grace(field: Field, until: Any) -> None:
    cluster = field.cluster()
    polite = field.sh(cluster, "trap 'echo bye; exit' TERM; echo on; while :; do sleep 0.05; done")
    deaf = field.sh(cluster, "trap '' TERM; echo on; while :; do sleep 0.05; done")
    for job in (polite, deaf):
        log(field, job, until, b"on\n")
        field.emr.jobs.stop(job)
    for job in (polite, deaf):
        assert field.wait(field.emr.jobs, job).state is State.STOPPED
    assert log(field, polite, until).startswith(b"on\nbye\n")  # then what the shell says of it


def test_jobs_of_a_cluster_that_dies_are_not_the_users_fault(field: Field) -> None:
    field.fault("die", "emr.RunJobFlow")  # when its first job runs
    cluster = field.cluster()
    job = field.sh(cluster, "sleep 60")
    seen = field.wait(field.emr.jobs, job)
    assert (seen.state, seen.cause) == (State.FAILED, Cause.INFRA)
    assert "its cluster ended while it ran: The master node was terminated" in seen.reason


def test_jobs_of_a_cluster_that_is_stopped_are_stopped(field: Field) -> None:
    cluster = field.cluster()
    job = field.sh(cluster, "sleep 60")
    field.wait(field.emr.jobs, job, State.RUNNING)
    field.emr.clusters.stop(cluster)
    assert field.wait(field.emr.jobs, job).state is State.STOPPED
    field.wait(field.emr.clusters, cluster)
    with pytest.raises(NotFoundError, match="may not be modified"):
        field.sh(cluster, "true")
    assert list(field.emr.jobs.owned(field.owner)) == []


def test_a_log_is_read_while_it_grows_and_joins(field: Field, until: Any) -> None:
    script = "echo begun; echo problem >&2; sleep 3; head -c 3000000 /dev/zero | tr '\\0' x"
    job = field.sh(field.cluster(), script)
    assert b"begun" in log(field, job, until, b"begun")
    assert field.wait(field.emr.jobs, job, State.SUCCEEDED)
    whole = log(field, job, until)
    assert whole == b"begun\n" + b"x" * 3_000_000 + b"problem\n"
    sizes = [len(c.data) for c in chunks(field, job)]
    assert max(sizes) == 2**20


def chunks(field: Field, job: Handle) -> Iterator[LogChunk]:
    cursor, end = "", False
    while not end:
        chunk = field.emr.jobs.logs(job, cursor)
        yield chunk
        cursor, end = chunk.cursor, chunk.end


def test_a_job_without_a_log_says_what_to_set(field: Field) -> None:
    other = Field(field.clouds, log_uri="")
    job = other.sh(other.cluster(), "true")
    other.wait(other.emr.jobs, job, State.SUCCEEDED)
    with pytest.raises(NotFoundError, match="`log_uri`"):
        other.emr.jobs.logs(job)
    other.clear()
    lost = Field(field.clouds, log_uri="s3://nonesuch/emr")
    job = lost.sh(lost.cluster(), "true")
    lost.wait(lost.emr.jobs, job, State.SUCCEEDED)
    with pytest.raises(NotFoundError, match="s3://nonesuch/emr"):
        lost.emr.jobs.logs(job)
    lost.clear()


def test_what_emr_does_not_know_is_not_found(field: Field) -> None:
    cluster = field.cluster()
    known = field.sh(cluster, "true")
    unknown = Handle(name="pf-x", id="s-NONESUCH", parent=cluster.id)
    lost = Handle(name="pf-y", id="s-NONESUCH", parent="j-NONESUCH")
    seen = field.emr.jobs.poll([unknown, known, lost])
    assert isinstance(seen["pf-x"], NotFoundError)
    assert isinstance(seen["pf-y"], NotFoundError)
    assert not isinstance(seen[known.name], NotFoundError)
    for handle in (unknown, lost):
        field.emr.jobs.stop(handle)
    assert field.emr.jobs.find("pf-x", cluster) is None
    assert field.emr.jobs.find("pf-x", Handle(name="c", id="j-NONESUCH")) is None


def test_two_hundred_jobs_cost_four_status_calls(field: Field) -> None:
    cluster = field.cluster()
    first = field.sh(cluster, "sleep 60")
    field.wait(field.emr.jobs, first, State.RUNNING)
    request = field.job_request("pf-many-1", cluster, "true")
    (step,) = request["Steps"]
    field.fault("hang", "emr.AddJobFlowSteps")
    steps = [{**step, "Name": f"pf-many-{n}"} for n in range(199)]
    add = field.emr.clusters.aws.client("emr").add_job_flow_steps
    ids = add(JobFlowId=cluster.id, Steps=steps)["StepIds"]
    jobs = [Handle(name=f"pf-many-{n}", id=id, parent=cluster.id) for n, id in enumerate(ids)]
    before = field.control.count("aws:emr.*")
    answer = field.emr.jobs.poll([*jobs, first])
    assert {s.state for s in answer.values()} == {State.PENDING, State.RUNNING}  # type: ignore[union-attr]
    assert field.control.count("aws:emr.*") - before == 4


def test_a_request_says_all_of_a_job(field: Field) -> None:
    spec = JobSpec(
        owner="me",
        ttl=7200,
        grace=7,
        main="s3://b/main.jar",
        main_class="Main",
        args=("a b", ""),
        py_files=("s3://b/x.py", "s3://b/y.zip"),
        jars=("s3://b/z.jar",),
        packages=("a:b:1",),
        conf={"spark.x": "1, 2"},
        env={"A": "b c"},
    )
    request = field.emr.jobs.request("pf-j-1", spec, "pf-c-1")
    (step,) = request["Steps"]
    assert request["JobFlowId"] == "pf-c-1"
    assert (step["Name"], step["ActionOnFailure"]) == ("pf-j-1", "CONTINUE")
    assert step["HadoopJarStep"]["Args"] == [
        *("timeout", "--kill-after=7s", "7200s", "env", "A=b c"),
        *("spark-submit", "--deploy-mode", "client", "--name", "pf-j-1", "--class", "Main"),
        *("--py-files", "s3://b/x.py,s3://b/y.zip", "--jars", "s3://b/z.jar"),
        *("--packages", "a:b:1", "--conf", "spark.portaflow.owner=me"),
        *("--conf", "spark.executorEnv.A=b c", "--conf", "spark.x=1, 2"),
        *("s3://b/main.jar", "a b", ""),
    ]


def test_what_a_job_cannot_have_is_refused_before_anything_starts(field: Field) -> None:
    jobs = field.emr.jobs
    for conf in ({"spark.master": "local"}, {"spark.submit.deployMode": "cluster"}, {"x": "1"}):
        fit = jobs.fit(JobSpec(main="m", conf=conf))["conf"]
        assert fit.verdict is Verdict.REFUSED
        assert next(iter(conf)) in fit.reason
