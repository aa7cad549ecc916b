"""Faults on the local EMR, each as an unmodified boto3 sees it."""

from __future__ import annotations

from pathlib import Path

import pytest
from portaflow_conformance.emulators.clouds import emulate
from portaflow_conformance.emulators.control import Fault

from .aws_client import EMR, python

_RUN, _ADD = "aws:emr.RunJobFlow", "aws:emr.AddJobFlowSteps"


def test_a_lost_answer_has_made_what_was_asked_and_a_lost_request_has_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with emulate("aws", pace=0) as clouds:
        order = clouds.control.order
        faults = [
            order(Fault(effect="reset-after", operation=_RUN)),
            order(Fault(effect="reset-before", operation=_RUN)),
            order(Fault(effect="reset-after", operation=_ADD)),
            order(Fault(effect="reset-before", operation=_ADD)),
        ]
        out = python(
            f"""{EMR}
from botocore.config import Config
from botocore.exceptions import ConnectionError, HTTPClientError
once = boto3.client("emr", config=Config(retries={{"total_max_attempts": 1}}))
def lost(call, **params):
    try:
        call(**params)
    except (ConnectionError, HTTPClientError):  # by a proxy, it may blame that
        return True
    return False
def names():
    return sorted(c["Name"] for c in emr.list_clusters()["Clusters"])
print(lost(once.run_job_flow, **asked(Name="after")), names())
print(lost(once.run_job_flow, **asked(Name="before")), names())
flow = start(Name="third")
sleeps = [step("sleep", "600")]
print(lost(once.add_job_flow_steps, JobFlowId=flow, Steps=sleeps),
      len(emr.list_steps(ClusterId=flow)["Steps"]))
print(lost(once.add_job_flow_steps, JobFlowId=flow, Steps=sleeps),
      len(emr.list_steps(ClusterId=flow)["Steps"]))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "True ['after']",
            "True ['after']",
            "True 1",
            "True 1",
        ]
        assert [fault.hit for fault in faults] == [1, 1, 1, 1]
        assert clouds.control.count(_RUN) == 3
    assert "Traceback" not in capfd.readouterr().err  # the local cloud minds its own faults


def test_throttling_and_errors_are_tried_again_by_the_client(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        order = clouds.control.order
        order(Fault(effect="throttle", operation=_RUN, times=2))
        order(Fault(effect="error", status=503, operation=_ADD, times=2))
        slow = order(Fault(effect="latency", operation="aws:emr.ListSteps", seconds=0.3))
        out = python(
            f"""{EMR}
from botocore.config import Config
once = boto3.client("emr", config=Config(retries={{"total_max_attempts": 1}}))
try:
    once.run_job_flow(**asked())
except ClientError as error:
    print(error.response["Error"])
flow = start()
emr.add_job_flow_steps(JobFlowId=flow, Steps=[step("true")])
begun = time.monotonic()
print(len(emr.list_steps(ClusterId=flow)["Steps"]), time.monotonic() - begun >= 0.3)
print(len(emr.list_clusters()["Clusters"]))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "{'Message': 'Rate exceeded', 'Code': 'ThrottlingException'}",
            "1 True",
            "1",
        ]
        assert clouds.control.count(_RUN) == 3
        assert clouds.control.count(_ADD) == 3
        assert slow.hit == 1


