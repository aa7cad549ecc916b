"""The local AWS as an unmodified boto3 sees it; Spark starts once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("moto")
pytest.importorskip("boto3")

from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.control import Fault

from portaflow.errors import RunError

from .aws_client import WORDS, make_ready, python

_ROLES = """
emr, s3 = boto3.client("emr"), boto3.client("s3")
roles = dict(ServiceRole="EMR_DefaultRole", JobFlowRole="EMR_EC2_DefaultRole", Name="words",
             ReleaseLabel="emr-7.1.0", LogUri="s3://logs/emr/")
nodes = {"MasterInstanceType": "m5.xlarge", "KeepJobFlowAliveWhenNoSteps": True}
quick = {"Delay": 1, "MaxAttempts": 240}
"""


@pytest.fixture(scope="module")
def spark() -> None:
    pytest.importorskip("pyspark")
    make_ready()


def _python(code: str, env: dict[str, str], tmp_path: Path) -> str:
    return python(_ROLES + code, env, tmp_path)


def test_a_word_count_from_s3_runs_on_emr(tmp_path: Path, spark: None) -> None:
    asks = "import boto3, os\nclient = boto3.client('secretsmanager')\n"
    asks += "print(os.environ['WHO'], client.get_secret_value(SecretId='s')['SecretString'])\n"
    (tmp_path / "words.py").write_text(WORDS + asks, "utf-8")
    with emulate("aws", pace=0.1) as clouds:
        out = _python(
            f"""
for bucket in ("logs", "data"):
    s3.create_bucket(Bucket=bucket)
boto3.client("secretsmanager").create_secret(Name="s", SecretString="hush")
s3.upload_file({str(tmp_path / "words.py")!r}, "data", "words.py")
s3.put_object(Bucket="data", Key="in/a.txt", Body=b"a b a\\nb a c\\n")
def step(name, *args, fail="CONTINUE"):
    return {{"Name": name, "ActionOnFailure": fail,
            "HadoopJarStep": {{"Jar": "command-runner.jar", "Args": list(args)}}}}
count = step("count", "spark-submit", "--deploy-mode", "cluster",
             "--conf", "spark.yarn.appMasterEnv.WHO=a b", "s3://data/words.py",
             "s3://data/in/", "s3://data/out")
flow = emr.run_job_flow(**roles, Steps=[count], Instances=nodes)
flow = flow["JobFlowId"]
def read(key):
    return gzip.decompress(s3.get_object(Bucket="logs", Key=key)["Body"].read()).decode()
def driver(name):    # it runs on the cluster, so its output is a container's
    log = s3.list_objects_v2(Bucket="logs", Prefix=f"emr/{{flow}}/containers/application_")
    (key,) = [o["Key"] for o in log["Contents"] if o["Key"].endswith(f"_01_000001/{{name}}.gz")]
    return read(key)
(first,) = emr.list_steps(ClusterId=flow)["Steps"]
emr.get_waiter("cluster_running").wait(ClusterId=flow, WaiterConfig=quick)
try:
    emr.get_waiter("step_complete").wait(ClusterId=flow, StepId=first["Id"], WaiterConfig=quick)
except Exception:
    sys.exit(driver("stderr"))
(part,) = [o["Key"] for o in s3.list_objects_v2(Bucket="data", Prefix="out/part")["Contents"]]
print(sorted(s3.get_object(Bucket="data", Key=part)["Body"].read().decode().split("\\n")))
print(driver("stdout"))
print("state: FINISHED" in read(f"emr/{{flow}}/steps/{{first['Id']}}/stderr.gz"))
wrong = emr.add_job_flow_steps(
    JobFlowId=flow, Steps=[step("no", "hive", fail="TERMINATE_CLUSTER")])
def status():
    return emr.describe_cluster(ClusterId=flow)["Cluster"]["Status"]
while status()["State"] != "TERMINATED_WITH_ERRORS":
    time.sleep(0.05)
