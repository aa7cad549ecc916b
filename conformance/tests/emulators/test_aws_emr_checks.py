"""What the local EMR refuses, as EMR does, and that what it was sent can be read back."""

from __future__ import annotations

from pathlib import Path

from portaflow_conformance.emulators.clouds import emulate

from .aws_client import EMR, python

_SAID = """
def said(call, **params):
    try:
        call(**params)
    except ClientError as error:
        return f"{error.response['Error']['Code']}: {error.response['Error']['Message']}"
    return "none"
def refused(without=None, **params):
    given = asked(**params)
    given.pop(without, None)
    return said(emr.run_job_flow, **given)
def groups(*given):
    keys = "InstanceRole", "InstanceType", "InstanceCount", "Market", "BidPrice"
    return {"InstanceGroups": [dict(zip(keys, one)) for one in given]}
MASTER = ("MASTER", "m5.xlarge", 1)
def fleet(role, types=("m5.xlarge",), demand=1, **more):
    return {"InstanceFleetType": role, "TargetOnDemandCapacity": demand,
            "InstanceTypeConfigs": [{"InstanceType": one} for one in types], **more}
"""


def test_job_flows_are_refused_as_emr_refuses_them(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{EMR}{_SAID}
print(refused("ServiceRole"))
print(refused("JobFlowRole"))
print(refused("ReleaseLabel"))
print(refused(ReleaseLabel="emr-99.0.0"))
print(refused(AmiVersion="3.11.0"))
print(refused(Instances={{**nodes, "MasterInstanceType": "m5.gigantic"}}))
print(refused(Instances={{}}))
print(refused(Instances={{**nodes, **groups(MASTER)}}))
print(refused(Instances={{"InstanceFleets": [fleet("MASTER")], **groups(MASTER)}}))
print(refused(Instances=groups(MASTER, MASTER)))
print(refused(Instances=groups(("CORE", "m5.xlarge", 1))))
print(refused(Instances=groups(MASTER, ("TASK", "m5.xlarge", 1))))
print(refused(Instances=groups(("MASTER", "m5.xlarge", 2))))
print(refused(Instances=groups(("MASTER", "m5.xlarge", 1, "ON_DEMAND", "1"))))
print(refused(Instances=groups(("MASTER", "m5.xlarge", 1, "SPOT", "cheap"))))
print(refused(Instances=groups(("MASTER", "m5.xlarge", 1, "CHEAP"))))
print(refused(Instances={{"InstanceFleets": [fleet("CORE", demand=0)]}}))
print(refused(Instances={{"InstanceFleets": [fleet("MASTER", ["m5.xlarge"] * 2)]}}))
print(refused(Instances={{**nodes, "Ec2SubnetIds": ["subnet-0a1b2c3d", "subnet-0a1b2c3e"]}}))
print(refused(StepConcurrencyLevel=257))
print(refused(StepConcurrencyLevel=2, Steps=[step("true", fail="TERMINATE_CLUSTER")]))
print(refused(Steps=[step("true", fail="PANIC")]))
print(refused(Steps=[step("true")] * 257))
print(refused(Name="x" * 257))
print(refused(Name="bell \\a"))
print(refused(Tags=[{{"Key": "", "Value": "v"}}]))
print(refused(SecurityConfiguration="none"))
print(refused(AutoTerminationPolicy={{"IdleTimeout": 59}}))
limits = {{"UnitType": "Instances", "MinimumCapacityUnits": 3, "MaximumCapacityUnits": 2}}
print(refused(ManagedScalingPolicy={{"ComputeLimits": limits}}))
print(len(emr.list_clusters()["Clusters"]))
flow = start(Name="snow \\u2603 \\U0001f600")
print(emr.describe_cluster(ClusterId=flow)["Cluster"]["Name"])
""",
            {**clouds.environ(), "PYTHONIOENCODING": "utf-8"},
            tmp_path,
        )
        by_type = "Please configure instances using one and only one of the following: instance "
        by_type += "groups; instance fleets; instance count, master and slave instance type."
        zero = "Zero master instance groups supplied, you must specify exactly one master instance "
        zero += "group"
        one = "1 validation error detected: Value"
        told = [line.removeprefix("ValidationException: ") for line in out.splitlines()]
        assert told[:20] == [
            "ServiceRole is required for creating cluster.",
            "InstanceProfile is required for creating cluster.",
            "Must specify exactly one of the following: release label, AMI version, or Hadoop "
            "version.",
            "The supplied release label is invalid: emr-99.0.0.",
            "Only one AMI version and release label may be specified. Provided AMI: 3.11.0, "
            "release label: emr-7.1.0.",
            "Instance type 'm5.gigantic' is not supported",
            *(zero, by_type, by_type),
            "Multiple master instance groups supplied, you must specify exactly one master "
            "instance group",
            zero,
            "Clusters with task nodes must also define core nodes.",
            "A master instance group must specify a single instance",
            "Attempted to set bid price for on demand instance group.",
            "The bid price supplied for an instance group is invalid",
            f"{one} 'CHEAP' at 'instances.instanceGroups.1.member.market' failed to satisfy "
            "constraint: Member must satisfy enum value set: [ON_DEMAND, SPOT]",
            "The instance fleet (null) should have a value of one or greater for either "
            "targetOnDemandCapacity or targetSpotCapacity.",
            "The instance fleet: null contains duplicate instance types [m5.xlarge]. Revise the "
            "configuration and resubmit.",
            "Only one subnet may be specified for clusters configured with instance groups or "
            "instance count, master and slave instance type. Revise the configuration and "
            "resubmit.",
            "StepConcurrencyLevel must be from 1 to 256.",
        ]
        assert told[20].startswith("ActionOnFailure must be CONTINUE")
        assert told[21].startswith(f"{one} 'PANIC' at 'steps.1.member.actionOnFailure' failed")
        assert told[22].startswith("Maximum number of active steps")
        assert told[23].endswith("at 'name' failed to satisfy constraint: Member must have length "
                                 "less than or equal to 256")  # fmt: skip
        assert "Member must satisfy regular expression pattern" in told[24]
        assert told[25].startswith("InvalidRequestException: Invalid tag key: 'null'.")
        assert told[26].startswith("InvalidRequestException: Security configuration with name")
        assert told[27] == "IdleTimeout must be from 60 to 604800 seconds."
        assert told[28].startswith("MinimumCapacityUnits must be at least 1")
        assert told[29:] == ["0", "snow \u2603 \U0001f600"]


def test_what_a_job_flow_was_sent_can_be_read_back(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{EMR}{_SAID}
limits = {{"UnitType": "Instances", "MinimumCapacityUnits": 2, "MaximumCapacityUnits": 9}}
conf = [{{"Classification": "spark-env", "Properties": {{}}, "Configurations": [
    {{"Classification": "export", "Properties": {{"A": "b"}}}}]}}]
volumes = {{"EbsBlockDeviceConfigs": [{{"VolumesPerInstance": 2, "VolumeSpecification":
                                    {{"VolumeType": "gp3", "SizeInGB": 64}}}}]}}
given = groups(MASTER, ("CORE", "r5.2xlarge", 2, "SPOT", "0.25"))
given["InstanceGroups"][1] |= {{"Name": "core", "EbsConfiguration": volumes}}
given |= {{"Ec2SubnetId": "subnet-0a1b2c3d", "Ec2KeyName": "key", "TerminationProtected": True,
          "AdditionalMasterSecurityGroups": ["sg-1"], "KeepJobFlowAliveWhenNoSteps": True,
          "Placement": {{"AvailabilityZone": "us-east-1c"}}}}
emr.create_security_configuration(Name="safe", SecurityConfiguration="{{}}")
sent = asked(
    Instances=given, Tags=[{{"Key": "owner", "Value": "x"}}, {{"Key": "empty", "Value": ""}}],
    Applications=[{{"Name": "Spark"}}, {{"Name": "Hive"}}], Configurations=conf,
    ManagedScalingPolicy={{"ComputeLimits": limits}}, StepConcurrencyLevel=5,
    AutoTerminationPolicy={{"IdleTimeout": 600}}, SecurityConfiguration="safe",
    CustomAmiId="ami-1", EbsRootVolumeSize=30, ScaleDownBehavior="TERMINATE_AT_INSTANCE_HOUR",
    AutoScalingRole="scale", StepExecutionRoleArn="arn:aws:iam::123456789012:role/step",
    Steps=[step("true", MainClass="m", Properties=[{{"Key": "k", "Value": "v"}}])])
flow = emr.run_job_flow(**sent)["JobFlowId"]
emr.get_waiter("cluster_running").wait(ClusterId=flow, WaiterConfig=quick)
told = emr.describe_cluster(ClusterId=flow)["Cluster"]
for key in ("Name", "ReleaseLabel", "ServiceRole", "SecurityConfiguration", "CustomAmiId",
            "EbsRootVolumeSize", "ScaleDownBehavior", "AutoScalingRole", "Tags", "Applications",
            "Configurations", "StepConcurrencyLevel"):
    assert told[key] == sent[key], (key, told[key])
print(told["LogUri"], told["AutoTerminate"], told["TerminationProtected"],
      told["VisibleToAllUsers"], told["InstanceCollectionType"], told["ClusterArn"])
ec2 = told["Ec2InstanceAttributes"]
print(ec2["Ec2SubnetId"], ec2["Ec2KeyName"], ec2["IamInstanceProfile"],
      ec2["Ec2AvailabilityZone"], ec2["AdditionalMasterSecurityGroups"])
print(emr.get_managed_scaling_policy(ClusterId=flow)["ManagedScalingPolicy"]
      == sent["ManagedScalingPolicy"],
      emr.get_auto_termination_policy(ClusterId=flow)["AutoTerminationPolicy"])
for one in emr.list_instance_groups(ClusterId=flow)["InstanceGroups"]:
    print(one["InstanceGroupType"], one["InstanceType"], one["Market"], one.get("BidPrice"),
          one["RequestedInstanceCount"], one["RunningInstanceCount"], one["Status"]["State"],
          [d["Device"] for d in one["EbsBlockDevices"]], one["Id"][:3])
core = emr.list_instances(ClusterId=flow, InstanceGroupTypes=["CORE"])["Instances"]
print(len(core), core[0]["Status"]["State"], core[0]["InstanceType"], core[0]["Market"],
      core[0]["Id"][:3], core[0]["Ec2InstanceId"][:2], core[0]["PrivateDnsName"][:6])
(ran,) = emr.list_steps(ClusterId=flow)["Steps"]
print(ran["Config"], ran["ActionOnFailure"])
print(emr.describe_step(ClusterId=flow, StepId=ran["Id"])["Step"]["ExecutionRoleArn"])
group = core[0]["InstanceGroupId"]
emr.modify_instance_groups(ClusterId=flow, InstanceGroups=[
    {{"InstanceGroupId": group, "InstanceCount": 4}}])
print(len(emr.list_instances(ClusterId=flow, InstanceGroupId=group)["Instances"]))
emr.modify_instance_groups(ClusterId=flow, InstanceGroups=[
    {{"InstanceGroupId": group, "InstanceCount": 1}}])
print(len(emr.list_instances(ClusterId=flow, InstanceGroupId=group,
                             InstanceStates=["RUNNING"])["Instances"]))
emr.add_instance_groups(JobFlowId=flow, **groups(("TASK", "m5.xlarge", 1)))
print([g["InstanceGroupType"] for g in
       emr.list_instance_groups(ClusterId=flow)["InstanceGroups"]])
print(code(emr.list_instance_fleets, ClusterId=flow))
emr.remove_tags(ResourceId=flow, TagKeys=["owner"])
emr.add_tags(ResourceId=flow, Tags=[{{"Key": "new", "Value": "1"}}])
print([t["Key"] for t in emr.describe_cluster(ClusterId=flow)["Cluster"]["Tags"]])

spot = {{"TimeoutDurationMinutes": 5, "TimeoutAction": "TERMINATE_CLUSTER"}}
fleets = [fleet("MASTER"), fleet("CORE", ["m5.xlarge", "r5.xlarge"], 2, TargetSpotCapacity=3,
                                 LaunchSpecifications={{"SpotSpecification": spot}})]
flow = start(Instances={{"InstanceFleets": fleets, "KeepJobFlowAliveWhenNoSteps": True,
                        "Ec2SubnetIds": ["subnet-0a1b2c3d", "subnet-0a1b2c3e"]}})
emr.get_waiter("cluster_running").wait(ClusterId=flow, WaiterConfig=quick)
_, core = emr.list_instance_fleets(ClusterId=flow)["InstanceFleets"]
print(core["ProvisionedOnDemandCapacity"], core["ProvisionedSpotCapacity"],
      [s["InstanceType"] for s in core["InstanceTypeSpecifications"]],
      core["LaunchSpecifications"] == fleets[1]["LaunchSpecifications"])
print(len(emr.list_instances(ClusterId=flow, InstanceFleetType="CORE")["Instances"]),
      code(emr.list_instance_groups, ClusterId=flow))
emr.terminate_job_flows(JobFlowIds=[flow])
emr.get_waiter("cluster_terminated").wait(ClusterId=flow, WaiterConfig=quick)
print({{i["Status"]["State"] for i in emr.list_instances(ClusterId=flow)["Instances"]}})
""",
            clouds.environ(),
            tmp_path,
        )
        arn = "arn:aws:elasticmapreduce:us-east-1:123456789012:cluster/"
        lines = out.splitlines()
        assert lines[0].startswith(f"s3n://logs/emr/ False True True INSTANCE_GROUP {arn}")
        assert lines[1:] == [
            "subnet-0a1b2c3d key EMR_EC2_DefaultRole us-east-1c ['sg-1']",
            "True {'IdleTimeout': 600}",
            "MASTER m5.xlarge ON_DEMAND None 1 1 RUNNING [] ig-",
            "CORE r5.2xlarge SPOT 0.25 2 2 RUNNING ['/dev/sdc', '/dev/sdd'] ig-",
            "2 RUNNING r5.2xlarge SPOT ci- i- ip-10-",
            "{'Jar': 'command-runner.jar', 'Properties': {'k': 'v'}, 'MainClass': 'm', "
            "'Args': ['true']} CONTINUE",
            "arn:aws:iam::123456789012:role/step",
            *("4", "1", "['MASTER', 'CORE', 'TASK']", "InvalidRequestException"),
            "['empty', 'new']",
            "2 3 ['m5.xlarge', 'r5.xlarge'] True",
            "5 InvalidRequestException",
            "{'TERMINATED'}",
        ]


