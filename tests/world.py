"""A provider in memory, and plans made by hand: what the tests of the engine stand on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from portaflow_local.folder import FolderFileSystem

from portaflow import calls, engine, poller
from portaflow import state as state_module
from portaflow.backend import (
    ClusterSpec,
    ContainerSpec,
    Driver,
    Handle,
    JobSpec,
    LogChunk,
    Request,
    Spec,
    State,
    Status,
)
from portaflow.engine import Engine
from portaflow.errors import NotFoundError
from portaflow.journal import Journal
from portaflow.names import resource_name
from portaflow.plan import Action, Plan
from portaflow.state import Event, RunState

RUNNING, SUCCEEDED = Status(state=State.RUNNING), Status(state=State.SUCCEEDED)
STOPPED, FAILED = Status(state=State.STOPPED), Status(state=State.FAILED, reason="exit code 1")


class World(Driver[Spec]):
    """Remembers what it was asked to do. Clusters are ready at once, all else succeeds.

    A test gives it other manners by setting `on_start` and the like, or by subclassing it.
    """

    def __init__(self) -> None:
        self.things: dict[str, Status] = {}
        self.log: list[str] = []  # "start a-1", "stop a-1"
        self.changed = threading.Condition()
        self.says: dict[str, Status] = {}  # what a thing becomes when it is started

    def short(self, name: str) -> str:
        """SUBJECT-ATTEMPT of pf-PIPELINE-SUBJECT-digest-ATTEMPT."""
        parts = name.split("-")
        return f"{parts[2]}-{parts[-1]}"

    def note(self, verb: str, name: str) -> None:
        with self.changed:
            self.log.append(f"{verb} {self.short(name)}")
            self.changed.notify_all()

    def wait_for(self, entry: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: entry in self.log, 30), self.log

    def becomes(self, short: str, status: Status) -> None:
        name = next(n for n in self.things if self.short(n) == short)
        self.things[name] = status

    @property
    def alive(self) -> list[str]:
        return sorted(self.short(n) for n, s in self.things.items() if not s.state.final)

    def request(self, name: str, spec: Spec, parent: str = "") -> Request:
        return {"name": name}

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        return Handle(name=name, id=f"id-of-{self.short(name)}") if name in self.things else None

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        name = request["name"]
        self.note("start", name)
        if parent and self.things[parent.name].state.final:
            raise NotFoundError(f"cluster {self.short(parent.name)} is down")
        kind = RUNNING if self.short(name).startswith("cluster") else SUCCEEDED
        short = self.short(name)
        self.things[name] = self.says.get(short) or self.says.get(short.split("-")[0]) or kind
        return Handle(name=name, id=f"id-of-{short}")

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        return {h.name: self.things.get(h.name) or NotFoundError(h.name) for h in handles}

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        return LogChunk(data=b"", cursor="", end=True)

    def stop(self, handle: Handle) -> None:
        self.note("stop", handle.name)
        if not self.things.get(handle.name, STOPPED).state.final:
            self.things[handle.name] = STOPPED

    def owned(self, owner: str = "") -> Iterable[Handle]:
        return [Handle(name=n, id=n) for n, s in self.things.items() if not s.state.final]


_SPECS: Mapping[str, type[Spec]] = {
    "cluster": ClusterSpec, "job": JobSpec, "container": ContainerSpec
}  # fmt: skip


class Stage:
    """A folder as store, and a plan of a few actions that can be run and resumed there."""

    def __init__(self, folder: Path, *actions: Action, world: World | None = None) -> None:
        self.home = f"file://{folder}/store/p/r"
        self.fs = FolderFileSystem(root=str(folder / "store"))
        self.world = world or World()
        self.drivers: dict[str, Driver[Any]] = {}  # other than the world's
        self.plan = Plan(
            pipeline="p", target="t", run="r", owner="o", home=self.home,
            actions=tuple(self._placed(a) for a in actions), max_parallel=4,
        )  # fmt: skip
        self.seen: list[str] = []  # "a running"
        self.troubles: list[Exception] = []
        self.journal = self.engine_journal()

    def _placed(self, action: Action) -> Action:
        name = action.name or resource_name("p", self.home, action.kind, action.subject)
        home = "" if action.kind == "cluster" else f"{self.home}/{action.subject}"
        outputs = {o: f"{home}/{o}" for o in action.outputs}
        return replace(action, name=name, home=home, outputs=outputs, request={"name": name})

    def engine_journal(self) -> Journal:
        return Journal(self.fs, self.home)

    def engine(
        self, past: Iterable[Event] = (), journal: Journal | None = None,
        observe: Callable[[Action, Event], None] | None = None,
    ) -> Engine:  # fmt: skip
        def see(action: Action, event: Event) -> None:
            self.seen.append(f"{action.id} {event.phase.value}")
            if observe:
                observe(action, event)

        return Engine(
            self.plan, lambda action: self.drivers.get(action.kind, self.world),
            lambda uri: self.fs, journal or self.journal, past=past, observe=see,
            on_trouble=lambda error, seconds: self.troubles.append(error),
        )  # fmt: skip

    def run(self) -> RunState:
        self.journal.begin({})
        return self.engine().run()

    def taken_over(self) -> tuple[Engine, Journal]:
        """What a new engine in a new process has: the journal and nothing else."""
        journal = self.engine_journal()
        past = journal.read()
        journal.begin({})
        return self.engine(past, journal), journal

    def resume(self) -> RunState:
        return self.taken_over()[0].run()

    def recorded(self, *events: Event) -> None:
        """Let the journal end like this, as if the engine had been killed then."""
        self.journal.begin({})
        self.journal.append(events)


def start(id: str, **rest: Any) -> Action:
    """A task in a container, or a cluster if its name begins so, or a job if it has a parent."""
    kind = "cluster" if id.startswith("cluster") else "job" if rest.get("parent") else "container"
    needs = frozenset(rest.pop("needs", ())) | {p for p in [rest.get("parent")] if p}
    rest.setdefault("retry_delay", 0.01)
    spec = _SPECS[kind](grace=0)
    return Action(id=id, verb="start", kind=kind, subject=id, spec=spec, needs=needs, **rest)  # type: ignore[arg-type]


def stop(cluster: str, *users: str) -> Action:
    return Action(
        id=f"stop/{cluster}", verb="stop", kind="cluster", subject=cluster, undoes=cluster,
        needs=frozenset([cluster, *users]),
    )  # fmt: skip


class Background:
    """Runs an engine in a thread, so that a test can act while it runs."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.engine.run()
        except BaseException as error:
            self.error = error

    def end(self) -> RunState:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the engine goes on"
        with suppress(AttributeError):
            self.engine._journal.close()
        return self.engine.state