def test_lists_are_behind_when_ordered(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        clouds.control.order(Fault(effect="hide", operation=_RUN, seconds=1.5))
        clouds.control.order(Fault(effect="hide", operation=_ADD, seconds=1.5))
        out = python(
            f"""{EMR}
def clusters():
    return len(emr.list_clusters()["Clusters"])
flow = start()
print(clusters(), emr.describe_cluster(ClusterId=flow)["Cluster"]["Name"])
print(until(clusters, 1))
first = emr.add_job_flow_steps(JobFlowId=flow, Steps=[step("sleep", "600")])["StepIds"][0]
second = emr.add_job_flow_steps(JobFlowId=flow, Steps=[step("true")])["StepIds"][0]
def steps():
    return [s["Id"] for s in emr.list_steps(ClusterId=flow)["Steps"]]
print(steps() == [second], state(flow, first) in ("PENDING", "RUNNING"))
until(lambda: steps() == [second, first], True)
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == ["0 words", "1", "True True"]


def test_clusters_hang_and_fail_to_start_for_want_of_capacity_too(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        for effect in ("hang", "fail", "capacity", "capacity"):
            clouds.control.order(Fault(effect=effect, operation=_RUN))
        out = python(
            f"""{EMR}
def ended(flow):
    until(lambda: state(flow), "TERMINATED_WITH_ERRORS")
    told = status(flow)
    print(told["StateChangeReason"], [d["ErrorCode"] for d in told.get("ErrorDetails", [])])
hung, failed = start(), start(Steps=[step("true")])
ended(failed)
print(emr.list_steps(ClusterId=failed)["Steps"][0]["Status"]["State"])
ended(start())
fleet = {{"InstanceFleetType": "MASTER", "TargetSpotCapacity": 1,
         "InstanceTypeConfigs": [{{"InstanceType": "m5.xlarge"}}]}}
ended(start(Instances={{"InstanceFleets": [fleet]}}))
print(state(hung), status(hung)["Timeline"].keys())
emr.terminate_job_flows(JobFlowIds=[hung])
emr.get_waiter("cluster_terminated").wait(ClusterId=hung, WaiterConfig=quick)
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "{'Code': 'INTERNAL_ERROR', 'Message': 'An internal error occurred: a fault on order'} "
            "[]",
            "CANCELLED",
            "{'Code': 'INTERNAL_ERROR', 'Message': 'EC2 has insufficient capacity for m5.xlarge in "
            "us-east-1a.'} ['INTERNAL_ERROR_EC2_INSUFFICIENT_CAPACITY_AZ']",
            "{'Code': 'INSTANCE_FLEET_TIMEOUT', 'Message': 'The timeout for provisioning the Spot "
            "instances of a fleet has expired.'} ['INTERNAL_ERROR_SPOT_NO_CAPACITY_PRIMARY']",
            "STARTING dict_keys(['CreationDateTime'])",
        ]


def test_clusters_and_steps_die_in_the_middle(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        order = clouds.control.order
        order(Fault(effect="die", operation=_RUN))
        order(Fault(effect="die", operation=_RUN, seconds=0.2))
        order(Fault(effect="fail", operation=_ADD))
        order(Fault(effect="die", operation=_ADD))
        order(Fault(effect="hang", operation=_ADD))
        out = python(
            f"""{EMR}
one = start(Steps=[step("sleep", "600"), step("sleep", "600")])
until(lambda: state(one), "TERMINATED_WITH_ERRORS")
print(status(one)["StateChangeReason"])
print([s["Status"]["State"] for s in emr.list_steps(ClusterId=one)["Steps"]])
idle = start()
until(lambda: state(idle), "TERMINATED_WITH_ERRORS")
flow = start(StepConcurrencyLevel=3)
def add(*words):
    return emr.add_job_flow_steps(JobFlowId=flow, Steps=[step(*words)])["StepIds"][0]
failed, died, hung, fine = add("sleep", "600"), add("sleep", "600"), add("true"), add("true")
for each in (failed, died, fine):
    print(until(lambda: state(flow, each), "FAILED", "COMPLETED"))
print(state(flow, hung), state(flow))
print(emr.cancel_steps(ClusterId=flow, StepIds=[hung])["CancelStepsInfoList"][0]["Status"],
      state(flow, hung))
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "{'Code': 'INSTANCE_FAILURE', 'Message': 'The master node was terminated'}",
            "['CANCELLED', 'CANCELLED']",
            *("FAILED", "FAILED", "COMPLETED", "PENDING WAITING", "SUBMITTED CANCELLED"),
        ]
