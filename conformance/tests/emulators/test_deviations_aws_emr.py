"""The known deviations of the local EMR and EMR Serverless: each fails when it has disappeared."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.spark import local

from .aws_client import EMR, make_ready, python

Client = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with emulate("aws", pace=0) as clouds:
        made = 's3.create_bucket(Bucket="logs")\ns3.create_bucket(Bucket="data")\n'
        with tempfile.TemporaryDirectory() as folder:
            python(EMR + made, clouds.environ(), Path(folder))
        yield clouds


@pytest.fixture
def client(clouds: Clouds, tmp_path: Path) -> Client:
    """The lines that an unmodified client prints."""
    return lambda code: python(EMR + code, clouds.environ(), tmp_path).splitlines()


def test_deviation_emr_steps_here(client: Client) -> None:
    told = client(
        """
flow = start(Steps=[step("bash", "-c", "id -u; uname -n")])
(one,) = emr.list_steps(ClusterId=flow)["Steps"]
until(lambda: state(flow, one["Id"]), "COMPLETED")
print(log(flow, one["Id"], "stdout"))
"""
    )
    assert told[:2] == [str(os.getuid()), os.uname().nodename]
    assert local(["--master", "yarn", "job.py"])[:2] == ["--master", "local[2]"]


def test_deviation_emr_bootstrap_once(client: Client) -> None:
    told = client(
        """
s3.put_object(Bucket="data", Key="ok.sh", Body=b"true")
action = {"Name": "ok", "ScriptBootstrapAction": {"Path": "s3://data/ok.sh"}}
flow = start(BootstrapActions=[action], Instances={
    "InstanceCount": 3, "MasterInstanceType": "m5.xlarge", "SlaveInstanceType": "m5.xlarge",
    "KeepJobFlowAliveWhenNoSteps": True})
until(lambda: state(flow), "WAITING")
keys = s3.list_objects_v2(Bucket="logs", Prefix=f"emr/{flow}/node/")["Contents"]
print(len({o["Key"].split("/")[3] for o in keys}), len(emr.list_instances(
    ClusterId=flow)["Instances"]))
"""
    )
    assert told == ["1 3"]


def test_deviation_emr_commands(client: Client) -> None:
    told = client(
        """
key = {"Properties": [{"Key": "k", "Value": "v"}]}
flow = start(Steps=[step(*words) for words in (
    ("hive", "-e", "select 1"), ("pig-script", "s3://a/b"), ("hadoop", "fs", "-ls", "/"),
    ("s3-dist-cp", "--src", "s3://a/", "--dest", "s3://b/"))]
    + [step("x", jar="s3://data/x.jar", **key)])
for one in reversed(emr.list_steps(ClusterId=flow)["Steps"]):
    print(until(lambda: state(flow, one["Id"]), "FAILED"))
    print(emr.describe_step(ClusterId=flow, StepId=one["Id"])["Step"]["Status"]["FailureDetails"]
          ["Message"].endswith("the local AWS runs spark-submit, jars, scripts and programs of "
                               "this machine"))
"""
    )
    assert told == ["FAILED", "True"] * 5


def test_deviation_emr_versions(client: Client) -> None:
    told = client(
        """
flow = start(Applications=[{"Name": "Spark"}])
print(emr.describe_cluster(ClusterId=flow)["Cluster"]["Applications"])
"""
    )
    assert told == ["[{'Name': 'Spark'}]"]


def test_deviation_emr_scaling(client: Client) -> None:
    told = client(
        """
limits = {"UnitType": "Instances", "MinimumCapacityUnits": 5, "MaximumCapacityUnits": 9}
flow = start(ManagedScalingPolicy={"ComputeLimits": limits})
until(lambda: state(flow), "WAITING")
print(len(emr.list_instances(ClusterId=flow)["Instances"]))
"""
    )
    assert told == ["1"]


def test_deviation_emr_quota(client: Client) -> None:
    told = client(
        """
