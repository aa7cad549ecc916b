"""Job runs of the local EMR Serverless: what is refused, how they end, faults, tags."""

from __future__ import annotations

from pathlib import Path

import pytest
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.control import Fault

from .aws_client import make_ready, python

_CLIENT = """
from botocore.config import Config
from portaflow_conformance.emulators.endpoint import RemoteControl
emr, s3 = boto3.client("emr-serverless"), boto3.client("s3")
once = boto3.client("emr-serverless", config=Config(retries={"total_max_attempts": 1}))
def asked(**params):
    return {"applicationId": one, "executionRoleArn": "arn:aws:iam::123456789012:role/job",
            "jobDriver": {"sparkSubmit": {"entryPoint": "s3://data/sleep.py"}}, **params}
def run(**params):
    return emr.start_job_run(**asked(**params))["jobRunId"]
def job(run):
    return emr.get_job_run(applicationId=one, jobRunId=run)["jobRun"]
def state(run):
    return job(run)["state"]
def said(call, **params):
    try:
        call(**params)
    except ClientError as error:
        return f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"
    return "none"
one = emr.create_application(name="one", releaseLabel="emr-7.1.0", type="SPARK")["applicationId"]
"""
_START = "aws:emr-serverless.StartJobRun"
_SLEEP = "import sys, time; print('begun', flush=True); time.sleep(600)"


@pytest.mark.spark
def test_runs_that_are_cancelled_or_take_too_long_end_and_their_logs_are_kept(
    tmp_path: Path,
) -> None:
    make_ready()
    with emulate("aws", pace=0) as clouds:
        clouds.control.order(Fault(effect="die", operation=_START, skip=2))
        out = python(
            f"""{_CLIENT}
s3.create_bucket(Bucket="data")
s3.put_object(Bucket="data", Key="sleep.py", Body={_SLEEP!r}.encode())
s3.put_object(Bucket="data", Key="bad.py", Body=b"import sys; sys.exit(7)")
logs = {{"monitoringConfiguration": {{"s3MonitoringConfiguration": {{"logUri": "s3://data/l"}}}}}}
more = {{"configurationOverrides": logs, "executionTimeoutMinutes": 5}}
cancelled, late, died = run(**more), run(**more), run(**more)
bad = run(**more, jobDriver={{"sparkSubmit": {{"entryPoint": "s3://data/bad.py"}}}})
print(until(lambda: state(died), "FAILED"), until(lambda: state(bad), "FAILED", "SUCCESS"))
print(job(bad)["stateDetails"])
print(until(lambda: state(cancelled), "RUNNING"), until(lambda: state(late), "RUNNING"))
emr.cancel_job_run(applicationId=one, jobRunId=cancelled)
until(lambda: state(cancelled), "CANCELLED")
print(said(emr.cancel_job_run, applicationId=one, jobRunId=cancelled)[:19])
RemoteControl().jump(299)
print(state(late))
RemoteControl().jump(60)
print(until(lambda: state(late), "FAILED"), job(late)["stateDetails"])
print(job(late)["endedAt"] > job(late)["startedAt"])
for each in (cancelled, late, died, bad):
    key = f"l/applications/{{one}}/jobs/{{each}}/SPARK_DRIVER/stderr.gz"
    print(len(s3.get_object(Bucket="data", Key=key)["Body"].read()) > 0)
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "FAILED FAILED",
            "Job failed, please check complete logs in configured logging destination. "
            "ExitCode: 7.",
            "RUNNING RUNNING",
            "ValidationException",
            "RUNNING",
            "FAILED Job run exceeded executionTimeoutMinutes",
            *["True"] * 5,
        ]


def test_runs_and_applications_are_refused_as_emr_serverless_does(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{_CLIENT}
def new(**params):
    given = {{"releaseLabel": "emr-7.1.0", "type": "SPARK", **params}}
    return said(emr.create_application, **given)
for params in ({{"name": "no spaces"}}, {{"name": "x" * 65}}, {{"architecture": "RISCV"}},
               {{"releaseLabel": "emr-99.0.0"}}, {{"releaseLabel": "emr-5.30.0"}}):
    print(new(**params))
for params in ({{"executionRoleArn": "arn:aws:iam::123:role/x"}}, {{"name": " "}},
               {{"jobDriver": {{"sparkSubmit": {{"entryPoint": "s" * 5000}}}}}},
               {{"jobDriver": {{"hive": {{"query": "q.sql"}}}}}},
               {{"executionTimeoutMinutes": 4}}, {{"executionTimeoutMinutes": 1_000_001}}):
    print(said(run, **params))
print(code(emr.list_job_runs, applicationId=one, maxResults=51),
      code(emr.list_job_runs, applicationId=one, states=["GONE"]),
      code(emr.list_applications, states=["GONE"]),
      code(emr.list_applications, nextToken="none"),
      code(emr.get_job_run, applicationId=one, jobRunId="00none"))
print(len(emr.list_job_runs(applicationId=one)["jobRuns"]),
      len(emr.list_applications()["applications"]))
words = "--conf spark.executor.instances=500"
large = run(jobDriver={{"sparkSubmit": {{"entryPoint": "s3://none/none.py",
                                        "sparkSubmitParameters": words}}}})
print(until(lambda: state(large), "FAILED"), job(large)["stateDetails"])
""",
            clouds.environ(),
            tmp_path,
        )
        lines = [line.removeprefix("ValidationException: ") for line in out.splitlines()]
        one = "1 validation error detected: Value"
        must = "failed to satisfy constraint: Member must"
        assert lines[:5] == [
            f"{one} 'no spaces' at 'name' {must} satisfy regular expression pattern: "
            "[A-Za-z0-9._/#-]+",
            f"{one} '{'x' * 65}' at 'name' {must} have length less than or equal to 64",
            f"{one} 'RISCV' at 'architecture' {must} satisfy enum value set: [ARM64, X86_64]",
            "Release label 'emr-99.0.0' is not supported.",
            "Release label 'emr-5.30.0' is not supported.",
        ]
        assert lines[5].startswith(f"{one} 'arn:aws:iam::123:role/x' at 'executionRoleArn' {must}")
        assert lines[6].startswith(f"{one} ' ' at 'name' {must} satisfy regular expression")
        assert lines[7].startswith(f"{one} at 'jobDriver.sparkSubmit.entryPoint' {must} have")
        assert lines[8:11] == [
            "jobDriver.sparkSubmit.entryPoint is required for a Spark application.",
            "executionTimeoutMinutes must be 0 or at least 5.",
            f"{one} '1000001' at 'executionTimeoutMinutes' {must} have value less than or equal to "
            "1000000",
        ]
        assert lines[11:] == [
            " ".join(["ValidationException"] * 4 + ["ResourceNotFoundException"]),
            "0 1",
            "FAILED Job failed as account has reached the service limit on the maximum vCPU it can "
            "use concurrently.",
        ]