def test_clusters_and_steps_are_listed_in_pages_by_state_and_time(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{EMR}{_SAID}
from datetime import datetime, timedelta, timezone
flow = start(Steps=[step("sleep", "600")] + [step("true", str(n)) for n in range(120)])
until(lambda: state(flow), "RUNNING")
sizes = [len(p["Steps"]) for p in emr.get_paginator("list_steps").paginate(ClusterId=flow)]
steps = [s for p in emr.get_paginator("list_steps").paginate(ClusterId=flow) for s in p["Steps"]]
print(sizes, steps[0]["Name"], steps[-1]["Name"], len({{s["Id"] for s in steps}}))
print(len(emr.list_steps(ClusterId=flow, StepStates=["RUNNING"])["Steps"]))
ids = [steps[3]["Id"], steps[1]["Id"]]
print([s["Id"] for s in emr.list_steps(ClusterId=flow, StepIds=ids)["Steps"]] == ids)
print(said(emr.list_steps, ClusterId=flow, StepIds=ids, StepStates=["RUNNING"]))
print(code(emr.list_steps, ClusterId=flow, StepIds=[s["Id"] for s in steps[:11]]))
print(code(emr.list_steps, ClusterId=flow, StepIds=["s-NONE"]))
print(code(emr.list_steps, ClusterId=flow, Marker="nonsense"))
print(code(emr.add_job_flow_steps, JobFlowId=flow, Steps=[step("true")] * 136))
others = [start(Name=str(n)) for n in range(55)]
emr.terminate_job_flows(JobFlowIds=others[:1])
first = emr.list_clusters()
assert len(first["Clusters"]) == 50
start(Name="new")     # comes before the others, and shifts no page
rest = emr.list_clusters(Marker=first["Marker"])["Clusters"]
print([c["Name"] for c in rest], first["Clusters"][0]["Name"])
until(lambda: state(others[0]), "TERMINATED")
print([c["Name"] for c in emr.list_clusters(ClusterStates=["TERMINATED"])["Clusters"]])
now = datetime.now(timezone.utc)
print(len(emr.list_clusters(CreatedAfter=now + timedelta(hours=1))["Clusters"]),
      len(emr.list_clusters(CreatedBefore=now - timedelta(hours=1))["Clusters"]),
      len(boto3.client("emr", "eu-west-1").list_clusters()["Clusters"]))
print(said(emr.list_clusters, ClusterStates=["GONE"])[:20])
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "[50, 50, 21] true 119 sleep 600 121",
            *("1", "True"),
            "InvalidRequestException: Cannot specify both StepIds and StepStates.",
            *("InvalidRequestException", "InvalidRequestException", "InvalidRequestException"),
            "ValidationException",
            "['4', '3', '2', '1', '0', 'words'] 54",
            *("['0']", "0 0 0", "ValidationException:"),
        ]


