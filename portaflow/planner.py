"""Pipeline + target + run -> plan. Pure: the same values always give the same plan.

`plan()` reads no file, no clock and no network; what it must know of local files was
digested before (`data.collect`). Execution sends the requests that stand in the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .backend import Capability, Fit, Kind, Request, Spec, Support, Verdict
from .errors import (
    DefinitionError,
    Gathered,
    PluginError,
    PortaflowError,
    RejectedError,
    UnsupportedError,
)
from .names import resource_name
from .pipeline import CallTask, Cluster, ContainerTask, Pipeline, SparkTask, Task
from .plan import Action, ActionKind, Local, Note, Plan, Run, call_request, merged, native_request
from .plugins import Backends
from .specs import Asks, overridden, tasks_on
from .target import Target


def plan(
    pipeline: Pipeline, target: Target, run: Run, backends: Backends, local: Local | None = None
) -> Plan:
    """Return everything that a run will do. Raises DefinitionError, TargetError and
    UnsupportedError, the last with every portable field that a backend refuses; SeveralErrors
    when there is more than one of these.
    """
    return _Planner(pipeline, target, run, backends, local or Local()).plan()


Users = Mapping[str, tuple[Cluster, list[str]]]
"""Cluster name -> the cluster as the target wants it, and the ids of the tasks on it."""


class _Planner:
    """The working state of one call of `plan`."""

    def __init__(
        self, pipeline: Pipeline, target: Target, run: Run, backends: Backends, local: Local
    ) -> None:
        self.pipeline, self.target, self.run = pipeline, target, run
        self.backends = backends
        self.asks = Asks(pipeline, target, run, backends.store, local)
        self.upstream = pipeline.upstream()
        self.actions: list[Action] = []
        self.names: dict[str, str] = {}  # of the clusters' actions
        self.notes: list[Note] = []

    def plan(self) -> Plan:
        tasks = tasks_on(self.pipeline, self.target)
        users = self._users(tasks)
        first = {ids[0]: (cluster, ids) for cluster, ids in users.values()}
        last = {ids[-1]: (cluster, ids) for cluster, ids in users.values()}
        wrong = Gathered()
        for task in tasks:  # each after what it needs, and so each cluster too
            if task.id in first:
                with wrong.one():
                    self._start_cluster(*first[task.id])
            with wrong.one():
                self._start_task(task, users)
            if task.id in last and not last[task.id][0].attach:
                self._stop_cluster(*last[task.id])
        with wrong.one():
            self._refuse()
        wrong.tell()
        return Plan(
            pipeline=self.pipeline.name,
            target=self.target.name,
            run=self.run.id,
            owner=self.asks.owner,
            home=self.asks.home,
            actions=tuple(self.actions),
            staged=tuple(self.asks.staged.values()),
            notes=tuple(self.notes),
            max_parallel=self.target.max_parallel,
        )

    def _refuse(self) -> None:
        refused = [n for n in self.notes if n.fit.verdict is Verdict.REFUSED]
        if refused:
            lines = (f"  {n.action}: {n.field}: {n.fit.reason}" for n in refused)
            raise UnsupportedError(
                f"target {self.target.name!r} cannot run pipeline {self.pipeline.name!r}:\n"
                + "\n".join(lines)
                + "\nchange these fields, or choose another target"
            )

    # -- clusters

    def _users(self, tasks: Iterable[Task]) -> Users:
        """Who shares which cluster; nobody on a serverless backend."""
        spark = [t for t in tasks if isinstance(t, SparkTask)]
        if not spark or self.backends.compute.clusters is None:
            return {}
        clusters = {c.name: c for c in self.pipeline.clusters}
        users: dict[str, tuple[Cluster, list[str]]] = {}
        for task in spark:
            name = _cluster_of(task)
            if not task.cluster and name in clusters:
                raise DefinitionError(f"task {task.id!r}: name its cluster; {name!r} is taken")
            if name not in users:
                settings = self.target.clusters.get(name, {})
                where = f"{self.target.where}: clusters.{name}"
                cluster = clusters.get(name) or Cluster(name=name)
                users[name] = overridden(cluster, settings, where), []
            users[name][1].append(task.id)
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
        ask = self.asks.cluster(cluster)
        # It costs from its start: wait for what all tasks that use it first wait for.
        entries = _entries(users, self.upstream)
        common = frozenset.intersection(*(self.upstream[e] for e in entries))
        self._start(
            id=id, kind="cluster", subject=cluster.name, spec=ask.spec, wanted=ask.wanted,
            needs=common, timeout=cluster.timeout,
        )  # fmt: skip

    def _stop_cluster(self, cluster: Cluster, users: list[str]) -> None:
        name, start = cluster.name, f"cluster/{cluster.name}"
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

    def _start_task(self, task: Task, users: Users) -> None:
        ask = self.asks.task(task)
        needs, parent = self.upstream[task.id], ""
        if isinstance(task, SparkTask) and users:
            parent = f"cluster/{_cluster_of(task)}"
            needs |= {parent}
        self._start(
            id=task.id, kind=_KINDS[type(task)], subject=task.id, spec=ask.spec,
            wanted=ask.wanted, parent=parent, needs=needs,
            timeout=task.timeout, retries=task.retries, retry_delay=task.retry_delay,
            inputs=ask.inputs, outputs=ask.outputs, home=ask.home,
        )  # fmt: skip

    def _start(
        self, *, id: str, kind: ActionKind, subject: str, spec: Spec,
        wanted: Mapping[str, Capability | None], parent: str = "",
        needs: frozenset[str] = frozenset(), **rest: Any,
    ) -> None:  # fmt: skip
        name = resource_name(self.pipeline.name, self.asks.home, kind, subject)
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
            verdicts, request = self._say(id, kind, backend, name, spec, parent)
            self._fit(id, verdicts, wanted, owner.capabilities)
        self.actions.append(
            Action(
                id=id, verb="start", kind=kind, subject=subject, backend=backend, name=name,
                request=request, spec=spec, parent=parent, needs=needs, **rest,
            )
        )  # fmt: skip

    def _say(
        self, id: str, kind: Kind, backend: str, name: str, spec: Spec, parent: str
    ) -> tuple[Mapping[str, Fit], Request]:
        """What the driver makes of a spec, and its request for it."""
        driver = self.backends.driver(kind)
        try:
            return driver.fit(spec), native_request(driver, name, spec, self.names.get(parent, ""))
        except RejectedError as error:
            raise DefinitionError(f"{id}: backend {backend!r}: {error}") from error
        except PortaflowError:
            raise
        except Exception as error:  # a stranger's code
            raise PluginError(
                f"{id}: backend {backend!r} cannot say its request: "
                f"{type(error).__name__}: {error}; report it to its author"
            ) from error

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


_KINDS: Mapping[type[Any], ActionKind] = {
    SparkTask: "job",
    ContainerTask: "container",
    CallTask: "call",
}


def _cluster_of(task: SparkTask) -> str:
    """The cluster it names, or one of its own."""
    return task.cluster or f"{task.id}-own"


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
