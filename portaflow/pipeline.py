"""What to do, said without naming a cloud. Pure data: Python and YAML give the same model.

Edges follow from data: a task that reads "features.clean" waits for task "features".
Strings in args, command, env, conf, kwargs and source URIs are templates (see templates.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    field_validator,
    model_validator,
)

from .backend import Size as BackendSize
from .errors import DefinitionError, Gathered

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_GIB = {"ki": 2**-20, "mi": 2**-10, "gi": 1.0, "ti": 1024.0}
_GIB |= {"k": 1e3 / 2**30, "m": 1e6 / 2**30, "g": 1e9 / 2**30, "t": 1e12 / 2**30}


def _seconds(value: Any) -> Any:
    if isinstance(value, str) and (m := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", value)):
        return float(m[1]) * _UNITS[m[2]]
    return value


def _gibibytes(value: Any) -> Any:
    pattern = r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)b?\s*"
    if isinstance(value, str) and (m := re.fullmatch(pattern, value.lower())):
        return float(m[1]) * _GIB[m[2]]
    return value


def _name(value: str) -> str:
    """Names become parts of keys and of remote names: any language, but nothing hostile."""
    if not value or len(value) > 200:
        raise ValueError("a name has 1 to 200 characters")
    if value[0] in "._-" or any(c in "/\\." or not c.isprintable() for c in value):
        raise ValueError("a name starts with no '.', '_' or '-' and holds no '/', '\\' or '.'")
    return value


_WORD = "[A-Za-z_][A-Za-z0-9_]*"
Name = Annotated[str, AfterValidator(_name)]
_Short = float | str  # what the JSON Schema says of the two below
Seconds = Annotated[
    float, BeforeValidator(_seconds, json_schema_input_type=_Short), Field(gt=0, le=366 * 86400)
]
GiB = Annotated[
    float, BeforeValidator(_gibibytes, json_schema_input_type=_Short), Field(gt=0, le=2**20)
]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Model(BaseModel):
    """Frozen, and refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Size(Model):
    """How large a container or a cluster node is; each cloud picks what fits.

    `cpu` in cores, `memory` and `disk` in GiB (or "512Mi", "4Gi", "8GB"), `gpu` in devices.
    """

    cpu: float = Field(1.0, gt=0, le=4096)
    memory: GiB = 2.0
    gpu: int = Field(0, ge=0, le=64)
    disk: GiB = 10.0

    def spec(self) -> BackendSize:
        return BackendSize(**self.model_dump())


class Source(Model):
    """Data from outside: a URI, or a file that is copied into the store first.

    Give `uri` (s3://, gs://, file://...; a template), or `path` (relative to the pipeline's
    folder, or to the installed Python package named by `package`).
    """

    uri: str = ""
    path: str = ""
    package: str = ""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"uri": value} if "://" in value or "{{" in value else {"path": value}
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: Any) -> dict[str, Any]:
        """Editors accept the short form too."""
        return {**handler(core), "type": ["object", "string"]}

    @model_validator(mode="after")
    def _one(self) -> Source:
        if bool(self.uri) == bool(self.path) or (self.package and not self.path):
            raise ValueError("give either uri, or path (with package for a file of a package)")
        return self


