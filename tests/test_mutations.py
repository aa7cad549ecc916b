"""Hundreds of ways to get a file wrong; each ends in exit 2 and a message with file and field.

The cases are not written down but made: operators (a wrong type, an unknown key, a template
that is undefined, a path that escapes, ...) times the places of a pipeline that is right,
once as YAML and once as Python; the same for portaflow.toml; and files that are no text.
"""

from __future__ import annotations

import copy
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from portaflow.cli import cli

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
    return Case(f"yaml {name}", "pipeline.yaml", lambda f: _text(f / "pipeline.yaml", text), told)


def _python_case(name: str, document: Document, told: tuple[str, ...]) -> Case:
    text = as_python(document)
    return Case(f"python {name}", "pipeline.py", lambda f: _text(f / "pipeline.py", text), told)


def _text(file: Path, text: str) -> None:
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
    return Case(f"toml {name}", "portaflow.toml", lambda f: _text(f / "portaflow.toml", text), told)


# -- files that are no text, or no files


def _link(file: Path, to: str) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to(to)


def _folder(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.mkdir()


def _fifo(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def _large(file: Path) -> None:
    file.write_bytes(b"")
    os.truncate(file, 2**33)


DEEP = 20_000
BYTES: dict[str, Callable[[Path], object]] = {
    "binary": lambda f: f.write_bytes(random.Random(1).randbytes(5000)),
    "elf": lambda f: f.write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 100),
    "nul bytes": lambda f: f.write_bytes(b"\0" * 4096),
    "a nul byte inside": lambda f: f.write_bytes(f.read_bytes()[:40] + b"\0" + f.read_bytes()[40:]),
    "latin-1": lambda f: f.write_bytes("name = 'Größe'\nname: Größe\n".encode("latin-1")),
    "utf-16": lambda f: f.write_bytes(f.read_text().encode("utf-16")),
    "utf-32": lambda f: f.write_bytes(f.read_text().encode("utf-32")),
    "half a character": lambda f: f.write_bytes(f.read_bytes() + b"\xc3"),
    "brackets": lambda f: f.write_text("[" * DEEP),
    "braces": lambda f: f.write_text("x: " + "{a: " * DEEP),
    "half": lambda f: f.write_text(f.read_text()[: len(f.read_text()) // 2 + 3] + "\n}]"),
    "one long line": lambda f: f.write_text("x" * 10**6 + " {{"),
    "control characters": lambda f: f.write_text("\x1b[2J\x07\x08 = [\n"),
    "a folder": _folder,
    "a loop of links": lambda f: _link(f, f.name),
    "a link to nothing": lambda f: _link(f, "nothing"),
    "unreadable": lambda f: _link(f, "/proc/self/mem"),
    "a pipe": _fifo,
    "large": _large,
}
HARMLESS_FOR = {("portaflow.toml", "a pipe"), ("portaflow.toml", "a folder")}

YAML_TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty": ("", ("mapping",)),
    "comment": ("# nothing\n", ("mapping",)),
    "list": ("- a\n", ("mapping",)),
    "text": ("hello", ("mapping",)),
    "two documents": ("name: a\n---\nname: b\n", ("line",)),
    "tab": ("name: a\n\ttasks: []\n", ("line 2",)),
    "object": ("name: !!python/object/apply:os.system [ls]\n", ("line 1",)),
    "object new": ("name: !!python/object/new:str [x]\n", ("line 1",)),
    "python name": ("name: !!python/name:os.system\n", ("line 1",)),
    "own tag": ("name: !mine x\n", ("line 1",)),
    "binary tag": ("name: !!binary aGVsbG8=\ntasks: []\n", ("name",)),
    "set": ("name: !!set {a, b}\ntasks: []\n", ("name",)),
    "alias": ("name: &a x\ndescription: *a\n", ("aliases", "line 2")),
    "laughs": (
        "a: &a [x,x]\n" + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [*{chr(97 + i)},*{chr(97 + i)}]\n"
                                   for i in range(20)), ("aliases",),
    ),
    "itself": ("name: &a [*a]\n", ("aliases",)),
    "merge": ("name: x\n<<: &a {tasks: []}\n", ("tasks",)),
    "key twice": ("name: a\nname: b\n", ("'name' is there twice", "line 2")),
    "key twice below": ("name: a\nparams: {x: 1, x: 2}\n", ("'x' is there twice", "line 2")),
    "list as key": ("? [a, b]\n: 1\n", ()),
    "mapping as key": ("? {a: b}\n: 1\n", ()),
    "number as key": ("name: a\n1: x\n", ("1",)),
    "null as key": ("name: a\n~: x\n", ()),
    "large number": ("name: a\nparams: {x: " + "9" * 9000 + "}\n", ("digits",)),
    "large hex": ("name: a\nparams: {x: 0x" + "f" * 9000 + "}\ntasks: []\n", ("tasks",)),
    "date": ("name: a\nparams: {x: 2026-01-02}\ntasks: []\n", ("params.x",)),
    "bad date": ("name: a\nparams: {x: 2026-13-45}\ntasks: []\n", ()),
    "nan": ("name: a\nparams: {x: .nan}\ntasks: []\n", ("params.x",)),
    "sexagesimal": ("name: 1:30\ntasks: []\n", ("name",)),
    "yes": ("name: yes\ntasks: []\n", ("name",)),
}  # fmt: skip
PYTHON_TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty": ("", ("pipeline",)),
    "no pipeline": ("x = 1\n", ("pipeline",)),
    "a class": ("from portaflow import Pipeline as pipeline\n", ("pipeline",)),
    "a dict": ("pipeline = {'name': 'x'}\n", ("pipeline",)),
    "exit": ("import sys\nsys.exit(0)\n", ("exit",)),
    "exit text": ("raise SystemExit('bye')\n", ("exit",)),
    "error": ("x = 1\nraise ValueError('bad\\x1b[2J')\n", (":2", "ValueError")),
    "long error": ("raise ValueError('x' * 10**6)\n", (":1", "ValueError")),
    "own error": ("class E(Exception):\n  def __str__(self): return 1 / 0\nraise E\n", ("E",)),
    "recursion": ("def f(): f()\nf()\n", ("RecursionError",)),
    "memory": ("x = 'a' * 10**18\n", (":1", "MemoryError")),
    "overflow": ("x = 2.0 ** 10**9\n", (":1", "OverflowError")),
    "import": ("\n\nimport nothing_here\n", (":3", "nothing_here")),
    "syntax": ("x = 1\ny = (\n", (":2", "SyntaxError")),
    "indent": ("if 1:\nx = 1\n", (":2", "IndentationError")),
    "tabs": ("if 1:\n        x = 1\n\ty = 1\n", ("TabError",)),
    "python 2": ("print 'hello'\n", (":1", "SyntaxError")),
    "deep": ("x = " + "(" * 5000 + ")" * 5000, ("",)),
    "deep minus": ("x = " + "-" * 50_000 + "1", ("",)),
    "path taken": ("import sys\nsys.path.clear()\n", ("pipeline",)),
    "modules taken": ("import sys\ndel sys.modules[__name__]\n", ("pipeline",)),
    "positional": ("from portaflow import *\nPipeline('x')\n", (":2",)),
    "one task": ("from portaflow import *\n\nPipeline(name='x', tasks=3)\n", (":3", "tasks")),
    "set": ("from portaflow import *\nContainerTask(id='a', image={'x'})\n", (":2", "image")),
    "object": ("from portaflow import *\nCallTask(id='a', function=print)\n", (":2", "function")),
    "bytes": ("from portaflow import *\nContainerTask(id=b'\\xff', image='x')\n", (":2", "id")),
    "cluster": ("from portaflow import *\nCluster(name='c', ttl='never')\n", (":2", "ttl")),
    "size": ("from portaflow import *\nSize(memory='4 elephants')\n", (":2", "memory")),
    "itself": ("from portaflow import *\nx = []\nx.append(x)\n"
               "Pipeline(name='a', tasks=[], params={'x': x})\n", (":4", "params")),
}  # fmt: skip
TOML_TEXTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "no toml": ("hello\n", ("line 1",)),
    "key twice": ("a = 1\na = 2\n", ("line 2",)),
    "table twice": ("[targets.a]\n[targets.a]\n", ("line 2",)),
    "large number": ("a = " + "9" * 9000, ("digits",)),
    "bad date": ("a = 2026-13-45\n", ()),
    "deep path": ("[targets.local." + ".".join("a" * 5000) + "]\nx = 1\n", ("nested deeper",)),
    "deep dots": ("targets.local." + ".".join("a" * 3000) + " = 1\n", ("nested deeper",)),
    "deep list": ("[targets.local.params]\nx = " + "[" * 300 + "]" * 300 + "\n", ("params",)),
    "no targets": ("targets = 3\n", ("targets",)),
    "no table": ("[targets]\nlocal = 3\n", ("targets.local",)),
    "tables": ("[[targets]]\nname = 'x'\n", ("targets",)),
    "control": ('"\\u001b[2J" = 1\n', ("unknown key",)),
    "long": (f"{'x' * 10**5} = 1\n", ("unknown key",)),
    "control below": ('[targets.local]\n"\\u001b[2J" = 1\n', ("unknown key",)),
    "long below": (f"[targets.local]\n{'x' * 10**5} = 1\n", ("unknown key",)),
}


