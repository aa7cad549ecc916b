"""Jobs of EMR Serverless: started once, in an application that is there once; how each ends."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from portaflow_aws.serverless import Config, EmrServerless
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

from portaflow.backend import Cause, Handle, JobSpec, Request, Size, State, Verdict
from portaflow.errors import ConflictError, NotFoundError, RejectedError, UnavailableError

from .field import wait

START, CREATE = "aws:emr-serverless.StartJobRun", "aws:emr-serverless.CreateApplication"
ROLE = "arn:aws:iam::123456789012:role/job"


class Place:
    """An application that belongs to one test alone, not made yet; nothing runs after it."""

    def __init__(self, clouds: Clouds, **config: Any) -> None:
        self.control = clouds.control
        self.owner = f"o-{uuid4().hex[:8]}"
        defaults = {"execution_role": ROLE, "log_uri": "s3://logs/sls"}
        self.config = Config(**{**defaults, "tags": {"test": self.owner}, **config})
        self.jobs = EmrServerless(self.config).jobs

    def other(self) -> Any:
        return EmrServerless(self.config).jobs

    def name(self) -> str:
        return f"pf-{uuid4().hex[:12]}-1"

    def request(self, name: str = "", **spec: Any) -> Request:
        full = {"owner": self.owner, "main": "s3://code/main.py", **spec}
        return self.jobs.request(name or self.name(), JobSpec(**full))

    def fault(self, effect: Any, operation: str, **more: Any) -> None:
        self.control.order(Fault(effect=effect, operation=operation, **more))

    def hanging(self) -> Handle:
        """A job that waits for ever."""
        self.fault("hang", START)
        return self.jobs.start(self.request())

    def clear(self) -> None:
        self.control.clear()
        for handle in list(self.jobs.owned(self.owner)):
            self.jobs.stop(handle)
            wait(self.jobs, handle)
        assert list(self.jobs.owned(self.owner)) == []


@pytest.fixture
def place(clouds: Clouds) -> Iterator[Place]:
    one = Place(clouds)
    yield one
    one.clear()


def test_a_job_is_found_polled_and_stopped_from_another_driver(place: Place) -> None:
    assert place.jobs.find("pf-x") is None  # there is not even an application
    job = place.hanging()
    other = place.other()
    assert other.find(job.name) == job
    assert other.poll([job])[job.name].state is State.PENDING
    assert list(other.owned(place.owner)) == [job]
    assert list(other.owned("somebody-else")) == []
    other.stop(job)
    seen = wait(other, job)
    assert (seen.state, seen.reason) == (State.STOPPED, "it was asked to stop")
    other.stop(job)
    assert other.find(job.name) == job
    assert other.logs(job).end


def test_what_is_planned_is_what_is_sent(place: Place) -> None:
    place.fault("hang", START)
    request = dict(place.request(args=("a b",), conf={"spark.x": "1"}))
    job = place.jobs.start(request)
    application = request.pop("application")
    made = place.control.seen(CREATE)[-1].params
    assert {k: v for k, v in made.items() if k != "clientToken"} == application
    assert place.control.seen(START)[-1].params == {**request, "applicationId": job.parent}


def test_six_that_start_one_job_have_one_job_in_one_application(place: Place) -> None:
    made = place.control.count(CREATE)
    place.fault("hang", START)
    request = place.request()
    with ThreadPoolExecutor(6) as pool:
        handles = list(pool.map(lambda _: place.other().start(request), range(6)))
    assert len(set(handles)) == 1
    assert place.control.count(CREATE) - made <= 6
    assert len(place.jobs.applications.ours()) == len(set(place.jobs.applications.ours()))
    with pytest.raises(ConflictError, match=request["name"]):
        place.jobs.start(place.request(request["name"], args=("another",)))


def test_what_was_made_though_the_answer_was_lost_is_there_once(place: Place) -> None:
    place.fault("reset-after", CREATE)
    place.fault("reset-after", START)
    request = place.request()
    for _ in range(2):
        with pytest.raises(UnavailableError):
            place.jobs.start(request)
    job = place.jobs.start(request)
    names = [a["name"] for a in place.jobs.applications.client.list_applications()["applications"]]
    assert names.count(request["application"]["name"]) == 1
    runs = place.jobs.applications.client.list_job_runs(applicationId=job.parent)["jobRuns"]
    assert [run["name"] for run in runs] == [job.name]


def test_a_job_that_is_not_listed_yet_is_known_all_the_same(place: Place) -> None:
    place.hanging()
    place.fault("hide", START, seconds=5.0)
    request = place.request()
    job = place.jobs.start(request)
    assert place.other().start(request) == job
    assert place.other().find(job.name) == job
    assert not isinstance(place.other().poll([job])[job.name], NotFoundError)


@pytest.mark.parametrize("effect", ["throttle", "error", "reset-before"])
def test_a_status_call_that_fails_is_no_failed_job(place: Place, effect: str) -> None:
    job = place.hanging()
    place.fault(effect, "aws:emr-serverless.ListJobRuns")
    with pytest.raises(UnavailableError):
        place.jobs.poll([job])
    assert place.jobs.poll([job])[job.name].state is State.PENDING  # type: ignore[union-attr]


@pytest.mark.parametrize("effect", ["fail", "die"])
def test_a_job_that_the_provider_fails_has_failed(place: Place, effect: str) -> None:
    place.fault(effect, START)
    seen = wait(place.jobs, place.jobs.start(place.request()), State.FAILED)
    assert seen.reason == "a fault on order"


def test_an_application_that_dies_fails_its_job_and_is_made_anew(place: Place) -> None:
    place.fault("die", CREATE)
    seen = wait(place.jobs, place.jobs.start(place.request()), State.FAILED)
    assert seen.cause is Cause.INFRA
    assert "application was terminated" in seen.reason
    place.fault("hang", START)
    again = place.jobs.start(place.request())
    assert place.jobs.poll([again])[again.name].state is State.PENDING  # type: ignore[union-attr]


def test_what_is_wrong_with_the_target_is_named(clouds: Clouds, place: Place) -> None:
    wrong = Place(clouds, execution_role="nonesuch")
    with pytest.raises(RejectedError, match="executionRoleArn"):
        wrong.jobs.start(wrong.request())
    gone = Place(clouds, application="00nonesuch")
    with pytest.raises(NotFoundError, match="00nonesuch"):
        gone.jobs.start(gone.request())
    assert gone.jobs.find("pf-x") is None
    old = Place(clouds, release="emr-0.1")
    with pytest.raises(RejectedError, match=r"emr-0\.1"):
        old.jobs.start(old.request())
    silent = Place(clouds, log_uri="")
    job = silent.hanging()
    with pytest.raises(NotFoundError, match="`log_uri`"):
        silent.jobs.logs(job)
    silent.clear()


def test_what_is_not_known_is_not_found(place: Place) -> None:
    known = place.hanging()
    unknown = Handle(name="pf-x", id="00nonesuch", parent=known.parent)
    lost = Handle(name="pf-y", id="00nonesuch", parent="00nonesuch")
    seen = place.jobs.poll([unknown, known, lost])
    assert isinstance(seen["pf-x"], NotFoundError)
    assert isinstance(seen["pf-y"], NotFoundError)
    assert not isinstance(seen[known.name], NotFoundError)
    for handle in (unknown, lost):
        place.jobs.stop(handle)


def test_many_jobs_cost_a_list_call_for_each_fifty(place: Place) -> None:
    place.fault("hang", START, times=-1)
    jobs = [place.jobs.start(place.request()) for _ in range(60)]
    before = place.control.count("aws:emr-serverless.*")
    answer = place.other().poll(jobs)
    assert {s.state for s in answer.values()} == {State.PENDING}
    assert place.control.count("aws:emr-serverless.*") - before == 2


SECRET = """
import os
from pyspark.sql import SparkSession
spark = SparkSession.builder.getOrCreate()
seen = spark.sparkContext.parallelize([0], 1).map(lambda _: os.environ["TOKEN"]).collect()
print("driver", len(os.environ["TOKEN"]), "executor", len(seen[0]), os.environ["PLAIN"])
"""


@pytest.mark.spark
def test_a_secret_reaches_driver_and_executors_and_no_request(place: Place) -> None:
    aws = place.jobs.applications.aws
    aws.client("secretsmanager").create_secret(Name="token", SecretString="hunter2-hunter2")
    aws.client("s3").put_object(Bucket="logs", Key="secret.py", Body=SECRET.encode())
    spec = {"secrets": {"TOKEN": "token"}, "env": {"PLAIN": "a b, 'c'"}}
    request = place.request(main="s3://logs/secret.py", **spec)
    assert "hunter2" not in repr(request)
    job = place.jobs.start(request)
    wait(place.jobs, job, State.SUCCEEDED)
    data, cursor, end = b"", "", False
    while not end:
        chunk = place.jobs.logs(job, cursor)
        data, cursor, end = data + chunk.data, chunk.cursor, chunk.end
    assert b"driver 15 executor 15 a b, 'c'" in data
    assert b"hunter2" not in data
    lost = place.jobs.start(place.request(secrets={"TOKEN": "nonesuch"}))
    seen = wait(place.jobs, lost, State.FAILED)
    assert seen.cause is Cause.DENIED
    assert "the secret nonesuch.; make it with `aws secretsmanager create-secret`" in seen.reason


def test_a_request_says_all_of_a_job_and_of_its_application(clouds: Clouds) -> None:
    place = Place(clouds, subnets=("subnet-1",), security_groups=("sg-1",), tags={"team": "a"})
    spec = {"ttl": 7201, "grace": 20, "main": "s3://b/main.jar", "main_class": "Main"}
    spec |= {"args": ("a b", ""), "jars": ("s3://b/z.jar",), "packages": ("a:b:1",)}
    spec |= {"py_files": ("s3://b/x.py", "s3://b/y.zip"), "conf": {"spark.x": "1, 2"}}
    request = place.request("pf-j-1", **spec, size=Size(cpu=3, memory=9.5, disk=50))
    name = request["application"].pop("name")
    assert name.startswith("portaflow-")
    assert request["application"] == {
        "releaseLabel": "emr-7.13.0",
        "type": "SPARK",
        "tags": {"team": "a"},
        "networkConfiguration": {"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"]},
    }
    assert request["name"] == request["clientToken"] == "pf-j-1"
    assert request["executionTimeoutMinutes"] == 121
    tags = {"team": "a", "portaflow.owner": place.owner}
    assert request["tags"] == {**tags, "portaflow.ttl": "7201", "portaflow.grace": "20"}
    assert request["jobDriver"]["sparkSubmit"] == {
        "entryPoint": "s3://b/main.jar",
        "entryPointArguments": ["a b", ""],
        "sparkSubmitParameters": "--class Main --py-files s3://b/x.py,s3://b/y.zip "
        "--jars s3://b/z.jar --packages a:b:1",
    }
    overrides = request["configurationOverrides"]
    (defaults,) = overrides["applicationConfiguration"]
    assert defaults["properties"] == {
        **{f"spark.{role}.cores": "4" for role in ("driver", "executor")},
        **{f"spark.{role}.memory": "9309m" for role in ("driver", "executor")},
        **{f"spark.emr-serverless.{role}.disk": "50g" for role in ("driver", "executor")},
        "spark.x": "1, 2",
    }
    assert overrides["monitoringConfiguration"]["s3MonitoringConfiguration"] == {
        "logUri": "s3://logs/sls"
    }


@pytest.mark.parametrize(
    ("spec", "field", "verdict"),
    [
        ({"size": Size(gpu=1)}, "size", Verdict.REFUSED),
        ({"size": Size(cpu=17)}, "size", Verdict.REFUSED),
        ({"size": Size(cpu=2, memory=4)}, "size", Verdict.APPROXIMATED),
        ({"ttl": 7200}, "ttl", None),
        ({"ttl": 60}, "ttl", Verdict.APPROXIMATED),
        ({"grace": 10}, "grace", Verdict.APPROXIMATED),
        ({"grace": 0}, "grace", None),
        ({"packages": ("a:b:1",)}, "packages", Verdict.APPROXIMATED),
        ({"conf": {"spark.master": "x"}}, "conf", Verdict.REFUSED),
        ({"conf": {"x": "1"}}, "conf", Verdict.REFUSED),
    ],
)
def test_what_is_not_simply_honoured_is_said(
    place: Place, spec: Any, field: str, verdict: Verdict | None
) -> None:
    fit = place.jobs.fit(JobSpec(**{"main": "m", **spec})).get(field)
    assert (fit and fit.verdict) == verdict


def test_words_that_would_fall_apart_are_refused(place: Place) -> None:
    with pytest.raises(RejectedError, match="no spaces"):
        place.request(jars=("s3://b/a b.jar",))
