"""The model: what Python and YAML can say, and what is refused before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from portaflow import CallTask, Cluster, ContainerTask, Pipeline, Size, Source, SparkTask
from portaflow.errors import DefinitionError
from portaflow.load import load
from portaflow.validation import explain

WHOLE = Pipeline(
    name="shop",
    description="All that can be said.",
    params={"scale": 1, "rate": 0.5, "tags": ["a", "b"], "deep": {"x": None}},
    sources={
        "events": Source(package="pyspark", path="data/x.txt"),
        "orders": Source(uri="s3://bucket/{{ ds }}"),
        "local": Source(path="data.csv"),
    },
    clusters=[
        Cluster(name="spark", workers=(1, 4), size=Size(cpu=2, memory="8Gi"), spot=True, ttl="2h")
    ],
    tasks=[
        SparkTask(
            id="features",
            main="jobs/features.py",
            cluster="spark",
            inputs={"events": "events"},
            outputs=["clean"],
            conf={"a": "b"},
            packages=["a:b:1"],
            timeout="30m",
        ),
        ContainerTask(
            id="train",
            image="train",
            inputs={"clean": "features.clean"},
            outputs=["model"],
            command=["python", "train.py"],
            env={"EPOCHS": "{{ params.scale }}"},
            secrets={"TOKEN": "registry-token"},
            retries=2,
            retry_delay="10s",
        ),
        CallTask(id="tell", function="notify:done", after=["train"], kwargs={"n": 1, "s": "x"}),
    ],
)

YAML = """
name: shop
description: All that can be said.
params: {scale: 1, rate: 0.5, tags: [a, b], deep: {x: null}}
sources:
  events: {package: pyspark, path: data/x.txt}
  orders: "s3://bucket/{{ ds }}"
  local: data.csv
clusters:
  - {name: spark, workers: [1, 4], size: {cpu: 2, memory: 8Gi}, spot: true, ttl: 2h}
tasks:
  - id: features
    kind: spark
    main: jobs/features.py
    cluster: spark
    inputs: {events: events}
    outputs: [clean]
    conf: {a: b}
    packages: ["a:b:1"]
    timeout: 30m
  - id: train
    kind: container
    image: train
    inputs: {clean: features.clean}
    outputs: [model]
    command: [python, train.py]
    env: {EPOCHS: "{{ params.scale }}"}
    secrets: {TOKEN: registry-token}
    retries: 2
    retry_delay: 10s
  - {id: tell, kind: call, function: "notify:done", after: [train], kwargs: {n: 1, s: x}}