class Gate(World):
    """A call that waits until the test lets it go."""

    waits = ""  # which one: "start", "stop" or "poll"

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.open = threading.Event(), threading.Event()

    def _gate(self, verb: str) -> None:
        if verb == self.waits:
            self.reached.set()
            self.open.wait(60)

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        if "-a-" in request["name"]:
            self._gate("start")
        return super().start(request, parent)

    def stop(self, handle: Handle) -> None:
        self._gate("stop")
        super().stop(handle)

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        self._gate("poll")
        return super().poll(handles)


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps with shorter pauses."""
    monkeypatch.setattr(calls, "TRIES", 3)
    monkeypatch.setattr(calls, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(engine, "STOP_AGAIN", 0.05)
    monkeypatch.setattr(engine, "CLOSING", 0.2)
    monkeypatch.setattr(state_module, "LOSS_DELAY", 0.01)
    monkeypatch.setattr(poller, "_LONGEST_TROUBLE", 0.01)
    monkeypatch.setattr(poller, "_GRACE", 0.05)
    monkeypatch.setattr(poller, "_SURE", 0.05)
    monkeypatch.setattr(poller, "_CLOSING", 0.2)


def hybrid(*, retries: int = 0) -> tuple[Action, ...]:
    return (
        start("cluster"),
        start("a", parent="cluster", retries=retries),
        start("b", needs=["a"]),
        start("c", parent="cluster", needs=["b"]),
        stop("cluster", "a", "c"),
    )


WHOLE = ["start cluster-1", "start a-1", "start b-1", "start c-1", "stop cluster-1"]


def phases(state: RunState) -> dict[str, str]:
    return {id: s.phase.value for id, s in state.of.items()}