def file_cases() -> Iterator[Case]:
    for file in ("pipeline.yaml", "pipeline.py", "portaflow.toml"):
        for name, write in BYTES.items():
            if (file, name) not in HARMLESS_FOR:
                yield Case(f"{file} is {name}", file, lambda f, w=write, n=file: w(f / n))  # type: ignore[misc]
    for file, texts in (
        ("pipeline.yaml", YAML_TEXTS),
        ("pipeline.py", PYTHON_TEXTS),
        ("portaflow.toml", TOML_TEXTS),
    ):
        for name, (text, told) in texts.items():
            yield Case(f"{file}: {name}", file, lambda f, t=text, n=file: _text(f / n, t), told)  # type: ignore[misc]


CASES = [*pipeline_cases(), *target_cases(), *file_cases()]


# -- what must hold


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    for name in ("job.py", "lib.py", "lib.jar", "call.py", "data.csv", "images/train/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (tmp_path / "secret.py").touch()
    (folder / "outside.py").symlink_to("../secret.py")
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "images.py").mkdir()
    _text(folder / "portaflow.toml", as_toml(TARGET))
    return folder


def validate(folder: Path, file: str) -> tuple[int, str]:
    config = ["--config", str(folder / "portaflow.toml")]
    result = CliRunner().invoke(cli, ["validate", str(folder / file), *config])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result.exit_code, result.output