"""


def task(id: str, **rest: Any) -> ContainerTask:
    return ContainerTask(id=id, image="x", **rest)


def pipeline(*tasks: Any, **rest: Any) -> Pipeline:
    return Pipeline(name="p", tasks=tasks, **rest)


def refusal(make: Any) -> str:
    with pytest.raises((DefinitionError, ValidationError)) as caught:
        make()
    error = caught.value
    return explain(error, "here") if isinstance(error, ValidationError) else str(error)


# -- one model


def test_python_and_yaml_give_the_same_model(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.yaml"
    file.write_text(YAML)
    assert load(file).pipeline == WHOLE


def test_a_pipeline_survives_json() -> None:
    assert Pipeline.model_validate_json(WHOLE.model_dump_json()) == WHOLE


def test_a_pipeline_survives_yaml() -> None:
    assert (
        Pipeline.model_validate(yaml.safe_load(yaml.safe_dump(WHOLE.model_dump(mode="json"))))
        == WHOLE
    )


def test_a_pipeline_is_frozen() -> None:
    with pytest.raises(ValidationError):
        WHOLE.name = "other"  # type: ignore[misc]


def test_the_schema_names_every_key_of_every_task() -> None:
    schema = Pipeline.model_json_schema()
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"name", "tasks"}
    kinds = schema["properties"]["tasks"]["items"]["discriminator"]["mapping"]
    assert set(kinds) == {"spark", "container", "call"}
    for model in (SparkTask, ContainerTask, CallTask, Cluster, Size, Source):
        assert set(schema["$defs"][model.__name__]["properties"]) == set(model.model_fields)


# -- sizes and times


@pytest.mark.parametrize(
    ("said", "gibibytes"),
    [(4, 4.0), (0.5, 0.5), ("512Mi", 0.5), ("4Gi", 4.0), ("4 GiB", 4.0), ("1Ti", 1024.0),
     ("8GB", 8e9 / 2**30), ("500m", 500e6 / 2**30), ("1024ki", 2**-10), ("2", 2.0)],
)  # fmt: skip
def test_memory_is_in_gibibytes(said: Any, gibibytes: float) -> None:
    assert Size(memory=said).memory == pytest.approx(gibibytes)


@pytest.mark.parametrize(
    "said", [0, -1, "-4Gi", "4 apples", "", "Gi", "1e999", float("nan"), float("inf"), [4]]
)
def test_what_is_no_size_is_refused(said: Any) -> None:
    assert "memory" in refusal(lambda: Size(memory=said))


@pytest.mark.parametrize(
    ("said", "seconds"),
    [(90, 90.0), ("90s", 90.0), ("1.5m", 90.0), ("2h", 7200.0), ("1d", 86400.0)],
)
def test_a_time_is_in_seconds(said: Any, seconds: float) -> None:
    assert task("a", timeout=said).timeout == seconds


@pytest.mark.parametrize("said", [0, -5, "soon", "1w", "400d", float("inf"), None])
def test_what_is_no_time_is_refused(said: Any) -> None:
    assert "timeout" in refusal(lambda: task("a", timeout=said))


@pytest.mark.parametrize(("said", "range"), [(3, (3, 3)), ((0, 5), (0, 5)), ([2, 2], (2, 2))])
def test_workers_are_a_count_or_a_range(said: Any, range: tuple[int, int]) -> None:
    assert Cluster(name="c", workers=said).workers == range


@pytest.mark.parametrize("said", [(3, 1), -1, "many", (1, 2, 3), True, (1, 10**6)])
def test_what_is_no_count_of_workers_is_refused(said: Any) -> None:
    assert "workers" in refusal(lambda: Cluster(name="c", workers=said))


# -- the graph


def test_edges_follow_from_data_and_after() -> None:
    p = pipeline(task("c", after=["b"]), task("b", inputs={"i": "a.o"}), task("a", outputs=["o"]))
    assert p.upstream() == {"c": {"b"}, "b": {"a"}, "a": frozenset()}
    assert p.order() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("tasks", "rest", "told"),
    [
        ([("a", {"after": ["b"]}), ("b", {"after": ["a"]})], {}, "circle: "),
        ([("a", {"after": ["a"]})], {}, "circle: a -> a"),
        ([("a", {"inputs": {"i": "a.o"}, "outputs": ["o"]})], {}, "circle: a -> a"),
        ([("a", {}), ("a", {})], {}, "task 'a' is there twice"),
        ([("a", {"outputs": ["o", "o"]})], {}, "output of task 'a' 'o' is there twice"),
        ([("a", {"outputs": ["o-x", "o_x"]})], {}, "environment variable of task 'a' 'O_X'"),
        ([("a", {"inputs": {"i": "b.o"}})], {}, "task 'a': input 'i' reads 'b.o'"),
        ([("a", {"inputs": {"i": "evnts"}})], {"sources": {"events": "s3://x"}}, "mean 'events'?"),
        ([("a", {"outputs": ["data"]}), ("b", {"inputs": {"i": "a.dat"}})], {}, "mean 'a.data'?"),
        ([("train", {}), ("b", {"after": ["trian"]})], {}, "after names 'trian', which is no task"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(
    tasks: list[tuple[str, dict[str, Any]]], rest: Mapping[str, Any], told: str
) -> None:
    assert told in refusal(lambda: pipeline(*(task(id, **more) for id, more in tasks), **rest))


def test_a_cluster_that_is_not_defined_is_refused() -> None:
    spark = SparkTask(id="a", main="a.py", cluster="sprak")
    told = refusal(lambda: pipeline(spark, clusters=[Cluster(name="spark")]))
    assert told == "task 'a': cluster 'sprak' is not defined; did you mean 'spark'?"


def test_a_cluster_is_defined_once() -> None:
    two = [Cluster(name="c"), Cluster(name="c")]
    assert "cluster 'c' is there twice" in refusal(lambda: pipeline(task("a"), clusters=two))


# -- names


@pytest.mark.parametrize("name", ["a", "train-2", "Größe", "a b", "数据", "x" * 200])
def test_names_in_any_language_are_taken(name: str) -> None:
    assert task(name).id == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/b", "a\\b", "a.b", "_manifest", "-rf", "a\nb", "a\0b", "x" * 201,
     "\u202eabc", "\x1b[31m"],
)  # fmt: skip
def test_hostile_names_are_refused_wherever_they_stand(name: str) -> None:
    for make in (
        lambda: task(name),
        lambda: task("a", outputs=[name]),
        lambda: task("a", inputs={name: "s"}),
        lambda: pipeline(task("a"), sources={name: "s3://x"}),
        lambda: Cluster(name=name),
        lambda: Pipeline(name=name, tasks=[task("a")]),
    ):
        assert "name" in refusal(make)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "Ä", "A\n"])
def test_what_is_no_environment_variable_is_refused(name: str) -> None:
    assert refusal(lambda: task("a", env={name: "x"}))
    assert refusal(lambda: task("a", secrets={name: "x"}))


# -- messages


def test_a_message_names_field_cause_and_next_step() -> None:
    told = refusal(lambda: Pipeline.model_validate(
        {"name": "p", "tasks": [{"kind": "spark", "id": "a", "main": "a.py", "tiemout": 3}]}
    ))  # fmt: skip
    assert told.startswith("here: tasks[0].tiemout: unknown key")


@pytest.mark.parametrize("source", [{}, {"uri": "s3://x", "path": "y"}, {"package": "x"}, 5])
def test_a_source_is_one_thing(source: Any) -> None:
    assert "sources.s" in refusal(lambda: pipeline(task("a"), sources={"s": source}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("nan")], {1, 2}, object()])
def test_a_parameter_is_json(value: Any) -> None:
    assert "params.x" in refusal(lambda: pipeline(task("a"), params={"x": value}))


def test_a_value_in_a_message_is_short() -> None:
    told = refusal(lambda: task("a", retries="x" * 10**6))
    assert len(told) < 300
