"""What a cluster's spec becomes in RunJobFlow's words; each is taken by EMR, as it is."""

from __future__ import annotations

from typing import Any

import pytest
from portaflow_aws import catalogue

from portaflow.backend import ClusterSpec, Machines, Size, State, Verdict
from portaflow.errors import RejectedError

from .field import Field

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "groups": ({}, {"workers": (2, 2), "size": Size(cpu=8, memory=20, disk=200)}),
    "a range": ({}, {"workers": (2, 5)}),
    "from none": ({}, {"workers": (0, 3), "spot": True}),
    "one machine": ({}, {"workers": (0, 0)}),
    "fleets": (
        {"instances": "fleets", "instance_types": ("m5.xlarge", "m6i.xlarge")},
        {"workers": (2, 4), "spot": True, "size": Size(disk=50)},
    ),
    "settings": (
        {
            "subnets": ("subnet-0123456789abcdef0",),
            "security_groups": ("sg-1",),
            "key": "mine",
            "tags": {"team": "a"},
            "concurrent_jobs": 3,
        },
        {"conf": {"spark.a": "b c"}, "spark_version": "3.4"},
    ),
}


@pytest.mark.parametrize(("config", "spec"), CASES.values(), ids=CASES)
def test_what_is_planned_is_what_is_sent_and_emr_takes_it(
    field: Field, config: Any, spec: Any
) -> None:
    one = Field(field.clouds, **config)
    request = one.cluster_request(one.name(), **spec)
    handle = one.emr.clusters.start(request)
    (sent,) = [
        call.params
        for call in one.control.seen("aws:emr.RunJobFlow")
        if call.params["Name"] == handle.name
    ]
    assert sent == request
    one.wait(one.emr.clusters, handle, State.RUNNING)
    one.clear()


def body(field: Field, case: str) -> Any:
    config, spec = CASES[case]
    return Field(field.clouds, **config).cluster_request("pf-c-1", **spec)


def test_workers_and_their_size_are_groups_of_instances(field: Field) -> None:
    request = body(field, "groups")
    master, core = request["Instances"]["InstanceGroups"]
    assert (master["InstanceRole"], master["InstanceType"]) == ("MASTER", "m6i.xlarge")
    assert (core["InstanceType"], core["InstanceCount"], core["Market"]) == (
        "m6i.2xlarge",
        2,
        "ON_DEMAND",
    )
    (disk,) = core["EbsConfiguration"]["EbsBlockDeviceConfigs"]
    assert disk["VolumeSpecification"] == {"VolumeType": "gp3", "SizeInGB": 200}
    assert "ManagedScalingPolicy" not in request
    assert field.emr.clusters.machines(request) == [
        Machines(type="m6i.xlarge"),
        Machines(type="m6i.2xlarge", least=2, most=2),
    ]


def test_a_range_is_managed_scaling(field: Field) -> None:
    request = body(field, "a range")
    assert request["ManagedScalingPolicy"]["ComputeLimits"] == {
        "UnitType": "Instances",
        "MinimumCapacityUnits": 2,
        "MaximumCapacityUnits": 5,
    }
    assert field.emr.clusters.machines(request)[1] == Machines(type="c6i.xlarge", least=2, most=5)
    fit = field.emr.clusters.fit(ClusterSpec(workers=(0, 3)))["workers"]
    assert (fit.verdict, "from 1" in fit.reason) == (Verdict.APPROXIMATED, True)
    assert body(field, "from none")["Instances"]["InstanceGroups"][1]["Market"] == "SPOT"
    assert len(body(field, "one machine")["Instances"]["InstanceGroups"]) == 1


def test_fleets_take_any_of_several_types(field: Field) -> None:
    request = body(field, "fleets")
    master, core = request["Instances"]["InstanceFleets"]
    assert master["TargetOnDemandCapacity"] == 1
    assert core["TargetSpotCapacity"] == 2
    assert [t["InstanceType"] for t in core["InstanceTypeConfigs"]] == ["m5.xlarge", "m6i.xlarge"]
    assert request["ManagedScalingPolicy"]["ComputeLimits"]["UnitType"] == "InstanceFleetUnits"
    assert field.emr.clusters.machines(request)[1] == Machines(
        type="m5.xlarge or m6i.xlarge", least=2, most=4, spot=True
    )


def test_settings_are_in_the_request(field: Field) -> None:
    request = body(field, "settings")
    instances = request["Instances"]
    assert instances["Ec2SubnetId"] == "subnet-0123456789abcdef0"
    assert instances["AdditionalMasterSecurityGroups"] == ["sg-1"]
    assert instances["AdditionalSlaveSecurityGroups"] == ["sg-1"]
    assert instances["Ec2KeyName"] == "mine"
    assert request["ReleaseLabel"] == "emr-6.15.0"
    assert request["StepConcurrencyLevel"] == 3
    assert {"Key": "team", "Value": "a"} in request["Tags"]
    (defaults,) = request["Configurations"]
    assert defaults["Properties"] == {"spark.a": "b c"}


def test_what_cannot_be_said_is_refused_with_what_to_do(field: Field) -> None:
    with pytest.raises(RejectedError, match="no known machine type has 1000 cores"):
        field.cluster_request("pf-c-1", size=Size(cpu=1000))
    with pytest.raises(RejectedError, match=r"Spark '9\.9'.*`release`"):
        field.cluster_request("pf-c-1", spark_version="9.9")
    two = Field(field.clouds, subnets=("subnet-1", "subnet-2"))
    with pytest.raises(RejectedError, match='instances = "fleets"'):
        two.cluster_request("pf-c-1")
    fits = field.emr.clusters.fit(ClusterSpec(size=Size(cpu=1000), spark_version="9.9"))
    assert {fits[f].verdict for f in ("size", "spark_version")} == {Verdict.REFUSED}


@pytest.mark.parametrize(("ttl", "idle"), [(5, 60), (3600, 3600), (10**7, 604_800)])
def test_the_time_to_live_is_the_idle_time_that_emr_takes(
    field: Field, ttl: int, idle: int
) -> None:
    request = field.cluster_request("pf-c-1", ttl=ttl)
    assert request["AutoTerminationPolicy"] == {"IdleTimeout": idle}
    assert f"for {idle} s" in field.emr.clusters.fit(ClusterSpec(ttl=ttl))["ttl"].reason


@pytest.mark.parametrize(
    ("size", "name"),
    [
        (Size(), "c6i.xlarge"),
        (Size(cpu=4, memory=9), "m6i.xlarge"),
        (Size(cpu=4, memory=32), "r6i.xlarge"),
        (Size(cpu=4.5, memory=16), "c6i.2xlarge"),
        (Size(gpu=1), "g5.xlarge"),
        (Size(gpu=4), "g5.12xlarge"),
    ],
)
def test_the_cheapest_type_that_is_large_enough_is_taken(size: Size, name: str) -> None:
    assert catalogue.instance(size).name == name
