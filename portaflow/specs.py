"""What a pipeline asks for on one target, in the neutral words of backend.py. Pure.

The target's settings are laid over the pipeline's, templates are rendered, names become
URIs. `planner.py` makes actions of what is asked here.
"""

from __future__ import annotations

import hashlib
import math
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import JsonValue, ValidationError

from .backend import Capability, ClusterSpec, ContainerSpec, JobSpec, ObjectStore, Spec
from .errors import DefinitionError, Gathered, TargetError
from .names import file_part, key_part, owner_label
from .pipeline import (
    CallTask,
    Cluster,
    ContainerTask,
    Model,
    Pipeline,
    SparkTask,
    Task,
    suggest,
    variable,
)
from .plan import CallSpec, Image, Local, LocalFile, Run, Staged, image_key, merged, source_key
from .plugins import Backends
from .target import Target
from .templates import Render, render_json, renderer, run_context
from .validation import explain

_BACKSTOP = 900  # seconds between our own deadline and the provider's


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One spec, the capabilities that its fields take, and the URIs that it reads and writes."""

    spec: Spec
    wanted: Mapping[str, Capability | None]  # field -> what it takes, None for nothing
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    home: str = ""


def parameters(pipeline: Pipeline, target: Target, run: Run) -> dict[str, JsonValue]:
    """The pipeline's parameters as this run has them. Raises DefinitionError, TargetError."""
    params, wrong = dict(pipeline.params), Gathered()
    for name in sorted(params.keys() & target.params.keys()):
        params[name] = target.params[name]
        if cause := _misfit(pipeline.params[name], params[name]):
            wrong.add(TargetError(f"{target.where}: params.{name}: {cause}"))
    for name, value in run.params.items():
        if name not in params:
            hint = suggest(name, params)
            text = f"pipeline {pipeline.name!r} has no parameter {name!r}{hint}"
            wrong.add(DefinitionError(text))
        elif cause := _misfit(pipeline.params[name], value):
            wrong.add(DefinitionError(f"parameter {name!r} {cause}"))
        params[name] = value
    wrong.tell()
    return params


def _misfit(default: JsonValue, value: JsonValue) -> str:
    """Why a value cannot take the place of a parameter's default, or ""."""
    kinds = (int, float) if isinstance(default, float) else type(default)
    if default is None or (
        isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)
    ):
        return ""
    kind, shown = type(default).__name__, reprlib.repr(default)
    return f"is {reprlib.repr(value)}, but must be of type {kind} like its default {shown}"


@contextmanager
def of_target(target: Target, source: str) -> Iterator[None]:
    """What is wrong with a source that the target gives is the target's fault."""
    try:
        yield
    except DefinitionError as error:
        if source in target.sources:
            raise TargetError(f"{target.where}: sources.{source}: {error}") from error
        raise


ModelT = TypeVar("ModelT", bound=Model)
_FIXED = ("id", "name", "kind", "inputs", "outputs", "after")


def overridden(model: ModelT, settings: Mapping[str, JsonValue], where: str) -> ModelT:
    """The task or cluster as the target wants it. `overrides` are for the request instead."""
    changes = {k: v for k, v in settings.items() if k != "overrides"}
    if not changes:
        return model
    for key in _FIXED:
        if key in changes:
            raise TargetError(f"{where}.{key}: belongs to the pipeline; a target cannot change it")
    try:
        return type(model).model_validate(merged(model.model_dump(), changes))
    except ValidationError as error:
        known = [k for k in type(model).model_fields if k not in _FIXED]
        raise TargetError(explain(error, where, known)) from error


def tasks_on(pipeline: Pipeline, target: Target) -> list[Task]:
    """The pipeline's tasks as the target wants them, each after those that it waits for."""
    tasks: list[Task] = []
    wrong = Gathered()
    for task in map(pipeline.by_id.__getitem__, pipeline.order()):
        with wrong.one():
            there = target.at(target.placed(task.id))
            settings = there.tasks.get(task.id, {})
            tasks.append(overridden(task, settings, f"{there.where}: tasks.{task.id}"))
    wrong.tell()
    return tasks


