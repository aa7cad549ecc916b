"""Ways to get a pipeline or a portaflow.toml wrong, made by operators on right ones."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NAN, INF = float("nan"), float("inf")
Document = dict[str, Any]
Way = tuple[str | int, ...]

PIPELINE: Document = {
    "name": "shop",
    "params": {"scale": 1},
    "sources": {"events": {"path": "data.csv"}, "orders": {"uri": "s3://bucket/{{ ds }}"}},
    "clusters": [{"name": "spark", "workers": [1, 1], "size": {"cpu": 2, "memory": "1Gi"}}],
    "tasks": [
        {
            "kind": "spark", "id": "features", "main": "job.py", "cluster": "spark",
            "inputs": {"events": "events", "orders": "orders"}, "outputs": ["clean"],
            "args": ["{{ inputs.events }}"], "py_files": ["lib.py"], "jars": ["lib.jar"],
            "conf": {"spark.x": "{{ ds }}"}, "env": {"DAY": "{{ ds }}"}, "retries": 1,
            "timeout": "1h",
        },
        {
            "kind": "container", "id": "train", "image": "train", "command": ["python", "t.py"],
            "args": ["{{ inputs.clean }}"], "inputs": {"clean": "features.clean"},
            "outputs": ["model"], "env": {"N": "{{ params.scale }}"},
            "size": {"cpu": 1, "memory": 2}, "secrets": {"TOKEN": "registry-token"},
        },
        {
            "kind": "call", "id": "tell", "function": "call.py:tell", "after": ["train"],
            "kwargs": {"day": "{{ ds }}", "deep": {"list": ["{{ run_id }}"]}},
        },
    ],
}  # fmt: skip
CLASSES = {"spark": "SparkTask", "container": "ContainerTask", "call": "CallTask"}

TARGET: Document = {
    "default_target": "here",
    "targets": {
        "here": {
            "extends": "base",
            "max_parallel": 4,
            "container": {"backend": "process", "root": "state", "cache": "cache"},
            "params": {"scale": 2},
            "tasks": {"train": {"retries": 2, "size": {"cpu": 2}}},
            "clusters": {"spark": {"workers": 2}},
            "sources": {"orders": "s3://other/{{ ds }}"},
        },
        "base": {
            "store": {"backend": "folder", "root": "store"},
            "compute": {"backend": "spark-local"},
        },
    },
}


@dataclass(frozen=True)
class Case:
    """What is written where, and what the message must hold."""

    name: str
    file: str
    write: Callable[[Path], object]
    told: tuple[str, ...] = ()


# -- places


def places(value: Any, way: Way = ()) -> Iterator[tuple[Way, Any]]:
    yield way, value
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(below, (*way, key))


def changed(document: Document, way: Way, change: Callable[[Any, Any], object]) -> Document:
    """A copy in which `change(container, last key)` was called at `way`."""
    document = copy.deepcopy(document)
    here: Any = document
    for key in way[:-1]:
        here = here[key]
    change(here, way[-1])
    return document


def put(value: Any) -> Callable[[Any, Any], object]:
    return lambda here, key: here.__setitem__(key, value)


def take(here: Any, key: Any) -> None:
    del here[key]


def field(way: Way) -> str:
    text = ""
    for key in way:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


# -- operators on a pipeline: each yields a name, the document and what is told


Mutation = tuple[str, Document, Way]
FREE = {"params", "kwargs"}  # any JSON is right here
MODELS: list[Way] = [
    (), ("clusters", 0), ("clusters", 0, "size"), ("sources", "events"), ("tasks", 0),
    ("tasks", 1), ("tasks", 1, "size"), ("tasks", 2),
]  # fmt: skip
REQUIRED: list[Way] = [
    ("name",), ("tasks",), ("clusters", 0, "name"), ("tasks", 0, "id"), ("tasks", 0, "main"),
    ("tasks", 1, "id"), ("tasks", 1, "image"), ("tasks", 2, "id"), ("tasks", 2, "function"),
]  # fmt: skip
NAMES: list[Way] = [
    ("name",), ("clusters", 0, "name"), ("tasks", 0, "id"), ("tasks", 1, "id"), ("tasks", 2, "id"),
    ("tasks", 0, "outputs", 0), ("tasks", 1, "outputs", 0),
]  # fmt: skip
HOSTILE_NAMES = ["", "../up", "a/b", "_x", "x" * 300, "a\0b", "\x1b[2J", "a\nb", "x" * 10**5]


def wrong_types(random_: random.Random) -> Iterator[Mutation]:
    for way, value in places(PIPELINE):
        if not way or FREE & set(way[:-1]) or way[-1] == "kind":
            continue
        if isinstance(value, str):
            wrong: list[Any] = [[1], {"a": 1}, None, 7.5]
        elif isinstance(value, dict):
            wrong = ["text", [1], 3, True]
        elif isinstance(value, list):
            wrong = ["text", {"a": 1}, 3, NAN]
        else:
            wrong = ["many", [1], {"a": 1}, NAN, INF, -(10**30), 10**30]
        if "timeout" in way or "memory" in way or "workers" in way:
            wrong = ["soon", {"a": 1}, NAN, -INF, -1]
        if way[0] == "sources" and len(way) == 2:
            wrong = [[1], 3, True, {}]
        for bad in random_.sample(wrong, 2):
            shown = way[:3] if "workers" in way else way
            yield f"type {field(way)}={bad}", changed(PIPELINE, way, put(bad)), shown


def missing(random_: random.Random) -> Iterator[Mutation]:
    for way in REQUIRED:
        yield f"missing {field(way)}", changed(PIPELINE, way, take), way


def unknown_keys(random_: random.Random) -> Iterator[Mutation]:
    for model in MODELS:
        key = random_.choice(["mian", "x", "Größe", "a b", "__class__", "x" * 5000, "\x1b[2J"])
        way = (*model, key)
        shown: Way = way if len(key) < 60 and key.isprintable() else model
        yield f"unknown {field(model)}.{key[:9]!r}", changed(PIPELINE, way, put(1)), shown


def hostile_names(random_: random.Random) -> Iterator[Mutation]:
    for way in NAMES:
        for name in random_.sample(HOSTILE_NAMES, 3):
            yield f"name {field(way)}={name[:9]!r}", changed(PIPELINE, way, put(name)), way


FIELDS: list[Callable[[random.Random], Iterator[Mutation]]] = [
    wrong_types, missing, unknown_keys, hostile_names,
]  # fmt: skip

Semantic = tuple[str, Way, Any, tuple[str, ...]]
"""A name, where, what, and what is told: wrong only when the whole is looked at."""

TEMPLATES: list[tuple[Way, tuple[str, ...]]] = [
    (("tasks", 0, "args", 0), ("task 'features'", "args[0]")),
    (("tasks", 0, "conf", "spark.x"), ("task 'features'", "conf.spark.x")),
    (("tasks", 0, "env", "DAY"), ("task 'features'", "env.DAY")),
    (("tasks", 1, "args", 0), ("task 'train'", "args[0]")),
    (("tasks", 1, "command", 1), ("task 'train'", "command[1]")),
    (("tasks", 1, "env", "N"), ("task 'train'", "env.N")),
    (("tasks", 1, "image"), ("task 'train'", "image")),
    (("tasks", 2, "kwargs", "day"), ("task 'tell'", "kwargs.day")),
    (("tasks", 2, "kwargs", "deep", "list", 0), ("task 'tell'", "kwargs.deep.list[0]")),
]
BAD_TEMPLATES = [
    "{{ nothing }}", "{{ params.nothing }}", "{{ inputs.nothing }}", "{{ unclosed", "{% if %}",
    "{{ ''.__class__.__mro__ }}", "{% for i in range(9**9) %}{% endfor %}", "{{ 'a' * 9**9 }}",
    "{{ 1 / 0 }}", "{% include '/etc/passwd' %}", "{{ " + "(" * 3000,
]  # fmt: skip
PATHS: list[tuple[Way, tuple[str, ...]]] = [
    (("tasks", 0, "main"), ("task 'features'",)),
    (("tasks", 0, "py_files", 0), ("task 'features'",)),
    (("tasks", 0, "jars", 0), ("task 'features'",)),
    (("sources", "events", "path"), ("source 'events'",)),
    (("tasks", 2, "function"), ("function",)),
]
BAD_PATHS = [
    "../secret.py", "/etc/passwd", "images/../../secret.py", "outside.py", "loop.py", "nothing.py",
    "images.py", "x" * 5000 + ".py", "a\0.py",
]  # fmt: skip
GRAPH: list[Semantic] = [
    ("cycle of two", ("tasks", 0, "after"), ["tell"], ("circle",)),
    ("cycle of one", ("tasks", 1, "after"), ["train"], ("circle: train -> train",)),
    ("cycle by data", ("tasks", 1, "inputs", "clean"), "train.model", ("circle",)),
    ("input of nobody", ("tasks", 1, "inputs", "clean"), "features.claen", ("train", "'clean'")),
    ("no such source", ("tasks", 0, "inputs", "events"), "evnts", ("'features'", "'events'?")),
    ("no such task", ("tasks", 2, "after", 0), "trian", ("'tell'", "after", "'train'?")),
    ("no such cluster", ("tasks", 0, "cluster"), "sprak", ("'features'", "cluster", "'spark'?")),
    ("two tasks of a name", ("tasks", 2, "id"), "train", ("task 'train' is there twice",)),
    ("output twice", ("tasks", 0, "outputs"), ["a", "a"], ("'features'", "twice")),
    ("outputs of a variable", ("tasks", 0, "outputs"), ["clean", "a-b", "a_b"], ("A_B",)),
    ("two clusters", ("clusters",), [{"name": "spark"}, {"name": "spark"}], ("'spark'", "twice")),
    ("image outside", ("tasks", 1, "image"), "../..", ("image", "outside")),
    ("image at root", ("tasks", 1, "image"), "/etc", ("image", "outside")),
    ("source is two", ("sources", "events"), {"path": "a", "uri": "s3://b"}, ("sources.events",)),
    ("source is none", ("sources", "events"), {}, ("sources.events",)),
    ("function at root", ("tasks", 2, "function"), "/etc/passwd:x", ("function", "file.py:name")),
    ("no such package", ("sources", "events", "package"), "nothing_here", ("source 'events'",)),
    ("kind", ("tasks", 0, "kind"), "sparc", ()),
    ("no kind", ("tasks", 0, "kind"), None, ()),
    ("function", ("tasks", 2, "function"), "tell", ("function",)),
    ("function is code", ("tasks", 2, "function"), "os:system('x')", ("function",)),
    ("variable", ("tasks", 0, "env", "A-B"), "x", ("env",)),
    ("secret variable", ("tasks", 1, "secrets", "1=2"), "x", ("secrets",)),
    ("workers", ("clusters", 0, "workers"), [3, 1], ("workers",)),
    ("version", ("clusters", 0, "spark_version"), "four", ("spark_version",)),
    ("param is nan", ("params", "scale"), NAN, ("params.scale",)),
    ("kwarg is inf", ("tasks", 2, "kwargs", "day"), [INF], ("kwargs.day",)),
    ("no tasks", ("tasks",), [], ("tasks",)),
]  # fmt: skip


def semantics(random_: random.Random) -> Iterator[Semantic]:
    yield from GRAPH
    for way, told in TEMPLATES:
        for text in random_.sample(BAD_TEMPLATES, 4):
            yield f"template {field(way)}={text[:20]}", way, text, told
    for way, told in PATHS:
        for path in random_.sample(BAD_PATHS, 4):
            if way[-1] == "function":
                value, told = f"{path}:tell", ("tell",)
            else:
                value = path
            yield f"path {field(way)}={path[:20]!r}", way, value, told


# -- as YAML and as Python


def as_yaml(document: Document) -> str:
    return yaml.safe_dump(document, allow_unicode=True, sort_keys=False)


def as_python(document: Document) -> str:
    """As a person writes it: each task is made by its class, on a line of its own."""
    lines = ["from portaflow import *", "nan, inf = float('nan'), float('inf')"]
    names = []
    for n, task in enumerate(document["tasks"]):
        rest = {k: v for k, v in task.items() if k != "kind"}
        lines.append(f"task{n} = {CLASSES[task['kind']]}(**{rest!r})")
        names.append(f"task{n}")
    rest = {k: v for k, v in document.items() if k != "tasks"}
    lines.append(f"pipeline = Pipeline(**{rest!r}, tasks=[{', '.join(names)}])")
    return "\n".join(lines) + "\n"


def as_toml(document: Document) -> str:
    """Every table inline: short, and it says all that a document can hold."""
    return "".join(f"{_key(key)} = {_inline(value)}\n" for key, value in document.items())


def _inline(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_key(k)} = {_inline(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_inline, value)) + "]"
        case float():
            return repr(value)
        case _:
            return json.dumps(value)


def _key(key: str) -> str:
    return json.dumps(key)


def pipeline_cases() -> Iterator[Case]:
    random_ = random.Random(7)  # the same cases every time
    for operator in FIELDS:
        for name, document, way in operator(random_):
            yield _yaml_case(name, document, (field(way),))
            if way[:1] != ("tasks",) or len(way) > 2:
                yield _python_case(name, document, (field(_in_python(way)),))
    for name, way, value, told in semantics(random_):
        document = changed(PIPELINE, way, put(value))
        yield _yaml_case(name, document, told)
        if "kind" not in way:
            yield _python_case(name, document, tuple(t for t in told if "sources." not in t))


def _in_python(way: Way) -> Way:
    """A task is checked by itself, so its number is not in the message; the line is."""
    return way[2:] if way[0] == "tasks" else way


def _yaml_case(name: str, document: Document, told: tuple[str, ...]) -> Case:
    text = as_yaml(document)
    return Case(f"yaml {name}", "pipeline.yaml", lambda f: save(f / "pipeline.yaml", text), told)


def _python_case(name: str, document: Document, told: tuple[str, ...]) -> Case:
    text = as_python(document)
    return Case(f"python {name}", "pipeline.py", lambda f: save(f / "pipeline.py", text), told)


def save(file: Path, text: str) -> None:
    file.write_text(text, "utf-8", newline="")


# -- portaflow.toml


HERE = ("targets", "here")
TARGET_CHANGES: list[tuple[str, Way, Any, tuple[str, ...]]] = [
    ("unknown backend", ("targets", "base", "store", "backend"), "foldr", ("store", "'folder'?")),
    ("no backend", (*HERE, "container"), {"root": "x"}, ("container",)),
    ("backend of another kind", (*HERE, "container", "backend"), "folder", ("container",)),
    ("unknown setting", (*HERE, "container", "roott"), "x", ("container", "roott", "'root'?")),
    ("wrong setting", (*HERE, "container", "root"), 5, ("container", "root")),
    ("wrong setting", (*HERE, "container", "cache"), [1], ("container", "cache")),
    ("user of nobody", (*HERE, "container", "root"), "~nobody-here/x", ("container",)),
    ("unknown key", (*HERE, "max_paralel"), 5, ("max_paralel", "'max_parallel'?")),
    ("unknown table", ("target",), {}, ("target", "'targets'?")),
    ("extends itself", (*HERE, "extends"), "here", ("extends", "here -> here")),
    ("extends nothing", (*HERE, "extends"), "bsae", ("extends", "'base'?")),
    ("extends each other", ("targets", "base", "extends"), "here", ("extend each other",)),
    ("no such default", ("default_target",), "heer", ("'heer'", "'here'?")),
    ("task key", (*HERE, "tasks", "train", "retires"), 2, ("tasks.train", "retires")),
    ("task id", (*HERE, "tasks", "train", "id"), "x", ("tasks.train.id",)),
    ("task value", (*HERE, "tasks", "train", "retries"), "x", ("tasks.train", "retries")),
    ("task size", (*HERE, "tasks", "train", "size", "cpu"), -1, ("tasks.train", "size.cpu")),
    ("overrides", (*HERE, "tasks", "train", "overrides"), 3, ("tasks.train.overrides",)),
    ("overrides", (*HERE, "container", "overrides"), 3, ("container.overrides",)),
    ("overrides", (*HERE, "container", "overrides"), {"job": 3}, ("container.overrides.job",)),
    ("cluster value", (*HERE, "clusters", "spark", "workers"), "x", ("clusters.spark", "workers")),
    ("param type", (*HERE, "params", "scale"), "x", ("params.scale", "int")),
    ("param nan", (*HERE, "params", "scale"), NAN, ("params.scale",)),
    ("param name", (*HERE, "params", "a-b"), 1, ("params",)),
    ("source", (*HERE, "sources", "orders"), {"uri": "s3://{{ no }}"}, ("orders", "uri")),
    ("source path", (*HERE, "sources", "orders"), {"path": "../x"}, ("source 'orders'",)),
    ("source key", (*HERE, "sources", "orders"), {"pth": "x"}, ("sources.orders", "pth")),
    ("no store", ("targets", "base", "store"), {}, ("store",)),
    ("name", ("targets", "a/b"), {}, ()),
]


def target_cases() -> Iterator[Case]:
    random_ = random.Random(8)
    for name, way, value, told in TARGET_CHANGES:
        if name == "name":
            base = TARGET["targets"]["base"]
            document = changed({**TARGET, "default_target": "a/b"}, way, put(base))
        else:
            document = changed(TARGET, way, put(value))
        yield _toml_case(f"{name} {field(way)}", as_toml(document), told)
    for way, value in places(TARGET):
        if not way or way[-1] == "scale" or "root" in way or "cache" in way:
            continue
        wrong = ["text", [1], 3, NAN] if isinstance(value, dict) else [[1], {"a": 1}, -1.5]
        for bad in random_.sample(wrong, 2):
            told = (str(way[-1]),) if len(way) < 5 else ()
            if way == ("targets", "here", "sources", "orders") and bad == "text":
                continue  # a path
            if way == ("targets",):
                told = ("targets",)
            text = as_toml(changed(TARGET, way, put(bad)))
            yield _toml_case(f"type {field(way)}={bad}", text, told)


def _toml_case(name: str, text: str, told: tuple[str, ...] = ()) -> Case:
    return Case(f"toml {name}", "portaflow.toml", lambda f: save(f / "portaflow.toml", text), told)