def test_lost_answers_late_lists_and_throttling(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        order = clouds.control.order
        order(Fault(effect="hang", operation=_START, skip=4, times=-1))
        faults = [
            order(Fault(effect="throttle", operation=_START)),
            order(Fault(effect="error", status=500, operation=_START)),
            order(Fault(effect="reset-before", operation=_START)),
            order(Fault(effect="reset-after", operation=_START)),
        ]
        out = python(
            f"""{_CLIENT}
from botocore.exceptions import BotoCoreError
def ask():
    try:
        return once.start_job_run(**asked(clientToken="t"))["jobRunId"]
    except ClientError as error:
        return error.response["Error"]["Code"]
    except BotoCoreError:
        return "reset"
print(*(ask() for _ in range(4)))
(begun,) = emr.list_job_runs(applicationId=one)["jobRuns"]
print(ask() == begun["id"] == ask(), len(emr.list_job_runs(applicationId=one)["jobRuns"]))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "ThrottlingException InternalServerException reset reset",
            "True 1",
        ]
        assert [fault.hit for fault in faults] == [1, 1, 1, 1]
        clouds.control.clear()
        order(Fault(effect="hide", operation=_START, seconds=1.5))
        out = python(
            f"""{_CLIENT}
new = run()
def listed():
    return len(emr.list_job_runs(applicationId=one)["jobRuns"])
print(listed(), job(new)["jobRunId"] == new)
print(until(listed, 1))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == ["0 True", "1"]


def test_what_was_asked_for_can_be_read_back_and_tagged(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        clouds.control.order(Fault(effect="hang", operation=_START, times=-1))
        out = python(
            f"""{_CLIENT}
from datetime import datetime, timedelta, timezone
sent = {{
    "initialCapacity": {{"DRIVER": {{"workerCount": 1, "workerConfiguration": {{
        "cpu": "2 vCPU", "memory": "4 GB"}}}}}},
    "maximumCapacity": {{"cpu": "10 vCPU", "memory": "100 GB"}},
    "autoStopConfiguration": {{"enabled": True, "idleTimeoutMinutes": 3}},
    "autoStartConfiguration": {{"enabled": True}}, "architecture": "ARM64",
    "networkConfiguration": {{"subnetIds": ["subnet-0a1b2c3d"], "securityGroupIds": ["sg-0a1b"]}},
    "tags": {{"owner": "x"}}}}
app = emr.create_application(name="two", releaseLabel="emr-7.1.0", type="SPARK", **sent)
told = emr.get_application(applicationId=app["applicationId"])["application"]
print({{k: told[k] for k in sent}} == sent, told["arn"] == app["arn"])
asked_run = {{
    "name": "n", "executionTimeoutMinutes": 60, "tags": {{"a": "b"}},
    "jobDriver": {{"sparkSubmit": {{
        "entryPoint": "s3://data/x.py", "entryPointArguments": ["", "a b"],
        "sparkSubmitParameters": "--conf spark.executor.cores=2"}}}},
    "configurationOverrides": {{"applicationConfiguration": [
        {{"classification": "spark-defaults", "properties": {{"k": "v"}}}}]}}}}
one_run = run(**asked_run)
told = job(one_run)
print({{k: told[k] for k in asked_run}} == asked_run, told["releaseLabel"], told["attempt"])
for arn in (app["arn"], told["arn"]):
    emr.tag_resource(resourceArn=arn, tags={{"new": "1", "gone": "2"}})
    emr.untag_resource(resourceArn=arn, tagKeys=["gone"])
    print(emr.list_tags_for_resource(resourceArn=arn)["tags"])
print(job(one_run)["tags"])
print(code(emr.list_tags_for_resource, resourceArn=app["arn"] + "0"))
emr.update_application(applicationId=app["applicationId"], architecture="X86_64")
now = datetime.now(timezone.utc)
print(emr.get_application(applicationId=app["applicationId"])["application"]["architecture"],
      len(emr.list_job_runs(applicationId=one, createdAtAfter=now)["jobRuns"]),
      len(emr.list_job_runs(applicationId=one, createdAtBefore=now)["jobRuns"]))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "True True",
            "True emr-7.1.0 1",
            "{'owner': 'x', 'new': '1'}",
            "{'a': 'b', 'new': '1'}",
            "{'a': 'b', 'new': '1'}",
            "ResourceNotFoundException",
            "X86_64 0 1",
        ]
