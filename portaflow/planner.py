"""Pipeline + target + run -> plan. Pure: the same values always give the same plan.

`plan()` reads no file, no clock and no network; what it must know of local files was
digested before (`data.collect`). Execution sends the requests that stand in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

from pydantic import JsonValue, ValidationError

from .backend import (
    Capability,
    ClusterSpec,
    ContainerSpec,
    Fit,
    JobSpec,
    Spec,
    Support,
    Verdict,
)
from .errors import DefinitionError, RejectedError, TargetError, UnsupportedError
from .names import key_part, owner_label, resource_name
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
from .plan import (
    Action,
    ActionKind,
    CallSpec,
    Image,
    Local,
    Note,
    Plan,
    Run,
    Staged,
    call_request,
    merged,
    native_request,
)
from .plugins import Backends
from .target import Target
from .templates import renderer, run_context
from .validation import explain

_BACKSTOP = 900  # seconds between our own deadline and the provider's


def parameters(pipeline: Pipeline, target: Target, run: Run) -> dict[str, JsonValue]:
    """The pipeline's parameters as this run has them. Raises DefinitionError."""
    params = dict(pipeline.params)
    given = {k: v for k, v in target.params.items() if k in params}
    for name, value in [*given.items(), *run.params.items()]:
        if name not in params:
            raise DefinitionError(
                f"pipeline {pipeline.name!r} has no parameter {name!r}{suggest(name, params)}"
            )
        default = pipeline.params[name]
        kinds = (int, float) if isinstance(default, float) else type(default)
        if default is not None and not (
            isinstance(value, kinds) and isinstance(value, bool) == isinstance(default, bool)
        ):
            raise DefinitionError(
                f"parameter {name!r} is {value!r}, but must be a {type(default).__name__} "
                f"like its default {default!r}"
            )
        params[name] = value
    return params


def plan(
    pipeline: Pipeline, target: Target, run: Run, backends: Backends, local: Local | None = None
) -> Plan:
    """Return everything that a run will do. Raises DefinitionError, TargetError and
    UnsupportedError, the last with every portable field that a backend refuses.
    """
    return _Planner(pipeline, target, run, backends, local or Local()).plan()


ModelT = TypeVar("ModelT", bound=Model)
_FIXED = ("id", "name", "kind", "inputs", "outputs", "after")


def _overridden(model: ModelT, settings: Mapping[str, JsonValue], where: str) -> ModelT:
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


