"""What is planned: clusters around their users, requests, and what a target cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest

from portaflow import CallTask, Cluster, Pipeline, Size, Source
from portaflow.backend import ClusterSpec, Fit, JobSpec, Request, Verdict
from portaflow.errors import (
    DefinitionError,
    PluginError,
    RejectedError,
    TargetError,
    UnsupportedError,
)
from portaflow.names import resource_name
from portaflow.plan import Plan, native_request
from portaflow.planner import plan
from portaflow.plugins import Backends
from portaflow.target import Target

from .plans import (
    CONTAINER_ONLY,
    HYBRID,
    RUN,
    SPARK_ONLY,
    Compute,
    Containers,
    Plain,
    Poor,
    PoorContainers,
    Serverless,
    container,
    pipeline,
    planned,
    spark,
    target,
)

# -- clusters


def test_a_cluster_waits_for_what_all_its_first_users_wait_for() -> None:
    made = planned(pipeline(
        container("x", outputs=["o"]),
        container("y"),
        spark("a", inputs={"i": "x.o"}),
        spark("b", inputs={"i": "x.o"}, after=["y"]),
        spark("later", after=["a", "b"]),
    ))  # fmt: skip
    assert made.by_id["cluster/c"].needs == {"x"}
    assert made.by_id["b"].needs == {"x", "y", "cluster/c"}
    assert made.by_id["a"].parent == "cluster/c"


def test_a_cluster_waits_for_nothing_when_one_of_its_users_can_begin() -> None:
    made = planned(pipeline(container("x"), spark("a"), spark("b", after=["x"])))
    assert made.by_id["cluster/c"].needs == frozenset()


def test_a_user_behind_a_container_does_not_delay_the_cluster() -> None:
    made = planned(pipeline(spark("a"), container("x", after=["a"]), spark("b", after=["x"])))
    assert made.by_id["cluster/c"].needs == frozenset()


def test_a_cluster_is_stopped_after_all_its_users() -> None:
    made = planned(pipeline(spark("a"), container("x", after=["a"]), spark("b", after=["x"])))
    stop = made.by_id["stop/c"]
    assert (stop.verb, stop.undoes) == ("stop", "cluster/c")
    assert stop.needs == {"cluster/c", "a", "b"}


def test_every_action_stands_after_what_it_needs() -> None:
    for given in (HYBRID, SPARK_ONLY, CONTAINER_ONLY):
        seen: set[str] = set()
        waiting = [a for a in planned(given).actions if a.kind != "cluster"]
        for action in waiting:
            assert {n for n in action.needs if not n.startswith("cluster/")} <= seen
            seen.add(action.id)


@pytest.mark.parametrize("by", ["pipeline", "target"])
def test_a_cluster_that_is_attached_is_never_started_or_stopped(by: str) -> None:
    attach = "mine" if by == "pipeline" else ""
    where = target(clusters={"c": {"attach": "mine"}}) if by == "target" else target()
    made = planned(pipeline(spark("a"), clusters=(Cluster(name="c", attach=attach),)), where)
    assert [(a.id, a.verb) for a in made.actions] == [("cluster/c", "attach"), ("a", "start")]
    attached, job = made.actions
    assert (attached.name, attached.request) == ("mine", None)
    assert job.request is not None
    assert job.request["parent"] == "mine"


@pytest.mark.parametrize("made", [HYBRID, pipeline(spark("b", after=("a",)), spark("a"))])
def test_each_action_stands_after_what_it_needs(made: Pipeline) -> None:
    seen: set[str] = set()
    for action in planned(made).actions:
        assert action.needs <= seen, action.id
        seen.add(action.id)


def test_a_task_without_a_cluster_has_one_of_its_own() -> None:
    made = planned(pipeline(spark("a", cluster=""), spark("b", cluster="")))
    assert [a.id for a in made.actions] == [
        "cluster/a-own", "a", "stop/a-own", "cluster/b-own", "b", "stop/b-own",
    ]  # fmt: skip


def test_a_serverless_backend_has_no_clusters() -> None:
    made = planned(HYBRID, compute=Serverless(None))
    assert {a.kind for a in made.actions} == {"job", "container", "call"}
    assert all(not a.parent and a.verb == "start" for a in made.actions)
    lost = {(n.action, n.field, n.fit.verdict) for n in made.notes}
    assert lost >= {("features", f, Verdict.APPROXIMATED) for f in ("workers", "size")}
    assert not {field for _, field, _ in lost} & {"spot", "spark_version", "attach"}


def test_a_pipeline_without_spark_needs_no_compute() -> None:
    bindings = {"store": {"backend": "folder"}, "container": {"backend": "process"}}
    where = Target.model_validate({"name": "x", **bindings})
    assert plan(pipeline(container("a")), where, RUN, Backends(where)).actions


# -- requests


def test_a_request_holds_name_owner_time_to_live_and_the_rendered_words() -> None:
    made = planned(HYBRID)
    job = made.by_id["features"]
    assert job.request is not None
    assert job.name == resource_name("recommendations", made.home, "job", "features")
    assert job.request["name"] == job.name
    assert job.request["owner"] == made.owner
    assert job.request["ttl"] > HYBRID.by_id["features"].timeout
    assert job.request["args"] == [
        "--events", f"mem://bucket/_staged/{'ab' * 32}/sample.txt", "--scale", "1",
    ]  # fmt: skip
    assert job.request["conf"] == {"spark.store": "bucket", "spark.sql.shuffle.partitions": "4"}
    train = made.by_id["train"].request
    assert train is not None
    home = "mem://bucket/recommendations/2026-01-02"
    assert train["env"] == {
        "STORE": "bucket",
        "PORTAFLOW_INPUT_RATINGS": f"{home}/features/ratings",
        "PORTAFLOW_OUTPUT_FACTORS": f"{home}/train/factors",
        "PORTAFLOW_RESULT": f"{home}/train/_result.json",
    }
    assert train["command"][2:] == [f"{home}/features/ratings", f"{home}/train/factors"]


def test_a_second_attempt_differs_in_the_name_alone() -> None:
    action = planned(HYBRID).by_id["train"]
    assert action.spec is not None
    assert native_request(Plain(), action.name, action.spec, "") == action.request
    again = native_request(Plain(), "other", action.spec, "")
    assert {k for k in again if again[k] != (action.request or {})[k]} == {"name"}


def test_parameters_of_the_run_then_the_target_then_the_pipeline() -> None:
    given = pipeline(container("a", args=["{{ params.x }} {{ params.y }} {{ params.z }}"]),
                     params={"x": 1, "y": 1, "z": 1})  # fmt: skip
    where = target(params={"x": 2, "y": 2, "other": 9})
    request = planned(given, where, run=replace(RUN, params={"x": 3})).by_id["a"].request
    assert request is not None
    assert request["args"] == ["3 2 1"]


@pytest.mark.parametrize(
    ("default", "given", "fits"),
    [(1, 2, True), (1.5, 2, True), (1, 2.5, False), (1, True, False), (True, 1, False),
     ("a", "b", True), ("a", 1, False), (None, [1], True), ([1], "x", False), ({}, {"a": 1}, True)],
)  # fmt: skip
def test_a_parameter_has_the_type_of_its_default(default: Any, given: Any, fits: bool) -> None:
    def make() -> Plan:
        run = replace(RUN, params={"x": given})
        return planned(pipeline(container("a"), params={"x": default}), run=run)

    if fits:
        assert make()
    else:
        with pytest.raises(DefinitionError, match=r"parameter 'x' is .* like its default"):
            make()


def test_a_parameter_that_is_not_there_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"has no parameter 'scal'; did you mean 'scale'\?"):
        planned(HYBRID, run=replace(RUN, params={"scal": 2}))


def test_sources_of_the_target_take_the_place_of_the_pipelines() -> None:
    where = target(sources={"raw": "gs://elsewhere/{{ run_id }}"})
    assert planned(CONTAINER_ONLY, where).by_id["clean"].inputs == {
        "raw": "gs://elsewhere/2026-01-02"
    }


def test_overrides_are_merged_deep_the_tasks_over_the_targets() -> None:
    where = target(
        container={"overrides": {"container": {"env": {"A": "target"}, "x": {"y": 1, "z": 1}}}},
        tasks={"a": {"overrides": {"x": {"z": 2}, "list": [1]}}},
    )
    made = planned(pipeline(container("a"), container("b")), where)
    a, b = made.by_id["a"].request, made.by_id["b"].request
    assert a is not None
    assert b is not None
    assert (a["x"], a["list"], a["env"]["A"]) == ({"y": 1, "z": 2}, [1], "target")
    assert (b["x"], a["env"]["STORE"]) == ({"y": 1, "z": 1}, "bucket")
    assert "list" not in b


def test_a_target_changes_tasks_and_clusters_but_not_what_they_are() -> None:
    where = target(
        tasks={"a": {"retries": 5, "timeout": "1h", "size": {"cpu": 8}}, "unknown": {"retries": 1}},
        clusters={"c": {"workers": [2, 6], "spot": True}},
    )
    made = planned(pipeline(spark("a", size=Size(memory="3Gi"))), where)
    job, cluster = made.by_id["a"], made.by_id["cluster/c"]
    assert (job.retries, job.timeout) == (5, 3600.0)
    assert isinstance(job.spec, JobSpec)
    assert (job.spec.size.cpu, job.spec.size.memory) == (8.0, 3.0)
    assert isinstance(cluster.spec, ClusterSpec)
    assert (cluster.spec.workers, cluster.spec.spot) == ((2, 6), True)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"tasks": {"a": {"id": "b"}}}, "tasks.a.id: belongs to the pipeline"),
        ({"tasks": {"a": {"inputs": {}}}}, "tasks.a.inputs: belongs to the pipeline"),
        (
            {"tasks": {"a": {"retires": 1}}},
            "tasks.a: retires: unknown key; did you mean 'retries'?",
        ),
        ({"tasks": {"a": {"retries": "x"}}}, "tasks.a: retries: "),
        ({"tasks": {"a": {"overrides": 3}}}, "tasks.a.overrides: must be a table"),
        ({"clusters": {"c": {"workers": "x"}}}, "clusters.c: workers"),
        ({"clusters": {"c": {"overrides": 3}}}, "clusters.c.overrides: must be a table"),
    ],
)
def test_a_change_that_cannot_be_is_told_with_its_place(
    settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(TargetError) as caught:
        planned(pipeline(spark("a")), target(**settings))
    assert str(caught.value).startswith(f"target 'fake': {told}")


def test_templates_are_rendered_wherever_they_may_stand() -> None:
    given = pipeline(
        container("a", args=["{{ x }}"]),
        spark("b", conf={"k": "{{ x }}"}),
        CallTask(id="c", function="m:f", kwargs={"k": [{"deep": "{{ x }}"}]}),
        container("d", env={"E": "{{ x }}"}),
        container("e", inputs={"i": "s"}),
        sources={"s": Source(uri="s3://{{ x }}")},
    )
    told = []
    for task in given.tasks:
        only = pipeline(task, sources=given.sources)
        with pytest.raises(DefinitionError) as caught:
            planned(only)
        told.append(str(caught.value).split(": template")[0])
    assert told == [
        "task 'a': args[0]", "task 'b': conf.k", "task 'c': kwargs.k[0].deep", "task 'd': env.E",
        "task 'e': inputs.i: uri",
    ]  # fmt: skip


# -- what a backend cannot do


def test_all_that_is_refused_is_listed_at_once() -> None:
    given = pipeline(
        spark("a", main="a.jar", packages=["o:l:1"]),
        container("b", size=Size(gpu=1), secrets={"T": "t"}),
        clusters=(Cluster(name="c", workers=(1, 3), spot=True),),
    )
    with pytest.raises(UnsupportedError) as caught:
        planned(given, compute=Poor(None), container=PoorContainers(None))
    assert str(caught.value).splitlines() == [
        "target 'fake' cannot run pipeline 'p':",
        "  cluster/c: workers: the backend does not have 'autoscale'",
        "  cluster/c: spot: there is no spot market here",
        "  a: main: the backend does not have 'jar'",
        "  a: packages: the backend does not have 'packages'",
        "  b: size.gpu: the backend does not have 'gpu'",
        "  b: secrets: the backend does not have 'secrets'",
        "change these fields, or choose another target",
    ]


def test_what_is_approximated_is_noted() -> None:
    class Fitting(Plain[Any]):
        def fit(self, spec: Any) -> Mapping[str, Fit]:
            return {
                "size": Fit(Verdict.APPROXIMATED, "m5.large"), "args": Fit(Verdict.HONOURED),
            }  # fmt: skip

    class Fit5(Containers):
        driver = Fitting()

    made = planned(pipeline(container("a")), container=Fit5(None))
    assert [(n.action, n.field, n.fit.reason) for n in made.notes] == [("a", "size", "m5.large")]


@dataclass
class Raising(Plain[Any]):
    error: Exception

    def request(self, name: str, spec: Any, parent: str = "") -> Request:
        raise self.error


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [
        (RejectedError("no command"), DefinitionError, "a: backend 'plain-containers': no command"),
        (
            KeyError("x"),
            PluginError,
            "a: backend 'plain-containers' cannot say its request: KeyErr",
        ),
    ],
)
def test_a_request_that_cannot_be_said_is_told(
    error: Exception, kind: type[Exception], told: str
) -> None:
    class Broken(Containers):
        driver = Raising(error)

    with pytest.raises(kind) as caught:
        planned(pipeline(container("a")), container=Broken(None))
    assert str(caught.value).startswith(told)


def test_a_job_is_told_where_the_files_are_that_its_backend_brings() -> None:
    class Brings(Plain[JobSpec]):
        def files(self, spec: JobSpec) -> Mapping[str, bytes]:
            return {"run.py": b"launch"} if spec.secrets else {}

    class Launches(Compute):
        job_driver = Brings()

    made = planned(pipeline(spark("a"), spark("b", secrets={"T": "t"})), compute=Launches(None))
    (staged,) = (s for s in made.staged if s.content == b"launch")
    requests = {a.id: a.request or {} for a in made.actions}
    assert [requests[id].get("files") for id in "ab"] == [None, {"run.py": staged.uri}]
    again = native_request(Brings(), "x", made.by_id["b"].spec or JobSpec(), "")
    assert again["files"] == {"run.py": staged.uri}, "of another attempt"
    told = {"uri": staged.uri, "sha256": staged.file.digest, "bytes": 6}
    assert told in made.to_json()["stage"]
