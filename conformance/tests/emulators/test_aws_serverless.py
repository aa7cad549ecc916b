"""The local EMR Serverless as an unmodified boto3 sees it; Spark starts once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("boto3")

from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.control import Fault

from .aws_client import WORDS, make_ready, python

_CLIENT = """
emr, s3 = boto3.client("emr-serverless"), boto3.client("s3")
ROLE = "arn:aws:iam::123456789012:role/job"
def app(**params):
    told = emr.create_application(releaseLabel="emr-7.1.0", type="SPARK", **params)
    return told["applicationId"]
def state(app):
    return emr.get_application(applicationId=app)["application"]["state"]
def run(app, entry="s3://data/none.py", *args, **params):
    driver = {"sparkSubmit": {"entryPoint": entry, "entryPointArguments": list(args),
                              "sparkSubmitParameters": "--conf spark.sql.shuffle.partitions=2 "
                              "--conf spark.emr-serverless.driverEnv.WHO='a b'"}}
    return emr.start_job_run(applicationId=app, executionRoleArn=ROLE, jobDriver=driver,
                             **params)["jobRunId"]
def job(app, run):
    return emr.get_job_run(applicationId=app, jobRunId=run)["jobRun"]
"""


@pytest.fixture(scope="module")
def spark() -> None:
    pytest.importorskip("pyspark")
    make_ready()


def test_a_word_count_runs_and_its_logs_are_where_emr_puts_them(
    tmp_path: Path, spark: None
) -> None:
    words = f"{WORDS}\nimport os\nprint('by', os.environ['WHO'])\n"
    with emulate("aws", pace=0.1) as clouds:
        out = python(
            f"""{_CLIENT}
s3.create_bucket(Bucket="data")
s3.put_object(Bucket="data", Key="words.py", Body={words!r}.encode())
s3.put_object(Bucket="data", Key="in/a.txt", Body=b"a b a\\nb a c\\n")
one = app(name="words")
logs = {{"monitoringConfiguration": {{"s3MonitoringConfiguration": {{"logUri": "s3://data/l/"}}}}}}
first = run(one, "s3://data/words.py", "s3://data/in/", "s3://data/out", name="count",
            configurationOverrides=logs)
print(until(lambda: job(one, first)["state"], "SUCCESS", "FAILED", "CANCELLED"), state(one))
for name in ("stderr", "stdout"):
    key = f"l/applications/{{one}}/jobs/{{first}}/SPARK_DRIVER/{{name}}.gz"
    log = gzip.decompress(s3.get_object(Bucket="data", Key=key)["Body"].read()).decode()
    print(log, file=sys.stderr if name == "stderr" else sys.stdout)
(part,) = [o["Key"] for o in s3.list_objects_v2(Bucket="data", Prefix="out/part")["Contents"]]
print(sorted(s3.get_object(Bucket="data", Key=part)["Body"].read().decode().split("\\n")))
told = job(one, first)
print(told["startedAt"] <= told["endedAt"], told["name"], told["createdBy"])
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "SUCCESS STARTED",
            "counted 3",
            "by a b",
            "",
            "['', 'a 3', 'b 2', 'c 1']",
            f"True count arn:aws:iam::123456789012:user/{clouds.env['AWS_ACCESS_KEY_ID']}",
        ]
        (started,) = clouds.control.seen("aws:emr-serverless.StartJobRun")
        assert started.params["name"] == "count"


def test_states_tokens_pages_and_errors_are_those_of_aws(tmp_path: Path) -> None:
    with emulate("aws", pace=0.1) as clouds:
        order = clouds.control.order
        order(Fault(effect="hang", operation="aws:emr-serverless.StartJobRun", times=3))
        lost = order(Fault(effect="reset-after", operation="aws:emr-serverless.CreateApplication"))
        order(Fault(effect="throttle", operation="aws:emr-serverless.ListApplications", times=2))
        out = python(
            f"""{_CLIENT}
one = app(name="one", clientToken="t")   # the answer is lost, and the client asks again
print(app(name="one", clientToken="t") == one)
print(code(emr.create_application, name="two", releaseLabel="emr-7.1.0", type="SPARK",
           clientToken="t"))
print([a["name"] for a in emr.list_applications()["applications"]])
until(lambda: state(one), "CREATED")
runs = [run(one, clientToken="a"), run(one), run(one)]
print(run(one, clientToken="a") == runs[0])
pages = emr.get_paginator("list_job_runs").paginate(
    applicationId=one, PaginationConfig={{"PageSize": 2}})
pages = [[r["id"] for r in page["jobRuns"]] for page in pages]
print(list(map(len, pages)), sum(pages, []) == runs[::-1])
until(lambda: state(one), "STARTED")
print(code(emr.stop_application, applicationId=one))
print(code(emr.delete_application, applicationId=one))
for each in runs:
    emr.cancel_job_run(applicationId=one, jobRunId=each)
    until(lambda: job(one, each)["state"], "CANCELLED")
print(len(emr.list_job_runs(applicationId=one, states=["CANCELLED"])["jobRuns"]),
      len(emr.list_job_runs(applicationId=one, states=["RUNNING", "FAILED"])["jobRuns"]))
emr.stop_application(applicationId=one)
until(lambda: state(one), "STOPPED")
emr.delete_application(applicationId=one)
print(state(one), code(run, app=one))
print(code(emr.get_application, applicationId="00none"))
print(code(boto3.client("emr-serverless", "eu-west-1").get_application, applicationId=one))
print(code(app, autoStartConfiguration={{"enabled": False}}))
print(code(emr.get_dashboard_for_job_run, applicationId=one, jobRunId=runs[0]))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "True",
            "ConflictException",
            "['one']",
            "True",
            "[2, 1] True",
            "ValidationException",
            "ValidationException",
            "3 0",
            "TERMINATED ValidationException",
            "ResourceNotFoundException",
            "ResourceNotFoundException",
            "none",
            "NotImplemented",
        ]
        assert lost.hit == 1
        assert clouds.control.count("aws:emr-serverless.ListApplications") == 3


def test_an_idle_application_stops_and_faults_strike_what_is_begun(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        order = clouds.control.order
        order(Fault(effect="fail", operation="aws:emr-serverless.StartJobRun"))
        create = "aws:emr-serverless.CreateApplication"
        order(Fault(effect="fail", operation=create, skip=1))
        order(Fault(effect="hide", operation=create, skip=1, seconds=600))
        out = python(
            f"""{_CLIENT}
from portaflow_conformance.emulators.endpoint import RemoteControl
one = app(name="one")
run = run(one)
print(until(lambda: job(one, run)["state"], "FAILED"), job(one, run)["stateDetails"])
RemoteControl().jump(14 * 60)
print(state(one))
RemoteControl().jump(2 * 60)
print(until(lambda: state(one), "STOPPED"))
two = app()
print(until(lambda: state(two), "TERMINATED"))
three = app()
print(len(emr.list_applications()["applications"]), until(lambda: state(three), "CREATED"))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "FAILED a fault on order",
            "STARTED",
            "STOPPED",
            "TERMINATED",
            "2 CREATED",
        ]