class _Place:
    """A target where tasks run, and what its store asks of them."""

    def __init__(self, name: str, target: Target, store: ObjectStore) -> None:
        self.name, self.target, self.store = name, target, store
        self.env = dict(store.container_env())


class Asks:
    """Says what each task and cluster asks for; gathers the local files that must be staged."""

    def __init__(
        self, pipeline: Pipeline, target: Target, run: Run, backends: Backends, local: Local
    ) -> None:
        self.staged: dict[str, Staged] = {}
        self._target, self._backends, self._local = target, backends, local
        self._places: dict[str, _Place] = {}
        self._sources = {**pipeline.sources, **target.sources}
        self._prefix = f"{key_part(pipeline.name)}/{key_part(run.id)}"
        self.home = self._at("").store.url(self._prefix)
        self.owner = owner_label(pipeline.name, self.home)
        self._context = run_context(run.id, run.logical_date, parameters(pipeline, target, run))

    def _at(self, name: str) -> _Place:
        if name not in self._places:
            store = self._backends.at(name).store
            self._places[name] = _Place(name, self._target.at(name), store)
        return self._places[name]

    def task_home(self, task: str, place: str) -> str:
        """The URI of all that a task writes, or of its copy, in the store of a place."""
        return self._at(place).store.url(f"{self._prefix}/{key_part(task)}")

    def output(self, task: str, output: str, place: str) -> str:
        """The URI of an output, or of its copy, in the store of a place."""
        key = f"{self._prefix}/{key_part(task)}/{key_part(output)}"
        return self._at(place).store.url(key)

    def cluster(self, cluster: Cluster, place: str) -> Ask:
        conf = renderer(self._context, f"cluster {cluster.name!r}")
        settings = self._target.at(place).clusters
        spec = ClusterSpec(
            **self._common(place, "clusters", cluster.name, settings, cluster.ttl),
            workers=cluster.workers,
            size=cluster.size.spec(),
            spot=cluster.spot,
            spark_version=cluster.spark_version,
            conf=_all(conf, "conf", cluster.conf),
        )
        least, most = cluster.workers
        wanted = {
            "workers": Capability.AUTOSCALE if least < most else None,
            "spot": Capability.SPOT if cluster.spot else None,
        }
        return Ask(spec=spec, wanted=wanted)

    def task(self, task: Task) -> Ask:
        where, place = f"task {task.id!r}", self._at(self._target.placed(task.id))
        home = self.task_home(task.id, place.name)
        inputs = {n: self._input(place, r, f"{where}: inputs.{n}") for n, r in task.inputs.items()}
        outputs = {o: self.output(task.id, o, place.name) for o in task.outputs}
        result = f"{home}/_result.json"
        context = {
            **self._context, "task_id": task.id, "inputs": inputs, "outputs": outputs,
            "result": result,
        }  # fmt: skip
        env = dict(place.env)
        env |= {f"PORTAFLOW_INPUT_{variable(n)}": uri for n, uri in inputs.items()}
        env |= {f"PORTAFLOW_OUTPUT_{variable(n)}": uri for n, uri in outputs.items()}
        env["PORTAFLOW_RESULT"] = result
        render, wrong = _gathering(renderer(context, where))
        ttl = task.timeout + _BACKSTOP
        common = self._common(place.name, "tasks", task.id, place.target.tasks, ttl)
        match task:
            case SparkTask():
                spec, wanted = self._job(task, place, common, env, render)
            case ContainerTask():
                spec, wanted = self._container(task, place, common, env, render)
            case CallTask():
                kwargs = {k: render_json(render, f"kwargs.{k}", v) for k, v in task.kwargs.items()}
                spec = CallSpec(**common, function=task.function, kwargs=kwargs, env=env)
                wanted = {}
        wrong.tell()
        return Ask(spec=spec, wanted=wanted, inputs=inputs, outputs=outputs, home=home)

    def _job(
        self,
        task: SparkTask,
        place: _Place,
        common: Mapping[str, Any],
        env: Mapping[str, str],
        render: Render,
    ) -> tuple[Spec, dict[str, Capability | None]]:
        cloud = self._backends.at(place.name).compute.cloud
        spec = JobSpec(
            **common,
            main=self._file(place, task.main),
            main_class=task.main_class,
            args=_each(render, "args", task.args),
            py_files=tuple(self._file(place, path) for path in task.py_files),
            jars=tuple(self._file(place, path) for path in task.jars),
            packages=task.packages,
            conf={**place.store.spark_conf(cloud), **_all(render, "conf", task.conf)},
            env={**env, **_all(render, "env", task.env)},
            secrets=task.secrets,
            size=task.size.spec(),
        )
        jar = task.main.split("?")[0].endswith(".jar")
        return spec, {
            "main": Capability.JAR if jar else None,
            "packages": Capability.PACKAGES if task.packages else None,
        }

    def _container(
        self,
        task: ContainerTask,
        place: _Place,
        common: Mapping[str, Any],
        env: Mapping[str, str],
        render: Render,
    ) -> tuple[Spec, dict[str, Capability | None]]:
        key = image_key(task.image, place.name)
        image = self._local.images.get(key, Image(task.image))
        spec = ContainerSpec(
            **common,
            image=render("image", image.reference),
            context=image.context,
            digest=image.digest,
            command=_each(render, "command", task.command),
            args=_each(render, "args", task.args),
            env={**env, **_all(render, "env", task.env)},
            secrets=task.secrets,
            mounts=tuple(place.store.mounts()),
            size=task.size.spec(),
        )
        return spec, {
            "size.gpu": Capability.GPU if task.size.gpu else None,
            "secrets": Capability.SECRETS if task.secrets else None,
        }

    def _common(
        self,
        place: str,
        table: str,
        name: str,
        settings: Mapping[str, Mapping[str, JsonValue]],
        ttl: float,
    ) -> dict[str, Any]:
        own = settings.get(name, {}).get("overrides", {})
        if not isinstance(own, Mapping):
            where = self._target.at(place).where
            raise TargetError(f"{where}: {table}.{name}.overrides: must be a table")
        return {"owner": self.owner, "ttl": math.ceil(ttl), "overrides": own}

    def _input(self, place: _Place, reference: str, where: str) -> str:
        if "." in reference:
            task, _, output = reference.partition(".")
            return self.output(task, output, place.name)
        source = self._sources[reference]
        if source.uri:
            with of_target(self._target, reference):
                return renderer(self._context, where)("uri", source.uri)
        return self._file(place, source_key(reference))

    def _file(self, place: _Place, path: str) -> str:
        """The URI of a local file once it is staged; a URI stays what it is."""
        if "://" in path:
            return path
        if path not in self._local.files:
            raise DefinitionError(f"{path!r} was not collected; call data.collect() first")
        return self._stage(place, self._local.files[path])

    def brought(self, place: str, files: Mapping[str, bytes]) -> dict[str, str]:
        """The URIs of files that a backend brings, once they are staged."""
        return {
            name: self._stage(
                self._at(place),
                LocalFile("", name, hashlib.sha256(content).hexdigest(), len(content)),
                content,
            )
            for name, content in files.items()
        }

    def _stage(self, place: _Place, file: LocalFile, content: bytes | None = None) -> str:
        uri = place.store.url(f"_staged/{file.digest}/{file_part(file.name)}")
        self.staged.setdefault(uri, Staged(uri, file, content))
        return uri


def _gathering(render: Render) -> tuple[Render, Gathered]:
    """`render`, going on after an error, and the errors."""
    wrong = Gathered()

    def rendered(field: str, text: str) -> str:
        try:
            return render(field, text)
        except DefinitionError as error:
            wrong.add(error)
            return text

    return rendered, wrong


def _all(render: Render, field: str, texts: Mapping[str, str]) -> dict[str, str]:
    return {key: render(f"{field}.{key}", text) for key, text in texts.items()}


def _each(render: Render, field: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(render(f"{field}[{i}]", text) for i, text in enumerate(texts))