def of(count):
    group = {"InstanceRole": "CORE", "InstanceType": "m5.24xlarge", "InstanceCount": count}
    master = {"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1}
    return start(Instances={"InstanceGroups": [master, group], "KeepJobFlowAliveWhenNoSteps": True})
for flow in (of(15), of(15), of(25)):
    print(until(lambda: state(flow), "WAITING", "TERMINATED_WITH_ERRORS"))
"""
    )
    assert told == ["WAITING", "WAITING", "TERMINATED_WITH_ERRORS"]


def test_deviation_emr_network(client: Client) -> None:
    told = client(
        """
flow = start(JobFlowRole="nobody", CustomAmiId="ami-00000000", Instances={
    **nodes, "Ec2SubnetId": "subnet-00000000", "Ec2KeyName": "none",
    "EmrManagedMasterSecurityGroup": "sg-00000000"})
print(until(lambda: state(flow), "WAITING", "TERMINATED_WITH_ERRORS"))
"""
    )
    assert told == ["WAITING"]


def test_deviation_emr_logs(client: Client) -> None:
    told = client(
        """
flow = start(Steps=[step("bash", "-c", "echo begun; sleep 600")])
(one,) = emr.list_steps(ClusterId=flow)["Steps"]
until(lambda: state(flow, one["Id"]), "RUNNING")
def kept():
    found = s3.list_objects_v2(Bucket="logs", Prefix=f"emr/{flow}/").get("Contents", [])
    return [o["Key"].rpartition("/")[2] for o in found]
until(lambda: len(kept()), 3)
print(state(flow, one["Id"]), log(flow, one["Id"], "stdout").strip())
emr.cancel_steps(ClusterId=flow, StepIds=[one["Id"]], StepCancellationOption="TERMINATE_PROCESS")
until(lambda: state(flow, one["Id"]), "CANCELLED")
print(kept())
"""
    )
    assert told == ["RUNNING begun", "['controller.gz', 'stderr.gz', 'stdout.gz']"]


def test_deviation_emr_reach(client: Client, clouds: Clouds) -> None:
    told = client(
        """
ask = "import urllib.request; urllib.request.urlopen('https://example.com/')"
flow = start(Steps=[step("python3", "-c", ask)])
(one,) = emr.list_steps(ClusterId=flow)["Steps"]
print(until(lambda: state(flow, one["Id"]), "FAILED", "COMPLETED"))
print("portaflow emulate refuses example.com" in log(flow, one["Id"], "stderr"))
"""
    )
    assert told == ["FAILED", "True"]
    assert clouds.control.seen("proxy:Refused")[-1].params["host"] == "example.com"


def test_deviation_emr_calls(client: Client) -> None:
    told = client(
        """
for call in (emr.list_studios, emr.list_notebook_executions, emr.describe_job_flows,
             emr.describe_release_label):
    print(code(call))
print(code(emr.create_persistent_app_ui, TargetResourceArn="arn:aws:elasticmapreduce:a:b:c"))
"""
    )
    assert told == ["NotImplemented"] * 5


_SERVERLESS = """
app = serverless.create_application(
    name="a", releaseLabel="emr-7.1.0", type="SPARK", maximumCapacity={"cpu": "1 vCPU",
    "memory": "2 GB"}, imageConfiguration={
    "imageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/a:1"})["applicationId"]
role = "arn:aws:iam::123456789012:role/job"
driver = {"sparkSubmit": {"entryPoint": "s3://logs/job.py", "sparkSubmitParameters":
          "--conf spark.emr-serverless.driverEnv.PYSPARK_PYTHON=./environment/bin/python"}}
asked = dict(applicationId=app, executionRoleArn=role, jobDriver=driver)
def job(run):
    return serverless.get_job_run(applicationId=app, jobRunId=run)["jobRun"]
"""


def test_deviation_serverless_batch(client: Client) -> None:
    told = client(
        f"""{_SERVERLESS}
print(code(serverless.create_application, releaseLabel="emr-7.1.0", type="HIVE"))
print(code(serverless.start_job_run, **asked, mode="STREAMING"))
print(code(serverless.start_job_run, **asked, retryPolicy={{"maxAttempts": 2}}))
print(code(serverless.start_session, applicationId=app, executionRoleArn=role))
print(code(serverless.get_dashboard_for_job_run, applicationId=app, jobRunId="00a"))
"""
    )
    assert told == ["NotImplemented"] * 5


@pytest.mark.spark
def test_deviation_serverless_python(client: Client) -> None:
    make_ready()
    told = client(
        f"""{_SERVERLESS}
s3.put_object(Bucket="logs", Key="job.py", Body=b"import sys; print(sys.executable)")
run = serverless.start_job_run(**asked, configurationOverrides={{"monitoringConfiguration": {{
    "s3MonitoringConfiguration": {{"logUri": "s3://logs/"}}}}}})["jobRunId"]
print(until(lambda: job(run)["state"], "SUCCESS", "FAILED"))
print(read(f"applications/{{app}}/jobs/{{run}}/SPARK_DRIVER/stdout.gz"))
"""
    )
    assert told[:2] == ["SUCCESS", sys.executable]


@pytest.mark.spark
def test_deviation_serverless_capacity(client: Client) -> None:
    make_ready()
    told = client(
        f"""{_SERVERLESS}
runs = [serverless.start_job_run(**asked)["jobRunId"] for _ in range(2)]
for run in runs:     # a driver alone would need 4 vCPU
    print(until(lambda: "startedAt" in job(run), True))
for run in runs:
    serverless.cancel_job_run(applicationId=app, jobRunId=run)
until(lambda: job(runs[0])["state"], "CANCELLED", "FAILED")
print("billedResourceUtilization" in job(runs[0]), "totalExecutionDurationSeconds" in job(runs[0]))
"""
    )
    assert told == ["True", "True", "False True"]
