"""What steps and bootstrap actions of the local EMR run: jars, scripts, programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from portaflow_conformance.emulators.clouds import emulate

from .aws_client import EMR, WORDS, make_jar, make_ready, python


@pytest.fixture(scope="module")
def jar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    make_ready()
    jar = tmp_path_factory.mktemp("jar") / "words.jar"
    make_jar(jar)
    return jar


@pytest.mark.spark
def test_main_classes_of_a_jar_and_scripts_that_submit_run(tmp_path: Path, jar: Path) -> None:
    script = """#!/bin/bash
set -e
aws s3 ls s3://data/in/ >&2
spark-submit --master yarn --conf spark.sql.shuffle.partitions=2 s3://data/words.py "$1" "$2"
echo "$WHO $(aws sts get-caller-identity --query Account --output text)"
if curl -sS https://example.com/; then exit 9; fi
"""
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{EMR}
s3.create_bucket(Bucket="logs")
s3.create_bucket(Bucket="data")
s3.upload_file({str(jar)!r}, "data", "words.jar")
s3.put_object(Bucket="data", Key="words.py", Body={WORDS!r}.encode())
s3.put_object(Bucket="data", Key="run.sh", Body={script!r}.encode())
s3.put_object(Bucket="data", Key="in/a.txt", Body=b"a b a\\nb a c\\n")
jar, files = "s3://data/words.jar", ["s3://data/in/"]
runner = "s3://us-east-1.elasticmapreduce/libs/script-runner/script-runner.jar"
conf = [{{"Classification": "spark-env", "Properties": {{}}, "Configurations": [
    {{"Classification": "export", "Properties": {{"WHO": "it", "PYSPARK_PYTHON": "none"}}}}]}}]
flow = start(Configurations=conf, Steps=[
    step("spark-submit", "--class", "Words", jar, *files, "s3://data/jar"),
    step("a b", "", jar=jar, MainClass="Hello"),
    step("s3://data/run.sh", *files, "s3://data/script", jar=runner),
])
ids = [s["Id"] for s in reversed(emr.list_steps(ClusterId=flow)["Steps"])]
for each in ids:
    print(until(lambda: state(flow, each), "COMPLETED", "FAILED"),
          [line for line in log(flow, each, "stdout").split("\\n")     # PySpark may add its own
           if line.split(" ")[0] in ("counted", "hello", "it")])
    print(log(flow, each, "stderr"), file=sys.stderr)
for name in ("jar", "script"):
    print(sorted(s3.get_object(Bucket="data", Key=f"{{name}}/part-00000")["Body"].read().split()))
""",
            clouds.environ(),
            tmp_path,
        )
        counted = "[b'1', b'2', b'3', b'a', b'b', b'c']"
        assert out.splitlines() == [
            "COMPLETED ['counted 3']",
            "COMPLETED ['hello <a b,>']",
            "COMPLETED ['counted 3', 'it 123456789012']",
            *(counted, counted),
        ]
        (refused,) = clouds.control.seen("proxy:Refused")
        assert refused.params["host"] == "example.com"