class Cluster(Model):
    """A Spark cluster, made for the run, shared by the tasks that name it, then stopped.

    `workers`: a count, or [least, most]. `attach`: the name of a cluster that already runs;
    it is used and left alone. `timeout`: to become ready. `ttl`: seconds after which the
    provider ends it, come what may.
    """

    name: Name
    workers: tuple[int, int] = (1, 1)
    size: Size = Size()
    spot: bool = False
    spark_version: str = Field("", pattern=r"^(\d+\.\d+)?$")
    conf: Mapping[str, str] = {}
    attach: str = ""
    timeout: Seconds = 1800.0
    ttl: Seconds = 86400.0

    @field_validator("workers", mode="before", json_schema_input_type=int | tuple[int, int])
    @classmethod
    def _range(cls, value: Any) -> Any:
        return (value, value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("workers")
    @classmethod
    def _ordered(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= value[0] <= value[1] <= 10_000:
            raise ValueError("workers is a count, or [least, most] with 0 <= least <= most")
        return value


class _Task(Model):
    """What all tasks share.

    `inputs`: name -> "task.output" or the name of a source. `outputs`: names; each is a
    folder of objects that the task fills. `after`: tasks to wait for without reading them.
    `retries`: for failures of the task itself; lost machines are retried apart from these.
    `timeout`: from start to end of one attempt.
    """

    id: Name
    inputs: Mapping[Name, str] = {}
    outputs: tuple[Name, ...] = ()
    after: tuple[str, ...] = ()
    retries: int = Field(0, ge=0, le=100)
    retry_delay: Seconds = 10.0
    timeout: Seconds = 86400.0


class SparkTask(_Task):
    """A Spark job. `main` is a Python file or a jar: a path in the pipeline's folder, or a URI.

    `cluster` names the cluster it runs on; "" leaves it to a serverless backend.
    """

    kind: Literal["spark"] = "spark"
    main: str
    main_class: str = ""
    cluster: str = ""
    args: tuple[str, ...] = ()
    py_files: tuple[str, ...] = ()
    jars: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    conf: Mapping[str, str] = {}
    env: Mapping[Variable, str] = {}
    secrets: Mapping[Variable, str] = {}
    size: Size = Size()


class ContainerTask(_Task):
    """A container that runs to completion. `image` is looked up in the target's images.

    `command` replaces the image's entrypoint, `args` its arguments. `secrets`: environment
    variable -> name of a secret, resolved where the container runs.
    """

    kind: Literal["container"] = "container"
    image: str = Field(min_length=1)
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[Variable, str] = {}
    secrets: Mapping[Variable, str] = {}
    size: Size = Size()


class CallTask(_Task):
    """A Python function of yours, called beside the engine in a process of its own.

    `function`: "module:name" or "file.py:name", relative to the pipeline's folder. What it
    returns (JSON) is the task's value. Ends with its engine: an interrupted call is called
    again on resume.
    """

    kind: Literal["call"] = "call"
    function: str
    kwargs: Mapping[str, JsonValue] = {}

    @field_validator("function")
    @classmethod
    def _reference(cls, value: str) -> str:
        if not re.fullmatch(rf"([^:]+\.py|{_WORD}(\.{_WORD})*):{_WORD}", value):
            raise ValueError("a function is said as module:name or file.py:name")
        return value


Task: TypeAlias = SparkTask | ContainerTask | CallTask


class Pipeline(Model):
    """Tasks, the clusters they share, the data they read from outside, and parameters."""

    name: Name
    description: str = ""
    tasks: tuple[Annotated[Task, Field(discriminator="kind")], ...] = Field(min_length=1)
    clusters: tuple[Cluster, ...] = ()
    sources: Mapping[Name, Source] = {}
    params: Mapping[Variable, JsonValue] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Pipeline:
        wrong = Gathered()
        for text in self._mistakes():
            wrong.add(DefinitionError(text))
        wrong.tell()
        self.order()
        return self

    def _mistakes(self) -> Iterator[str]:
        yield from _twice("task", (t.id for t in self.tasks))
        yield from _twice("cluster", (c.name for c in self.clusters))
        clusters = {c.name for c in self.clusters}
        outputs = {f"{t.id}.{o}" for t in self.tasks for o in t.outputs}
        for task in self.tasks:
            where = f"task {task.id!r}"
            yield from _twice(f"output of {where}", task.outputs)
            yield from _twice(f"environment variable of {where}", map(variable, set(task.outputs)))
            yield from _twice(f"environment variable of {where}", map(variable, task.inputs))
            for name, reference in task.inputs.items():
                known = outputs if "." in reference else self.sources
                if reference not in known:
                    yield (
                        f"{where}: input {name!r} reads {reference!r}, which no task writes and "
                        f"no source names{suggest(reference, outputs | set(self.sources))}"
                    )
            for other in task.after:
                if other not in self.by_id:
                    yield (
                        f"{where}: after names {other!r}, which is no task"
                        f"{suggest(other, self.by_id)}"
                    )
            if isinstance(task, SparkTask) and task.cluster and task.cluster not in clusters:
                yield (
                    f"{where}: cluster {task.cluster!r} is not defined"
                    f"{suggest(task.cluster, clusters)}"
                )

    @cached_property
    def by_id(self) -> Mapping[str, Task]:
        return {t.id: t for t in self.tasks}

    def upstream(self) -> dict[str, frozenset[str]]:
        """Task id -> the tasks it waits for: the writers of what it reads, plus `after`."""
        return {
            t.id: frozenset(r.split(".")[0] for r in t.inputs.values() if "." in r).union(t.after)
            for t in self.tasks
        }

    def order(self) -> list[str]:
        """Task ids, each after the tasks it waits for. Raises DefinitionError on a cycle."""
        sorter = TopologicalSorter[str]({t.id: () for t in self.tasks})
        for id, others in self.upstream().items():
            sorter.add(id, *sorted(others))  # the order of a set differs between processes
        try:
            return list(sorter.static_order())
        except CycleError as error:
            raise DefinitionError(
                f"tasks wait for each other in a circle: {' -> '.join(error.args[1])}; "
                "remove one of these inputs or afters"
            ) from error


def variable(name: str) -> str:
    """The part of an environment variable that stands for an input or output name."""
    return re.sub(r"[^A-Z0-9]", "_", name.upper())


_COMPARED = 60  # characters of a word; a typo in more is no typo


def suggest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" or "; known: ..." to close a message with."""
    import difflib

    names = sorted(known)
    if close := difflib.get_close_matches(word[:_COMPARED], names, n=1):
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names[:10])}{', ...' if names[10:] else ''}" if names else ""


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{what} {name!r} is there twice; rename one"
        seen.add(name)