print(status()["StateChangeReason"]["Code"])
print(emr.describe_step(ClusterId=flow, StepId=wrong["StepIds"][0])["Step"]["Status"]["State"])
print(code(emr.add_job_flow_steps, JobFlowId=flow, Steps=[count]))
""",
            clouds.environ(),
            tmp_path,
        )
        assert "['', 'a 3', 'b 2', 'c 1']" in out
        assert "counted 3\na b hush\n\nTrue\n" in out
        assert out.split()[-3:] == ["STEP_FAILURE", "FAILED", "ValidationException"]
        (started,) = clouds.control.seen("aws:emr.RunJobFlow")
        assert started.principal == clouds.env["AWS_ACCESS_KEY_ID"]
        assert started.params["Name"] == "words"


def test_errors_and_faults_are_those_of_aws(tmp_path: Path) -> None:
    with emulate("aws", pace=0.05) as clouds:
        order = clouds.control.order
        order(Fault(effect="throttle", operation="aws:emr.ListClusters", times=2))
        order(Fault(effect="error", operation="aws:emr.ListInstances", status=503, times=1))
        lost = order(Fault(effect="reset-after", operation="aws:emr.AddTags"))
        order(Fault(effect="fail", operation="aws:emr.RunJobFlow", skip=1))
        out = _python(
            """
print(code(emr.describe_cluster, ClusterId="j-NONE"))
print(code(emr.run_job_flow, **{**roles, "ReleaseLabel": "emr-99.0.0"}, Instances=nodes))
keep = {**nodes, "TerminationProtected": True}
bad = emr.run_job_flow(**roles, Instances=keep)["JobFlowId"]
flow = emr.run_job_flow(**roles, Instances=keep)["JobFlowId"]
emr.add_tags(ResourceId=flow, Tags=[{"Key": "k", "Value": "v"}])
print(emr.describe_cluster(ClusterId=flow)["Cluster"]["Tags"])
print(code(emr.list_clusters))
emr.list_instances(ClusterId=flow)
print(code(emr.terminate_job_flows, JobFlowIds=[flow]))
emr.set_termination_protection(JobFlowIds=[flow], TerminationProtected=False)
emr.terminate_job_flows(JobFlowIds=[flow])
emr.get_waiter("cluster_terminated").wait(ClusterId=flow, WaiterConfig=quick)
status = emr.describe_cluster(ClusterId=bad)["Cluster"]["Status"]
print(status["State"])
print(code(boto3.client("glue").get_databases))
print(boto3.client("sts").get_caller_identity()["Account"].isdigit())
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.split("\n")[:-1] == [
            "InvalidRequestException",
            "ValidationException",
            "[{'Key': 'k', 'Value': 'v'}]",
            "none",
            "ValidationException",
            "TERMINATED_WITH_ERRORS",
            "NotImplemented",
            "True",
        ]
        assert lost.hit == 1
        assert clouds.control.count("aws:emr.ListClusters") == 3
        assert clouds.control.count("aws:emr.ListInstances") == 2


