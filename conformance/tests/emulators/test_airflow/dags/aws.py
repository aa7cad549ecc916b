"""EMR and EMR Serverless, each from its beginning to its end, with jobs that succeed and fail."""

import gzip
import os
from datetime import datetime

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from airflow.providers.amazon.aws.operators.emr import (
    EmrAddStepsOperator,
    EmrCreateJobFlowOperator,
    EmrServerlessCreateApplicationOperator,
    EmrServerlessDeleteApplicationOperator,
    EmrServerlessStartJobOperator,
    EmrServerlessStopApplicationOperator,
    EmrTerminateJobFlowOperator,
)
from airflow.providers.amazon.aws.operators.s3 import (
    S3CreateBucketOperator,
    S3CreateObjectOperator,
)
from airflow.providers.amazon.aws.sensors.emr import EmrStepSensor
from airflow.providers.amazon.aws.utils.waiter import WaitPolicy
from airflow.sdk import DAG, task

DEFERRABLE = os.environ["DEFERRABLE"] == "1"
WAIT = {"waiter_delay": 1, "waiter_max_attempts": 100, "deferrable": DEFERRABLE}
JOB = "import sys; print('exits with', sys.argv[1]); sys.exit(int(sys.argv[1]))"
CLUSTER = {
    "ReleaseLabel": "emr-7.1.0",
    "LogUri": "s3://data/emr/",
    "ServiceRole": "EMR_DefaultRole",
    "JobFlowRole": "EMR_EC2_DefaultRole",
    "Instances": {
        "KeepJobFlowAliveWhenNoSteps": True,
        "InstanceGroups": [
            {"InstanceRole": "MASTER", "InstanceType": "m5.xlarge", "InstanceCount": 1}
        ],
    },
    "StepConcurrencyLevel": 2,
}
LOGS = {"monitoringConfiguration": {"s3MonitoringConfiguration": {"logUri": "s3://data/runs/"}}}


@task(trigger_rule="all_done")
def said(prefix: str, part: str) -> list[str]:
    """What jobs printed, from the logs that AWS keeps in S3."""
    s3 = S3Hook()
    keys = [key for key in s3.list_keys("data", prefix) if part in key and "stdout" in key]
    return [gzip.decompress(s3.get_key(key, "data").get()["Body"].read()).decode() for key in keys]


def cluster(name: str) -> EmrCreateJobFlowOperator:
    return EmrCreateJobFlowOperator(
        task_id=name,
        job_flow_overrides={**CLUSTER, "Name": name},
        wait_policy=WaitPolicy.WAIT_FOR_COMPLETION,
        **WAIT,
    )


def step(code: int) -> dict:
    jar = {"Jar": "command-runner.jar", "Args": ["spark-submit", "s3://data/job.py", str(code)]}
    return {"Name": f"exit-{code}", "ActionOnFailure": "CONTINUE", "HadoopJarStep": jar}


def steps(name: str, flow: str, code: int) -> EmrAddStepsOperator:
    return EmrAddStepsOperator(
        task_id=name, job_flow_id=flow, steps=[step(code)], wait_for_completion=True, **WAIT
    )


def sensor(name: str, flow: str, place: int) -> EmrStepSensor:
    return EmrStepSensor(
        task_id=name,
        job_flow_id=flow,
        step_id=f"{{{{ ti.xcom_pull('add')[{place}] }}}}",
        poke_interval=1,
        deferrable=DEFERRABLE,
    )


def application(name: str) -> EmrServerlessCreateApplicationOperator:
    return EmrServerlessCreateApplicationOperator(
        task_id=name, release_label="emr-7.1.0", job_type="SPARK", config={"name": name}, **WAIT
    )


def job_run(name: str, app: str, code: int) -> EmrServerlessStartJobOperator:
    submit = {"entryPoint": "s3://data/job.py", "entryPointArguments": [str(code)]}
    return EmrServerlessStartJobOperator(
        task_id=name,
        application_id=app,
        execution_role_arn="arn:aws:iam::123456789012:role/job",
        job_driver={"sparkSubmit": submit},
        configuration_overrides=LOGS,
        **WAIT,
    )


with DAG("aws", start_date=datetime(2026, 1, 1), schedule=None) as dag:
    bucket = S3CreateBucketOperator(task_id="bucket", bucket_name="data")
    job = S3CreateObjectOperator(task_id="job", s3_bucket="data", s3_key="job.py", data=JOB)

    create = cluster("cluster")
    flow = create.output
    good, bad = steps("good-step", flow, 0), steps("bad-step", flow, 3)
    add = EmrAddStepsOperator(task_id="add", job_flow_id=flow, steps=[step(0), step(4)])
    sensors = [sensor("good-sensor", flow, 0), sensor("bad-sensor", flow, 1)]
    terminate = EmrTerminateJobFlowOperator(
        task_id="terminate", job_flow_id=flow, trigger_rule="all_done", **WAIT
    )
    said_by_steps = said.override(task_id="said-by-steps")("emr/", "/steps/")
    bucket >> job >> create >> [good, bad, add]
    add >> sensors
    [good, bad, *sensors] >> terminate >> said_by_steps >> cluster("cluster-that-fails")

    start = application("application")
    app = start.output
    runs = [job_run("good-run", app, 0), job_run("bad-run", app, 3)]
    stop = EmrServerlessStopApplicationOperator(
        task_id="stop", application_id=app, trigger_rule="all_done", **WAIT
    )
    delete = EmrServerlessDeleteApplicationOperator(task_id="delete", application_id=app, **WAIT)
    said_by_runs = said.override(task_id="said-by-runs")("runs/", "")
    job >> start >> runs >> stop >> delete >> said_by_runs >> application("application-that-fails")