@pytest.mark.spark
def test_a_main_class_runs_on_emr_serverless(tmp_path: Path, jar: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{EMR}
s3.create_bucket(Bucket="data")
s3.upload_file({str(jar)!r}, "data", "words.jar")
s3.put_object(Bucket="data", Key="in/a.txt", Body=b"a b a\\nb a c\\n")
jar, files = "s3://data/words.jar", ["s3://data/in/"]
app = serverless.create_application(releaseLabel="emr-7.1.0", type="SPARK")["applicationId"]
run = serverless.start_job_run(
    applicationId=app, executionRoleArn="arn:aws:iam::123456789012:role/job",
    jobDriver={{"sparkSubmit": {{"entryPoint": jar, "sparkSubmitParameters": "--class Words",
                               "entryPointArguments": [*files, "s3://data/serverless"]}}}})
run = run["jobRunId"]
def ran():
    return serverless.get_job_run(applicationId=app, jobRunId=run)["jobRun"]["state"]
print(until(ran, "SUCCESS", "FAILED"))
print(sorted(s3.get_object(Bucket="data", Key="serverless/part-00000")["Body"].read().split()))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == ["SUCCESS", "[b'1', b'2', b'3', b'a', b'b', b'c']"]


def test_commands_run_and_what_cannot_says_why(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{EMR}
s3.create_bucket(Bucket="logs")
flow = start(Steps=[
    step("bash", "-c", "echo $0 $HOME; echo two >&2; exit 3", "one"),
    step("hive", "-e", "select 1"),
    step("s3-dist-cp", "--src", "s3://a/", "--dest", "s3://b/"),
    step("bash", "-c", "kill -9 $$"),
    step("s3://none/none.sh", jar="s3://elasticmapreduce/libs/script-runner/script-runner.jar"),
    step(),
])
for each in [s["Id"] for s in reversed(emr.list_steps(ClusterId=flow)["Steps"])]:
    print(until(lambda: state(flow, each), "COMPLETED", "FAILED"),
          *log(flow, each, "stdout").split()[:1],
          *log(flow, each, "stderr").strip().split("\\n")[:1])
    told = emr.describe_step(ClusterId=flow, StepId=each)["Step"]["Status"]["FailureDetails"]
    print(log(flow, each, "controller").split()[-1],
          told["LogFile"] == f"s3://logs/emr/{{flow}}/steps/{{each}}/stderr.gz")
""",
            clouds.environ(),
            tmp_path,
        )
        lines = out.splitlines()
        main = 'FAILED Exception in thread "main"'
        hint = "error=2, No such file or directory; the local AWS runs spark-submit, jars, "
        hint += "scripts and programs of this machine"
        assert lines[0::2] == [
            "FAILED one two",
            f'{main} Cannot run program "hive": {hint}',
            f'{main} Cannot run program "s3-dist-cp": {hint}',
            "FAILED ",
            f"{main} Attempting to download file 's3://none/none.sh'",
            f"{main} command-runner.jar needs a command as its first argument",
        ]
        assert lines[1::2] == [f"{code} True" for code in (3, 1, 1, 137, 1, 1)]


def test_bootstrap_actions_run_before_the_cluster_does(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{EMR}
for bucket in ("logs", "data"):
    s3.create_bucket(Bucket=bucket)
s3.put_object(Bucket="data", Key="ok.sh", Body=b'echo "$1,$2"; aws s3 cp s3://data/ok.sh -; id -u')
s3.put_object(Bucket="data", Key="bad.py", Body=b'#!/usr/bin/env python3\\nexit("no way")')
s3.put_object(Bucket="data", Key="slow.sh", Body=b'echo begun; sleep 600')
def action(name, *args):
    return {{"Name": name, "ScriptBootstrapAction": {{"Path": f"s3://data/{{name}}",
                                                   "Args": list(args)}}}}
def master(flow):
    (one,) = emr.list_instances(ClusterId=flow, InstanceGroupTypes=["MASTER"])["Instances"]
    return one["Ec2InstanceId"]
def boot(flow, number, name):
    return read(f"emr/{{flow}}/node/{{master(flow)}}/bootstrap-actions/{{number}}/{{name}}.gz")
good = start(BootstrapActions=[action("ok.sh", "a b", "c")])
emr.get_waiter("cluster_running").wait(ClusterId=good, WaiterConfig=quick)
print(boot(good, 1, "stdout").split("\\n")[0], "ret val 0" in boot(good, 1, "controller"))
print("aws s3 cp" in boot(good, 1, "stdout"))
told = emr.list_bootstrap_actions(ClusterId=good)["BootstrapActions"]
print(told)
bad = start(BootstrapActions=[action("ok.sh"), action("bad.py"), action("ok.sh")],
            Steps=[step("bash", "-c", "true")])
until(lambda: state(bad), "TERMINATED_WITH_ERRORS")
why = f"On the master instance ({{master(bad)}}), bootstrap action 2 "
why += "returned a non-zero return code"
print(status(bad)["StateChangeReason"] == {{"Code": "BOOTSTRAP_FAILURE", "Message": why}})
(detail,) = status(bad)["ErrorDetails"]
print(detail["ErrorCode"], detail["ErrorData"][0]["bootstrap-action"])
print(boot(bad, 2, "stderr").strip(), "ret val 1" in boot(bad, 2, "controller"))
print(code(boot, flow=bad, number=3, name="stdout"))     # it never ran
print([s["Status"]["State"] for s in emr.list_steps(ClusterId=bad)["Steps"]])
none = start(BootstrapActions=[action("none.sh")])
until(lambda: state(none), "TERMINATED_WITH_ERRORS")
print(status(none)["StateChangeReason"]["Message"].replace(master(none), "i-"))
slow = start(BootstrapActions=[action("slow.sh")])
until(lambda: state(slow), "BOOTSTRAPPING")
emr.terminate_job_flows(JobFlowIds=[slow])
emr.get_waiter("cluster_terminated").wait(ClusterId=slow, WaiterConfig=quick)
print(status(slow)["StateChangeReason"]["Code"])
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "a b,c True",
            "True",
            "[{'Name': 'ok.sh', 'ScriptPath': 's3://data/ok.sh', 'Args': ['a b', 'c']}]",
            "True",
            "BOOTSTRAP_FAILURE_PRIMARY_WITH_NON_ZERO_CODE 2",
            "no way True",
            "NoSuchKey",
            "['CANCELLED']",
            "Master instance (i-) failed attempting to download bootstrap action 1 file from S3",
            "USER_REQUEST",
        ]