def test_steps_wait_their_turn_and_can_be_cancelled(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = _python(
            """
sleep = "import time; time.sleep(600)"
open(sys.argv[0] + ".sleep.py", "w").write(sleep)
def step(name, fail="CONTINUE", *args):
    args = list(args) or ["spark-submit", sys.argv[0] + ".sleep.py"]
    return {"Name": name, "ActionOnFailure": fail,
            "HadoopJarStep": {"Jar": "command-runner.jar", "Args": args}}
flow = emr.run_job_flow(**roles, StepConcurrencyLevel=1, Steps=[step("a"), step("b"), step("c")],
                        Instances=nodes)["JobFlowId"]
def states():
    steps = emr.list_steps(ClusterId=flow)["Steps"]
    return " ".join(s["Status"]["State"] for s in reversed(steps))
print(until(states, "RUNNING PENDING PENDING"))
ids = [s["Id"] for s in reversed(emr.list_steps(ClusterId=flow)["Steps"])]
told = emr.cancel_steps(ClusterId=flow, StepIds=ids[1:2])["CancelStepsInfoList"]
print([one["Status"] for one in told], states())
emr.cancel_steps(ClusterId=flow, StepIds=ids[:1], StepCancellationOption="TERMINATE_PROCESS")
print(until(states, "CANCELLED CANCELLED RUNNING"))
told = emr.cancel_steps(ClusterId=flow, StepIds=ids[:1])["CancelStepsInfoList"]
print([one["Status"] for one in told])
emr.terminate_job_flows(JobFlowIds=[flow])
emr.get_waiter("cluster_terminated").wait(ClusterId=flow, WaiterConfig=quick)
print(states())
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "RUNNING PENDING PENDING",
            "['SUBMITTED'] RUNNING CANCELLED PENDING",
            "CANCELLED CANCELLED RUNNING",
            "['FAILED']",
            "CANCELLED CANCELLED CANCELLED",
        ]


def test_clusters_end_when_they_have_nothing_to_do(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = _python(
            """
from portaflow_conformance.emulators.endpoint import RemoteControl
def status(flow):
    return emr.describe_cluster(ClusterId=flow)["Cluster"]["Status"]
bad = {"Name": "bad", "ActionOnFailure": "CONTINUE",
       "HadoopJarStep": {"Jar": "command-runner.jar", "Args": ["hive"]}}
ends = {**nodes, "KeepJobFlowAliveWhenNoSteps": False}
once = emr.run_job_flow(**roles, Steps=[bad], Instances=ends)["JobFlowId"]
emr.get_waiter("cluster_terminated").wait(ClusterId=once, WaiterConfig=quick)
print(status(once)["StateChangeReason"]["Code"])
idle = emr.run_job_flow(**roles, Instances=nodes)["JobFlowId"]
emr.put_auto_termination_policy(ClusterId=idle, AutoTerminationPolicy={"IdleTimeout": 600})
print(emr.get_auto_termination_policy(ClusterId=idle)["AutoTerminationPolicy"])
until(lambda: status(idle)["State"], "WAITING")
RemoteControl().jump(500)
print(status(idle)["State"])
RemoteControl().jump(200)
emr.get_waiter("cluster_terminated").wait(ClusterId=idle, WaiterConfig=quick)
print(status(idle)["StateChangeReason"]["Message"])
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "ALL_STEPS_COMPLETED",
            "{'IdleTimeout': 600}",
            "WAITING",
            "Auto-terminated: the cluster was idle",
        ]


def test_secrets_are_kept_and_not_logged(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = _python(
            """
vault = boto3.client("secretsmanager")
vault.create_secret(Name="db", SecretString="hush-one")
vault.put_secret_value(SecretId="db", SecretString="hush-two")
print(vault.get_secret_value(SecretId="db")["SecretString"])
print(vault.get_secret_value(SecretId="db", VersionStage="AWSPREVIOUS")["SecretString"])
print(code(vault.create_secret, Name="db", SecretString="hush"))
print(code(vault.get_secret_value, SecretId="none"))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "hush-two",
            "hush-one",
            "ResourceExistsException",
            "ResourceNotFoundException",
        ]
        assert clouds.control.count("aws:secretsmanager.CreateSecret") == 2
        assert "hush" not in repr(clouds.control.seen())
    with emulate("aws", pace=0) as clouds:  # another has none of it
        out = _python(
            'print(boto3.client("secretsmanager").list_secrets()["SecretList"])',
            clouds.environ(),
            tmp_path,
        )
        assert out == "[]\n"


def test_a_second_aws_in_one_process_is_refused() -> None:
    with emulate("aws", pace=0):
        second = emulate("aws", pace=0)
        with pytest.raises(RunError, match="runs in this process already"):
            second.__enter__()
    with emulate("aws", pace=0):  # the first has gone
        pass