class _Planner:
    """The working state of one call of `plan`."""

    def __init__(
        self, pipeline: Pipeline, target: Target, run: Run, backends: Backends, local: Local
    ) -> None:
        self.pipeline, self.target, self.run = pipeline, target, run
        self.backends, self.local = backends, local
        self.owner = owner_label(pipeline.name, run.id)
        self.prefix = f"{key_part(pipeline.name)}/{key_part(run.id)}"
        self.context = run_context(run.id, run.logical_date, parameters(pipeline, target, run))
        self.sources = {**pipeline.sources, **target.sources}
        self.actions: list[Action] = []
        self.names: dict[str, str] = {}  # of the clusters' actions
        self.staged: dict[str, Staged] = {}
        self.notes: list[Note] = []

    def plan(self) -> Plan:
        where = f"target {self.target.name!r}: "
        tasks = [
            _overridden(t, self.target.tasks.get(t.id, {}), f"{where}tasks.{t.id}")
            for t in map(self.pipeline.by_id.__getitem__, self.pipeline.order())
        ]
        users = self._users(tasks)
        for cluster, ids in users.values():
            settings = self.target.clusters.get(cluster.name, {})
            place = f"{where}clusters.{cluster.name}"
            self._start_cluster(_overridden(cluster, settings, place), ids)
        for task in tasks:
            self._start_task(task, users)
        for cluster, ids in users.values():
            if not cluster.attach:
                self._stop_cluster(cluster.name, ids)
        refused = [n for n in self.notes if n.fit.verdict is Verdict.REFUSED]
        if refused:
            lines = (f"  {n.action}: {n.field}: {n.fit.reason}" for n in refused)
            raise UnsupportedError(
                f"target {self.target.name!r} cannot run pipeline {self.pipeline.name!r}:\n"
                + "\n".join(lines)
                + "\nchange these fields, or choose another target"
            )
        return Plan(
            pipeline=self.pipeline.name,
            target=self.target.name,
            run=self.run.id,
            owner=self.owner,
            home=self.backends.store.url(self.prefix),
            actions=tuple(self.actions),
            staged=tuple(self.staged.values()),
            notes=tuple(self.notes),
            max_parallel=self.target.max_parallel,
        )

    # -- clusters

    def _users(self, tasks: Iterable[Task]) -> dict[str, tuple[Cluster, list[str]]]:
        """Cluster name -> the cluster and the tasks on it; none on a serverless backend."""
        spark = [t for t in tasks if isinstance(t, SparkTask)]
        if not spark or self.backends.compute.clusters is None:
            return {}
        clusters = {c.name: c for c in self.pipeline.clusters}
        users: dict[str, tuple[Cluster, list[str]]] = {}
        for task in spark:
            name = task.cluster or f"{task.id}-own"
            if not task.cluster and name in clusters:
                raise DefinitionError(f"task {task.id!r}: name its cluster; {name!r} is taken")
            users.setdefault(name, (clusters.get(name) or Cluster(name=name), []))[1].append(
                task.id
            )
        return users

    def _start_cluster(self, cluster: Cluster, users: list[str]) -> None:
        id = f"cluster/{cluster.name}"
        if cluster.attach:
            self.names[id] = cluster.attach
            self.actions.append(
                Action(
                    id=id,
                    verb="attach",
                    kind="cluster",
                    subject=cluster.name,
                    backend=self.backends.compute.name,
                    name=cluster.attach,
                    timeout=cluster.timeout,
                )
            )
            return
        spec = ClusterSpec(
            **self._common("cluster", cluster.name, self.target.clusters, cluster.ttl),
            workers=cluster.workers,
            size=cluster.size.spec(),
            spot=cluster.spot,
            spark_version=cluster.spark_version,
            conf=self._render_all(f"cluster {cluster.name!r}: conf", cluster.conf, self.context),
        )
        wanted = {
            "workers": Capability.AUTOSCALE if spec.workers[0] < spec.workers[1] else None,
            "spot": Capability.SPOT if spec.spot else None,
        }
        # It costs from its start: wait for what all tasks that use it first wait for.
        upstream = self.upstream
        entries = _entries(users, upstream)
        common = frozenset.intersection(*(upstream[e] for e in entries))
        self._start(
            id=id, kind="cluster", subject=cluster.name, spec=spec, wanted=wanted,
            needs=common, timeout=cluster.timeout,
        )  # fmt: skip

    def _stop_cluster(self, name: str, users: list[str]) -> None:
        start = f"cluster/{name}"
        self.actions.append(
            Action(
                id=f"stop/{name}",
                verb="stop",
                kind="cluster",
                subject=name,
                backend=self.backends.compute.name,
                undoes=start,
                needs=frozenset([start, *users]),
            )
        )

    # -- tasks

    def _start_task(self, task: Task, users: Mapping[str, tuple[Cluster, list[str]]]) -> None:
        where = f"task {task.id!r}"
        home = f"{self.prefix}/{key_part(task.id)}"
        inputs = {n: self._input(r, f"{where}: inputs.{n}") for n, r in task.inputs.items()}
        outputs = {o: self._url(f"{home}/{key_part(o)}") for o in task.outputs}
        result = self._url(f"{home}/_result.json")
        context = {
            **self.context, "task_id": task.id, "inputs": inputs, "outputs": outputs,
            "result": result,
        }  # fmt: skip
        env = dict(self.backends.store.container_env())
        env |= {f"PORTAFLOW_INPUT_{variable(n)}": uri for n, uri in inputs.items()}
        env |= {f"PORTAFLOW_OUTPUT_{variable(n)}": uri for n, uri in outputs.items()}
        env["PORTAFLOW_RESULT"] = result
        render = renderer(context, where)
        common = self._common("task", task.id, self.target.tasks, task.timeout + _BACKSTOP)
        parent, wanted = "", dict[str, Capability | None]()
        spec: Spec
        match task:
            case SparkTask():
                if users:
                    parent = f"cluster/{task.cluster or f'{task.id}-own'}"
                jar = task.main.split("?")[0].endswith(".jar")
                wanted = {
                    "main": Capability.JAR if jar else None,
                    "packages": Capability.PACKAGES if task.packages else None,
                }
                spec = JobSpec(
                    **common,
                    main=self._file(task.main),
                    main_class=task.main_class,
                    args=tuple(render(f"args[{i}]", a) for i, a in enumerate(task.args)),
                    py_files=tuple(map(self._file, task.py_files)),
                    jars=tuple(map(self._file, task.jars)),
                    packages=task.packages,
                    conf={
                        **self.backends.store.spark_conf(),
                        **self._render_all(f"{where}: conf", task.conf, context),
                    },
                    env=env | self._render_all(f"{where}: env", task.env, context),
                    secrets=task.secrets,
                    size=task.size.spec(),
                )
            case ContainerTask():
                image = self.local.images.get(task.image, Image(task.image))
                wanted = {
                    "size.gpu": Capability.GPU if task.size.gpu else None,
                    "secrets": Capability.SECRETS if task.secrets else None,
                }
                spec = ContainerSpec(
                    **common,
                    image=render("image", image.reference),
                    context=image.context,
                    digest=image.digest,
                    command=tuple(render(f"command[{i}]", a) for i, a in enumerate(task.command)),
                    args=tuple(render(f"args[{i}]", a) for i, a in enumerate(task.args)),
                    env=env | self._render_all(f"{where}: env", task.env, context),
                    secrets=task.secrets,
                    mounts=tuple(self.backends.store.mounts()),
                    size=task.size.spec(),
                )
            case CallTask():
                kwargs = {
                    k: render(f"kwargs.{k}", v) if isinstance(v, str) else v
                    for k, v in task.kwargs.items()
                }
                spec = CallSpec(**common, function=task.function, kwargs=kwargs, env=env)
        self._start(
            id=task.id, kind=_KINDS[type(task)], subject=task.id, spec=spec, wanted=wanted,
            parent=parent, needs=self.upstream[task.id] | ({parent} if parent else set()),
            timeout=task.timeout, retries=task.retries, retry_delay=task.retry_delay,
            inputs=inputs, outputs=outputs, home=self._url(home),
        )  # fmt: skip

    # -- parts

    @cached_property
    def upstream(self) -> dict[str, frozenset[str]]:
        return self.pipeline.upstream()

    def _url(self, key: str) -> str:
        return self.backends.store.url(key)

    def _common(
        self, what: str, name: str, settings: Mapping[str, Mapping[str, JsonValue]], ttl: float
    ) -> dict[str, Any]:
        own = settings.get(name, {}).get("overrides", {})
        if not isinstance(own, Mapping):
            raise TargetError(
                f"target {self.target.name!r}: {what}s.{name}.overrides: must be a table"
            )
        return {"owner": self.owner, "ttl": math.ceil(ttl), "overrides": own}

    def _start(
        self, *, id: str, kind: ActionKind, subject: str, spec: Spec,
        wanted: Mapping[str, Capability | None], parent: str = "", needs: Iterable[str] = (),
        **rest: Any,
    ) -> None:  # fmt: skip
        name = resource_name(self.pipeline.name, self.run.id, kind, subject)
        if kind == "cluster":
            self.names[id] = name
        if kind == "call":
            backend, request = "call", call_request(name, spec)
        else:
            owner = self.backends.container if kind == "container" else self.backends.compute
            backend = owner.name
            binding = self.target.container if kind == "container" else self.target.compute
            shared = binding.overrides.get(kind, {}) if binding else {}
            if shared:
                spec = replace(spec, overrides=merged(shared, spec.overrides))
            driver = self.backends.driver(kind)
            self._fit(id, driver.fit(spec), wanted, owner.capabilities)
            parent_name = self.names.get(parent, "")
            try:
                request = native_request(driver, name, spec, parent_name)
            except RejectedError as error:
                raise DefinitionError(f"{id}: backend {backend!r}: {error}") from error
        self.actions.append(
            Action(
                id=id, verb="start", kind=kind, subject=subject, backend=backend, name=name,
                request=request, spec=spec, parent=parent, needs=frozenset(needs), **rest,
            )
        )  # fmt: skip

    def _fit(
        self,
        id: str,
        verdicts: Mapping[str, Fit],
        wanted: Mapping[str, Capability | None],
        capabilities: Mapping[Capability, Support],
    ) -> None:
        for name, capability in wanted.items():
            if capability is None or name in verdicts:
                continue
            support = capabilities.get(capability, Support(False))
            if not support.supported:
                cause = support.reason or f"the backend does not have {capability.value!r}"
                self.notes.append(Note(id, name, Fit(Verdict.REFUSED, cause)))
        for name, fit in verdicts.items():
            if fit.verdict is not Verdict.HONOURED:
                self.notes.append(Note(id, name, fit))

    def _render_all(
        self, where: str, texts: Mapping[str, str], context: Mapping[str, Any]
    ) -> dict[str, str]:
        if not texts:
            return {}
        render = renderer(context, where)
        return {key: render(key, text) for key, text in texts.items()}

    def _input(self, reference: str, where: str) -> str:
        if "." in reference:
            task, _, output = reference.partition(".")
            return self._url(f"{self.prefix}/{key_part(task)}/{key_part(output)}")
        source = self.sources[reference]
        if source.uri:
            return renderer(self.context, where)("uri", source.uri)
        return self._file(f"{source.package}:{source.path}" if source.package else source.path)

    def _file(self, path: str) -> str:
        """The URI of a local file once it is staged; a URI stays what it is."""
        if "://" in path:
            return path
        if path not in self.local.files:
            raise DefinitionError(f"{path!r} was not collected; call data.collect() first")
        file = self.local.files[path]
        uri = self._url(f"_staged/{file.digest}/{key_part(file.name)}")
        self.staged.setdefault(uri, Staged(uri, file))
        return uri


_KINDS: Mapping[type[Any], ActionKind] = {
    SparkTask: "job",
    ContainerTask: "container",
    CallTask: "call",
}


def _entries(users: list[str], upstream: Mapping[str, frozenset[str]]) -> list[str]:
    """The tasks of `users` that wait, directly or not, for none of the others.

    `users` is in topological order, so the first is one; a walk up from each finds the rest.
    """
    group, entries = set(users), []
    clear: set[str] = set()  # known to have no user of the cluster above
    for user in users:
        seen, ahead = {user}, list(upstream[user])
        while ahead and ahead[-1] not in group:
            id = ahead.pop()
            if id not in seen and id not in clear:
                seen.add(id)
                ahead += upstream[id]
        if not ahead:
            entries.append(user)
            clear |= seen - {user}
    return entries
