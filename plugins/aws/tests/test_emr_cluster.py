"""Clusters of EMR: one name is one cluster, whatever happens on the way; how each end is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from portaflow_aws import asked
from portaflow_aws.emr import Emr

from portaflow.backend import Cause, Handle, State
from portaflow.errors import (
    ConflictError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)

from .field import Field

RUN = "aws:emr.RunJobFlow"


def test_a_cluster_is_found_polled_and_stopped_from_another_driver(field: Field) -> None:
    handle = field.cluster()
    other = Emr(field.config).clusters
    assert other.find(handle.name) == handle
    assert list(other.owned(field.owner)) == [handle]
    assert list(other.owned(f"{field.owner}x")) == []
    assert handle in list(other.owned())
    other.stop(handle)
    seen = field.wait(other, handle)
    assert (seen.state, seen.reason) == (State.STOPPED, "Terminated by user request")
    other.stop(handle)
    assert other.find(handle.name) == handle
    assert list(other.owned(field.owner)) == []


def test_one_name_is_one_cluster_or_a_conflict(field: Field) -> None:
    name, before = field.name(), field.control.count(RUN)
    request = field.cluster_request(name)
    drivers = [Emr(field.config).clusters for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        handles = list(pool.map(lambda driver: driver.start(request), drivers))
    assert len(set(handles)) == 1
    assert field.control.count(RUN) == before + 1
    with pytest.raises(ConflictError, match=name):
        drivers[0].start(field.cluster_request(name, workers=(2, 2)))
    with pytest.raises(ConflictError, match=name):
        drivers[0].start(field.cluster_request(name, overrides={"ScaleDownBehavior": "X"}))


def test_the_cluster_of_somebody_else_is_not_adopted(field: Field) -> None:
    name = field.name()
    request = {**field.cluster_request(name), "Tags": [{"Key": "Team", "Value": "a"}]}
    with pytest.raises(RejectedError, match=r"lack the tags portaflow\.owner"):
        field.emr.clusters.start(request)
    id = field.emr.clusters.aws.client("emr").run_job_flow(**request)["JobFlowId"]
    assert field.emr.clusters.find(name) is None
    field.emr.clusters.stop(Handle(name=name, id=id))


def test_what_was_made_though_the_answer_was_lost_is_adopted(field: Field) -> None:
    name, before = field.name(), field.control.count(RUN)
    field.fault("reset-after", "emr.RunJobFlow")
    request = field.cluster_request(name)
    with pytest.raises(UnavailableError):
        field.emr.clusters.start(request)
    handle = field.emr.clusters.start(request)
    assert handle.name == name
    assert field.control.count(RUN) == before + 1


def test_a_lost_answer_and_a_late_list_make_no_second_cluster(
    field: Field, monkeypatch: pytest.MonkeyPatch, until: Any
) -> None:
    name, before, clusters = field.name(), field.control.count(RUN), field.emr.clusters
    field.fault("hide", "emr.RunJobFlow", seconds=2.0)
    client = clusters.aws.client("emr")
    run = client.run_job_flow

    def lost(**request: Any) -> None:
        run(**request)
        raise UnavailableError("the answer is lost")

    monkeypatch.setattr(client, "run_job_flow", lost)
    request = field.cluster_request(name)
    for _ in range(3):
        with pytest.raises(UnavailableError):
            clusters.start(request)
    found = until(lambda: known(field, name))
    assert clusters.start(request) == found
    assert field.control.count(RUN) == before + 1


KILLED = """
import json, os, sys
from portaflow_aws.emr import Config, Emr
clusters = Emr(Config(log_uri="s3://logs/emr")).clusters
client = clusters.aws.client("emr")
run = client.run_job_flow
client.run_job_flow = lambda **request: (run(**request), os._exit(9))
clusters.start(json.loads(sys.argv[1]))
"""


def test_what_a_killed_process_has_asked_for_is_not_asked_for_again(
    field: Field, until: Any
) -> None:
    name, before, clusters = field.name(), field.control.count(RUN), field.emr.clusters
    field.fault("hide", "emr.RunJobFlow", seconds=3.0)
    request = field.cluster_request(name)
    child = subprocess.run([sys.executable, "-c", KILLED, json.dumps(request)])
    assert child.returncode == 9
    for look in (lambda: clusters.find(name), lambda: clusters.start(request)):
        with pytest.raises(UnavailableError, match="not known whether"):
            look()
    found = until(lambda: known(field, name))
    assert clusters.start(request) == found
    assert field.control.count(RUN) == before + 1


def known(field: Field, name: str) -> Handle | None:
    try:
        return field.emr.clusters.find(name)
    except UnavailableError:  # the core asks again
        return None


def test_what_was_never_made_is_made_when_the_list_must_have_it(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, clusters = field.name(), field.emr.clusters
    field.fault("reset-before", "emr.RunJobFlow")
    for _ in range(2):
        with pytest.raises(UnavailableError):
            clusters.start(field.cluster_request(name))
    monkeypatch.setattr(asked, "_LATE", 0.0)
    assert clusters.start(field.cluster_request(name)).name == name


def test_what_is_not_listed_yet_is_known_all_the_same(field: Field) -> None:
    field.fault("hide", "emr.RunJobFlow", seconds=5.0)
    handle = field.emr.clusters.start(field.cluster_request(field.name()))
    other = Emr(field.config).clusters
    assert other.find(handle.name) == handle
    assert field.wait(other, handle, State.RUNNING)


@pytest.mark.parametrize("effect", ["throttle", "error"])
def test_a_call_that_fails_is_no_failed_cluster(field: Field, effect: str) -> None:
    handle = field.cluster()
    field.fault(effect, "emr.ListClusters")
    with pytest.raises(UnavailableError):
        field.emr.clusters.poll([handle])
    assert field.emr.clusters.poll([handle])[handle.name].state is State.RUNNING  # type: ignore[union-attr]
    field.fault("throttle", "emr.RunJobFlow")
    name = field.name()
    with pytest.raises(UnavailableError, match="Rate exceeded"):
        field.emr.clusters.start(field.cluster_request(name))
    assert field.emr.clusters.start(field.cluster_request(name)).name == name  # at once


@pytest.mark.parametrize(
    ("effect", "spec", "cause", "words"),
    [
        ("fail", {}, Cause.INFRA, "internal error"),
        ("capacity", {}, Cause.CAPACITY, "insufficient capacity"),
        ("capacity", {"spot": True}, Cause.CAPACITY, "capacity"),
        ("die", {}, Cause.INFRA, "master node was terminated"),
    ],
)
def test_a_cluster_that_fails_says_why(
    field: Field, effect: str, spec: Any, cause: Cause, words: str
) -> None:
    field.fault(effect, "emr.RunJobFlow", seconds=0.1 if effect == "die" else 0.0)
    clusters = field.emr.clusters
    handle = clusters.start(field.cluster_request(field.name(), **spec))
    seen = field.wait(clusters, handle, State.FAILED) if effect != "die" else _end(field, handle)
    assert (seen.state, seen.cause) == (State.FAILED, cause)
    assert words in seen.reason
    assert list(clusters.owned(field.owner)) == []


def _end(field: Field, handle: Handle) -> Any:
    return field.wait(field.emr.clusters, handle)


def test_a_cluster_that_hangs_is_stopped(field: Field) -> None:
    field.fault("hang", "emr.RunJobFlow")
    handle = field.emr.clusters.start(field.cluster_request(field.name()))
    seen = field.emr.clusters.poll([handle])[handle.name]
    assert seen.state is State.PENDING  # type: ignore[union-attr]
    field.emr.clusters.stop(handle)
    assert field.wait(field.emr.clusters, handle).state is State.STOPPED


def test_a_bootstrap_script_that_fails_is_the_users(field: Field) -> None:
    s3 = field.emr.clusters.aws.client("s3")
    s3.put_object(Bucket="logs", Key="no.sh", Body=b"#!/bin/sh\nexit 3\n")
    other = Field(field.clouds, bootstrap=("s3://logs/no.sh",))
    handle = other.emr.clusters.start(other.cluster_request(other.name()))
    seen = other.wait(other.emr.clusters, handle, State.FAILED)
    assert seen.cause is Cause.USER
    assert "bootstrap action 1 returned a non-zero return code" in seen.reason


def test_a_subnet_that_is_not_there_is_the_users(field: Field) -> None:
    other = Field(field.clouds, subnets=("subnet-nonesuch",))
    handle = other.emr.clusters.start(other.cluster_request(other.name()))
    seen = other.wait(other.emr.clusters, handle, State.FAILED)
    assert (seen.cause, "subnet-nonesuch" in seen.reason) == (Cause.USER, True)


def test_a_cluster_that_nobody_uses_ends_after_its_time(field: Field) -> None:
    handle = field.cluster(ttl=900)
    field.control.jump(890)
    field.wait(field.emr.clusters, handle, State.RUNNING)
    field.control.jump(20)
    seen = field.wait(field.emr.clusters, handle)
    assert (seen.state, "idle" in seen.reason) == (State.STOPPED, True)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"instance_types": ("m9.huge",)}, "m9.huge"),
        ({"release": "emr-0.1"}, "emr-0.1"),
        ({"service_role": ""}, "ServiceRole"),
        ({"security_configuration": "nonesuch"}, "nonesuch"),
    ],
)
def test_what_emr_refuses_is_named_and_leaves_nothing(
    field: Field, config: Any, words: str
) -> None:
    other = Field(field.clouds, **config)
    name = other.name()
    with pytest.raises((RejectedError, NotFoundError), match=words):
        other.emr.clusters.start(other.cluster_request(name))
    assert other.emr.clusters.find(name) is None
    assert list(other.emr.clusters.owned(other.owner)) == []


def test_what_emr_does_not_know_is_not_found(field: Field) -> None:
    known, unknown = field.cluster(), Handle(name="pf-x", id="j-NONESUCH")
    seen = field.emr.clusters.poll([unknown, known])
    assert isinstance(seen["pf-x"], NotFoundError)
    assert seen[known.name].state is State.RUNNING  # type: ignore[union-attr]
    field.emr.clusters.stop(unknown)
    assert field.emr.clusters.find("pf-x") is None


def test_many_clusters_cost_a_list_call_for_each_fifty(field: Field) -> None:
    clusters = field.emr.clusters
    requests = [field.cluster_request(field.name(), ttl=60) for _ in range(60)]
    run = clusters.aws.client("emr").run_job_flow
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda request: run(**request)["JobFlowId"], requests))
    handles = [Handle(name=r["Name"], id=id) for r, id in zip(requests, ids, strict=True)]
    before = {op: field.control.count(f"aws:emr.{op}") for op in ("*", "ListClusters")}
    answer = Emr(field.config).clusters.poll(handles)
    assert len(answer) == 60
    assert field.control.count("aws:emr.ListClusters") - before["ListClusters"] == 2
    assert field.control.count("aws:emr.*") - before["*"] == 2


def test_a_folder_that_is_not_ours_alone_is_not_used(
    field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(RejectedError, match="set TMPDIR"):
        field.emr.clusters.find(field.name())
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"portaflow-aws-{os.getuid()}").mkdir(0o755)
    with pytest.raises(RejectedError, match="nobody else can use"):
        field.emr.clusters.find(field.name())
