"""Pipeline + target + run -> plan. Pure: the same values always give the same plan.

`plan()` reads no file, no clock and no network; what it must know of local files was
digested before (`data.collect`). Execution sends the requests that stand in the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from .backend import Capability, Fit, JobSpec, Kind, Machines, Request, Spec, Support, Verdict
from .cost import Cost, check, cost
from .errors import (
    DefinitionError,
    Gathered,
    PluginError,
    PortaflowError,
    RejectedError,
    TargetError,
    UnsupportedError,
)
from .names import resource_name
from .pipeline import CallTask, Cluster, ContainerTask, Pipeline, SparkTask, Task
from .plan import (
    Action,
    ActionKind,
    Local,
    Note,
    Plan,
    Run,
    TransferSpec,
    call_request,
    merged,
    native_request,
    transfer_request,
)
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


@dataclass(frozen=True, slots=True)
class _Shared:
    """A cluster as its target wants it, that target's place, and the ids of the tasks on it."""

    cluster: Cluster
    place: str
    tasks: list[str]


Users = Mapping[str, _Shared]
"""By cluster name."""


class _Planner:
    """The working state of one call of `plan`."""

    def __init__(
        self, pipeline: Pipeline, target: Target, run: Run, backends: Backends, local: Local
    ) -> None:
        self.pipeline, self.target, self.run = pipeline, target, run
        self.backends = backends
        self.asks = Asks(pipeline, target, run, backends, local)
        self.upstream = pipeline.upstream()
        self.actions: list[Action] = []
        self.names: dict[str, str] = {}  # of the clusters' actions
        self.notes: list[Note] = []
        self.costs: list[Cost] = []
        self.transfers = _transfers(pipeline, target, self.asks)  # by reader, and by writer

    def plan(self) -> Plan:
        tasks = tasks_on(self.pipeline, self.target)
        users = self._users(tasks)
        first = {shared.tasks[0]: shared for shared in users.values()}
        last = {shared.tasks[-1]: shared for shared in users.values()}
        wrong = Gathered()
        for task in tasks:  # each after what it needs, and so each cluster too
            if task.id in first:
                with wrong.one():
                    self._start_cluster(first[task.id])
            with wrong.one():
                self._start_task(task, users)
            for transfer in self.transfers.get(task.id, ()):
                if transfer.writer == task.id:
                    self._start_transfer(transfer)
            if task.id in last and not last[task.id].cluster.attach:
                self._stop_cluster(last[task.id])
        with wrong.one():
            self._refuse()
        with wrong.one():
            check(self.costs, self.target)
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
            costs=tuple(self.costs),
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
        clusters = {c.name: c for c in self.pipeline.clusters}
        users: dict[str, _Shared] = {}
        for task in tasks:
            place = self.target.placed(task.id)
            if not isinstance(task, SparkTask):
                continue
            name = _cluster_of(task)
            if self._at(place).compute.clusters is None:
                self._note_no_cluster(task.id, clusters.get(name))
                continue
            if not task.cluster and name in clusters:
                raise DefinitionError(f"task {task.id!r}: name its cluster; {name!r} is taken")
            if name not in users:
                there = self.target.at(place)
                settings, where = there.clusters.get(name, {}), f"{there.where}: clusters.{name}"
                cluster = clusters.get(name) or Cluster(name=name)
                users[name] = _Shared(overridden(cluster, settings, where), place, [])
            if users[name].place != place:
                other = users[name].tasks[0]
                raise TargetError(
                    f"{self.target.where}: place: tasks {other!r} and {task.id!r} share cluster "
                    f"{name!r}, so they must be in one place"
                )
            users[name].tasks.append(task.id)
        return users

    def _note_no_cluster(self, task: str, cluster: Cluster | None) -> None:
        """Say what of a cluster is lost where there is none."""
        for field in ("workers", "size", "spot", "spark_version", "conf", "attach"):
            if cluster and getattr(cluster, field) != getattr(Cluster(name=cluster.name), field):
                why = (
                    f"of cluster {cluster.name!r}: there is none, the task alone says what it needs"
                )
                self.notes.append(Note(task, field, Fit(Verdict.APPROXIMATED, why)))

    def _at(self, place: str) -> Backends:
        return self.backends.at(place)

    def _start_cluster(self, shared: _Shared) -> None:
        cluster, place, users = shared.cluster, shared.place, shared.tasks
        id = f"cluster/{cluster.name}"
        if cluster.attach:
            self.names[id] = cluster.attach
            self.actions.append(
                Action(
                    id=id,
                    verb="attach",
                    kind="cluster",
                    subject=cluster.name,
                    place=place,
                    backend=self._at(place).compute.name,
                    name=cluster.attach,
                    timeout=cluster.timeout,
                )
            )
            return
        ask = self.asks.cluster(cluster, place)
        # It costs from its start: wait for what all tasks that use it first wait for.
        entries = _entries(users, self.upstream)
        common = frozenset.intersection(*(self.upstream[e] for e in entries))
        self._start(
            id=id, kind="cluster", subject=cluster.name, place=place, spec=ask.spec,
            wanted=ask.wanted, needs=common, timeout=cluster.timeout,
        )  # fmt: skip

    def _stop_cluster(self, shared: _Shared) -> None:
        name, start = shared.cluster.name, f"cluster/{shared.cluster.name}"
        self.actions.append(
            Action(
                id=f"stop/{name}",
                verb="stop",
                kind="cluster",
                subject=name,
                place=shared.place,
                backend=self._at(shared.place).compute.name,
                undoes=start,
                needs=frozenset([start, *shared.tasks]),
            )
        )

    # -- tasks

    def _start_task(self, task: Task, users: Users) -> None:
        ask = self.asks.task(task)
        place = self.target.placed(task.id)
        needs, parent = self.upstream[task.id], ""
        if isinstance(task, SparkTask) and self._at(place).compute.clusters is not None:
            parent = f"cluster/{_cluster_of(task)}"
            needs |= {parent}
        needs |= {t.id for t in self.transfers.get(task.id, ()) if t.writer != task.id}
        self._start(
            id=task.id, kind=_KINDS[type(task)], subject=task.id, place=place, spec=ask.spec,
            wanted=ask.wanted, parent=parent, needs=needs,
            timeout=task.timeout, retries=task.retries, retry_delay=task.retry_delay,
            inputs=ask.inputs, outputs=ask.outputs, home=ask.home,
        )  # fmt: skip

    def _start_transfer(self, transfer: _Transfer) -> None:
        asks, writer, there = self.asks, transfer.writer, self.target.placed(transfer.writer)
        home = asks.task_home(writer, transfer.place)
        copies = {
            o: (asks.output(writer, o, there), asks.output(writer, o, transfer.place))
            for o in sorted(transfer.outputs)
        }
        spec = TransferSpec(owner=asks.owner, home=asks.task_home(writer, there), copies=copies)
        self._start(
            id=transfer.id, kind="transfer", place=transfer.place, spec=spec, wanted={},
            subject=f"{writer} to {transfer.place or self.target.name}",
            needs=frozenset([writer]), home=home,
            inputs={o: source for o, (source, _) in copies.items()},
            outputs={o: copy for o, (_, copy) in copies.items()},
        )  # fmt: skip

    def _start(
        self, *, id: str, kind: ActionKind, subject: str, place: str, spec: Spec,
        wanted: Mapping[str, Capability | None], parent: str = "",
        needs: frozenset[str] = frozenset(), **rest: Any,
    ) -> None:  # fmt: skip
        name = resource_name(self.pipeline.name, self.asks.home, kind, subject)
        if kind == "cluster":
            self.names[id] = name
        backend: str = kind
        if isinstance(spec, TransferSpec):
            request = transfer_request(name, spec)
        elif kind == "call":
            request = call_request(name, spec)
        else:
            backends, target = self._at(place), self.target.at(place)
            owner = backends.container if kind == "container" else backends.compute
            backend = owner.name
            binding = target.container if kind == "container" else target.compute
            shared = binding.overrides.get(kind, {}) if binding else {}
            if shared:
                spec = replace(spec, overrides=merged(shared, spec.overrides))
            spec, verdicts, request, machines = self._say(
                id, cast(Kind, kind), place, name, spec, parent
            )
            self._fit(id, verdicts, wanted, owner.capabilities)
            self.costs.append(cost(id, machines, spec.ttl, target, backend))
        self.actions.append(
            Action(
                id=id, verb="start", kind=kind, subject=subject, place=place, backend=backend,
                name=name, request=request, spec=spec, parent=parent, needs=needs, **rest,
            )
        )  # fmt: skip

    def _say(
        self, id: str, kind: Kind, place: str, name: str, spec: Spec, parent: str
    ) -> tuple[Spec, Mapping[str, Fit], Request, Sequence[Machines] | None]:
        """A spec with the files that the driver brings, what that makes of it, its request for
        it, and what that will take."""
        backends = self._at(place)
        driver = backends.driver(kind)
        backend = (backends.container if kind == "container" else backends.compute).name
        try:
            if isinstance(spec, JobSpec) and (brought := driver.files(spec)):
                spec = replace(spec, files=self.asks.brought(place, brought))
            request = native_request(driver, name, spec, self.names.get(parent, ""))
            return spec, driver.fit(spec), request, driver.machines(request)
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


@dataclass(slots=True)
class _Transfer:
    """Outputs of one task that are read where its store is not at hand."""

    id: str
    writer: str
    place: str
    outputs: set[str]


def _transfers(pipeline: Pipeline, target: Target, asks: Asks) -> Mapping[str, Iterable[_Transfer]]:
    """Which transfers there must be: by the task that writes what is copied, and by readers.

    One for each task and each store that its outputs must go to, whatever place has the store.
    """
    found: dict[tuple[str, str], _Transfer] = {}
    of: dict[str, dict[str, _Transfer]] = {}
    for task in pipeline.tasks if target.others else ():
        place = target.placed(task.id)
        for writer, _, output in (r.partition(".") for r in task.inputs.values() if "." in r):
            home = asks.task_home(writer, place)
            if home == asks.task_home(writer, target.placed(writer)):
                continue
            id = f"transfer/{writer}/{place or target.name}"
            one = found.setdefault((writer, home), _Transfer(id, writer, place, set()))
            one.outputs.add(output)
            for end in (writer, task.id):
                of.setdefault(end, {})[one.id] = one
    return {task: transfers.values() for task, transfers in of.items()}


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