def test_protection_policies_and_failing_steps_do_what_they_say(tmp_path: Path) -> None:
    with emulate("aws", pace=0) as clouds:
        out = python(
            f"""{EMR}{_SAID}
safe = start(Instances={{**nodes, "TerminationProtected": True}},
             Steps=[step("false", fail="TERMINATE_CLUSTER"), step("sleep", "600")])
def states(flow):
    steps = emr.list_steps(ClusterId=flow)["Steps"]
    return " ".join(s["Status"]["State"] for s in reversed(steps))
print(until(lambda: states(safe), "FAILED CANCELLED"), until(lambda: state(safe), "WAITING"))
open_ = start()
print(said(emr.terminate_job_flows, JobFlowIds=[safe, open_]))
emr.get_waiter("cluster_terminated").wait(ClusterId=open_, WaiterConfig=quick)
print(state(safe), code(emr.terminate_job_flows, JobFlowIds=["j-NONE"]),
      code(emr.terminate_job_flows, JobFlowIds=[]))
waits = start(Steps=[step("false", fail="CANCEL_AND_WAIT"), step("sleep", "600")])
print(until(lambda: states(waits), "FAILED CANCELLED"), until(lambda: state(waits), "WAITING"))
goes = start(Steps=[step("false"), step("true")], Instances={{**nodes,
             "KeepJobFlowAliveWhenNoSteps": False}})
emr.get_waiter("cluster_terminated").wait(ClusterId=goes, WaiterConfig=quick)
print(states(goes), status(goes)["StateChangeReason"])
kept = start()
until(lambda: state(kept), "WAITING")
print(code(emr.add_tags, ResourceId=goes, Tags=[{{"Key": "a", "Value": "b"}}]),
      code(emr.put_auto_termination_policy, ClusterId=goes, AutoTerminationPolicy={{}}),
      code(emr.modify_cluster, ClusterId=kept, StepConcurrencyLevel=0),
      emr.modify_cluster(ClusterId=kept, StepConcurrencyLevel=2)["StepConcurrencyLevel"])
ids = [emr.add_job_flow_steps(JobFlowId=kept, Steps=[step("sleep", "600")])["StepIds"][0]
       for _ in range(3)]
print(until(lambda: states(kept), "RUNNING RUNNING PENDING"),
      code(emr.add_job_flow_steps, JobFlowId=kept, Steps=[step("x", fail="CANCEL_AND_WAIT")]))
told = emr.cancel_steps(ClusterId=kept, StepIds=[*ids, "s-NONE"])["CancelStepsInfoList"]
print([one["Status"] for one in told], until(lambda: states(kept), " ".join(["CANCELLED"] * 3)))
emr.set_keep_job_flow_alive_when_no_steps(JobFlowIds=[kept], KeepJobFlowAliveWhenNoSteps=False)
emr.get_waiter("cluster_terminated").wait(ClusterId=kept, WaiterConfig=quick)
print(said(emr.describe_step, ClusterId=kept, StepId="s-NONE"))
print(code(emr.describe_job_flows, JobFlowIds=[kept]), code(emr.list_studios))
lost = start(Instances={{**nodes, "Ec2SubnetId": "subnet-wrong"}})
until(lambda: state(lost), "TERMINATED_WITH_ERRORS")
print(status(lost)["StateChangeReason"])
""",
            clouds.environ(),
            tmp_path,
        )
        assert out.splitlines() == [
            "FAILED CANCELLED WAITING",
            "ValidationException: Could not shut down one or more job flows since they are "
            "termination protected.",
            "WAITING ValidationException ValidationException",
            "FAILED CANCELLED WAITING",
            "FAILED COMPLETED {'Code': 'ALL_STEPS_COMPLETED', 'Message': 'Steps completed'}",
            "InvalidRequestException ValidationException ValidationException 2",
            "RUNNING RUNNING PENDING ValidationException",
            "['SUBMITTED', 'SUBMITTED', 'SUBMITTED', 'FAILED'] CANCELLED CANCELLED CANCELLED",
            "InvalidRequestException: Step id 's-NONE' is not valid.",
            "NotImplemented NotImplemented",
            "{'Code': 'VALIDATION_ERROR', 'Message': "
            "\"The subnet ID 'subnet-wrong' does not exist\"}",
        ]