@pytest.mark.parametrize("form", ["yaml", "py"])
def test_the_files_that_are_mutated_are_right(folder: Path, form: str) -> None:
    text = as_yaml(PIPELINE) if form == "yaml" else as_python(PIPELINE)
    for lead in ("", "\ufeff"):
        for end in ("\n", "\r\n"):
            _text(folder / f"pipeline.{form}", lead + text.replace("\n", end))
            _text(folder / "portaflow.toml", lead + as_toml(TARGET).replace("\n", end))
            code, output = validate(folder, f"pipeline.{form}")
            assert code == 0, output


def test_there_are_hundreds_of_cases_and_no_two_are_the_same() -> None:
    assert len(CASES) >= 500
    assert len({c.name for c in CASES}) > 0.9 * len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case.name)[1:60])
def test_a_mutation_is_a_named_error_with_file_and_field(folder: Path, case: Case) -> None:
    form = "pipeline.py" if case.file == "pipeline.py" else "pipeline.yaml"
    _text(folder / form, as_python(PIPELINE) if form.endswith("py") else as_yaml(PIPELINE))
    case.write(folder)
    began = time.process_time()
    code, output = validate(folder, form)
    assert time.process_time() - began < 5
    assert code == 2, output
    assert "Traceback" not in output
    assert str(folder / case.file) in output
    for text in case.told:
        assert text in output
    assert len(output) < 6000
    assert all(c.isprintable() or c == "\n" for c in output)


@pytest.mark.parametrize("seed", range(60))
def test_noise_in_a_file_is_an_error_or_harmless(folder: Path, seed: int) -> None:
    """Some bytes are changed, doubled or gone. It may be right by chance; it never breaks."""
    random_ = random.Random(seed)
    form = random_.choice(["pipeline.yaml", "portaflow.toml"])
    _text(folder / "pipeline.yaml", as_yaml(PIPELINE))
    data = bytearray((folder / form).read_bytes())
    for _ in range(random_.randint(1, 5)):
        at = random_.randrange(len(data))
        match random_.randrange(4):
            case 0:
                data[at] = random_.randrange(256)
            case 1:
                del data[at : at + random_.randrange(1, 30)]
            case 2:
                data[at:at] = data[at : at + 40]
            case _:
                data[at:at] = random_.choice([b"{", b"]", b"\n", b":", b'"', b"\t", b"- ", b"&a "])
    (folder / form).write_bytes(data)
    code, output = validate(folder, "pipeline.yaml")
    assert code in (0, 2)
    assert "Traceback" not in output
    assert code == 0 or str(folder) in output
