"""Opens a target and runs, resumes and finds runs in it: what the command line stands on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from . import __version__
from .backend import Driver, Kind
from .call import CallDriver
from .calls import Drivers, patiently
from .data import collect, store_errors
from .engine import Engine
from .errors import DefinitionError, Gathered, NotFoundError, RunError, TargetError
from .journal import Journal
from .load import Project, load, naming
from .names import key_part
from .pipeline import Pipeline
from .plan import Action, Image, Local, LocalFile, Plan, Run
from .planner import plan
from .plugins import Backends, Registry
from .state import Event, RunState
from .target import Target
from .transfer import TransferDriver

_TRIES = 3  # of the first record of a run

Observe = Callable[[Action, Event], None]
OnTrouble = Callable[[Exception, float], None]


@dataclass(frozen=True, slots=True)
class RunRef:
    """A run in a store: the parts of its key, and the URI under which it is kept."""

    pipeline: str
    run: str
    home: str

    def __str__(self) -> str:
        return f"{self.pipeline}/{self.run}"


@dataclass(frozen=True)
class Past:
    """What the journal says of a run: enough to show, resume or stop it on any machine."""

    journal: Journal
    plan: Plan
    events: list[Event]
    project: Project
    local: Local

    @cached_property
    def state(self) -> RunState:
        """Raises DefinitionError when the pipeline has changed too much since the events."""
        try:
            return RunState(self.plan, self.events)
        except ValueError as error:
            raise DefinitionError(
                f"{self.project.file} does not fit run {self.plan.run!r} any more: {error}; "
                "change it back, give --path to what the run began with, or start a new run"
            ) from error

    def news(self) -> list[Event]:
        """Return the events that were recorded since the last look, and take them in."""
        events = self.journal.news()
        for event in events:
            self.state.apply(event)
        return events

    @property
    def header(self) -> Mapping[str, Any]:
        return self.journal.header


class Session:
    """A target, opened. Making one does no I/O."""

    def __init__(self, target: Target, registry: Registry | None = None) -> None:
        self.target = target
        self.backends = Backends(target, registry)

    @cached_property
    def fs(self) -> Any:
        return self.backends.store.filesystem()

    @cached_property
    def _stores(self) -> Mapping[str, Any]:
        """Filesystem by root: of the target, and of the places where it has tasks."""
        stores = (self.backends.at(place).store for place in self.target.others)
        others = {store.url("").rstrip("/"): store.filesystem() for store in stores}
        return {**others, self.backends.store.url("").rstrip("/"): self.fs}

    def fs_at(self, uri: str) -> Any:
        """The filesystem that holds a URI of a run."""
        roots = [root for root in self._stores if uri == root or uri.startswith(root + "/")]
        return self._stores[max(roots, key=len)] if roots else self.fs

    def plan(self, project: Project, run: Run) -> Plan:
        """Plan a run; reads the pipeline's local files and nothing else."""
        return self._planned(project, run)[0]

    def _planned(self, project: Project, run: Run) -> tuple[Plan, Local]:
        bad = not 1 <= len(run.id) <= 200 or not run.id.isprintable() or "/" in run.id
        if bad or run.id.startswith("-") or run.id != run.id.strip():
            raise DefinitionError(
                f"run id {run.id[:200]!r}: must have 1 to 200 printable characters, no '/', no "
                "'-' as the first, and no space as the first or last"
            )
        wrong = Gathered()
        with naming(project.file):
            local = collect(project, self.target, wrong)
            with wrong.one():
                planned = plan(project.pipeline, self.target, run, self.backends, local)
            wrong.tell()
        return planned, local

    def start(
        self, project: Project, run: Run, observe: Observe | None = None,
        on_trouble: OnTrouble | None = None,
    ) -> Engine:  # fmt: skip
        """Plan a run and record its beginning. Raises RunError when there is such a run."""
        planned, local = self._planned(project, run)
        journal, header = Journal(self.fs, planned.home), _header(project, run, self.target, local)
        try:  # a lost answer is no reason to give up, a store that cannot be reached is one soon
            patiently(lambda: journal.begin(header), None, _TRIES)
        except RunError as error:
            raise RunError(
                f"run {run.id!r} of {planned.pipeline!r} exists already; "
                f"portaflow resume goes on with it, another --run-id starts a new one"
            ) from error
        return self._engine(planned, project.folder, journal, (), observe, on_trouble)

    def resume(
        self, ref: RunRef, path: Path | None = None, observe: Observe | None = None,
        on_trouble: OnTrouble | None = None, force: bool = False,
    ) -> Engine:  # fmt: skip
        """Take over a run that ended badly or whose engine died.

        The pipeline is read from `path`, or where it was when the run began; if it is not
        there any more, the journal's copy serves. Raises RunError while an engine is alive
        (`force` takes the run from it).
        """
        past = self.past(ref, path)
        if not force:
            self._check_free(ref, past.journal)
        return self._go_on(past, observe, on_trouble)

    def stop(
        self, ref: RunRef, observe: Observe | None = None, on_trouble: OnTrouble | None = None
    ) -> Engine:
        """Take over a run whose engine died, with the pipeline as recorded, to stop it all.

        An engine that is alive is asked instead: `Past.journal.ask_to_stop`.
        """
        past = self.recorded(ref)
        self._check_free(ref, past.journal)
        engine = self._go_on(past, observe, on_trouble)
        engine.cancel()
        return engine

    def _check_target(self, ref: RunRef, header: Mapping[str, Any]) -> None:
        if (target := header["target"]) != self.target.name:
            raise TargetError(
                f"run {ref} is on target {target!r}, not on {self.target.name!r}; "
                f"say --target {target}"
            )

    def _check_free(self, ref: RunRef, journal: Journal) -> None:
        if journal.alive():
            lease = journal.lease() or {}
            raise RunError(
                f"an engine works on run {ref} (process {lease.get('pid')}); "
                "wait for it, stop it with `portaflow stop`, or take over with --force"
            )

    def _go_on(self, past: Past, observe: Observe | None, on_trouble: OnTrouble | None) -> Engine:
        _ = past.state  # what has happened must fit the plan before anything is recorded
        journal, run = past.journal, _run(past.header)
        header = _header(past.project, run, self.target, past.local)
        patiently(lambda: journal.begin(header), None, _TRIES)
        journal.forget_wish()
        folder = past.project.folder
        return self._engine(past.plan, folder, journal, past.events, observe, on_trouble)

    def _engine(
        self, planned: Plan, folder: Path, journal: Journal, events: Iterable[Event],
        observe: Observe | None, on_trouble: OnTrouble | None,
    ) -> Engine:  # fmt: skip
        engine = Engine(
            planned, self.drivers(planned, folder), self.fs_at, journal,
            past=events, observe=observe, on_trouble=on_trouble,
        )  # fmt: skip
        journal.keep_alive(engine.cancel, engine.look_for_rival)
        return engine

    def drivers(self, planned: Plan, folder: Path) -> Drivers:
        """The driver for each action of a plan."""
        inside: Mapping[str, Driver[Any]] = {
            "call": CallDriver(self.fs_at, planned.home, folder),
            "transfer": TransferDriver(self.fs_at),
        }
        return lambda action: inside.get(action.kind) or self.driver(action)

    def driver(self, action: Action) -> Driver[Any]:
        """The backend's driver for an action that is not done inside the engine."""
        return self.backends.at(action.place).driver(cast(Kind, action.kind))

    # -- runs that are there

    def runs(self) -> list[RunRef]:
        """All runs in the store, the one that began latest first."""
        store = self.backends.store
        refs = []
        for pipeline in _folders(self.fs, store.url("").rstrip("/")):
            for run in _folders(self.fs, store.url(pipeline)):
                home = store.url(f"{pipeline}/{run}")
                if began := _began(self.fs, home):
                    refs.append((*began, RunRef(pipeline, run, home)))
        return [ref for *_, ref in sorted(refs, key=lambda r: r[:2], reverse=True)]

    def find(self, run: str = "", pipeline: str = "") -> RunRef:
        """The run named `run`, or "pipeline/run"; "" is the latest. Raises NotFoundError."""
        if "/" in run and not pipeline:
            pipeline, _, run = run.partition("/")
        refs = [r for r in self.runs() if not pipeline or r.pipeline == key_part(pipeline)]
        refs = [r for r in refs if r.run == key_part(run)] if run else refs[:1]
        if len(refs) == 1:
            return refs[0]
        where = f"the store of target {self.target.name!r}"
        if refs:
            names = ", ".join(map(str, refs))
            raise RunError(f"run {run!r} is in several pipelines: {names}; name one of these")
        raise NotFoundError(
            f"there is no run {f'{pipeline}/{run}'.strip('/')!r} in {where}; "
            "`portaflow status --all` lists those that are there"
        )

    def past(self, ref: RunRef, path: Path | None = None) -> Past:
        """Read a run's journal and plan it again, with the pipeline as it is now."""
        journal = Journal(self.fs, ref.home)
        events = _read(journal)
        self._check_target(ref, journal.header)
        file = path or Path(journal.header["path"])
        if path is None and not file.exists():
            return self._recorded(journal, events)
        project = load(file)
        planned, local = self._planned(project, _run(journal.header))
        return Past(journal, planned, events, project, local)

    def recorded(self, ref: RunRef) -> Past:
        """As `past`, with the pipeline as its last engine had it: to look, not to go on.

        An edited, broken or moved pipeline does not change what has happened.
        """
        journal = Journal(self.fs, ref.home)
        return self._recorded(journal, _read(journal))

    def _recorded(self, journal: Journal, events: list[Event]) -> Past:
        with _damage(journal):
            run, (project, local) = _run(journal.header), _recorded(journal.header)
        planned = plan(project.pipeline, self.target, run, self.backends, local)
        return Past(journal, planned, events, project, local)


def _folders(fs: Any, parent: str) -> list[str]:
    """The names below `parent` that may be a pipeline's or a run's.

    Listed, not globbed: a root may hold what a pattern would take for one.
    """
    try:
        with store_errors(parent):
            found = fs.ls(parent, detail=True)
    except NotFoundError:
        return []
    names = (i["name"].rstrip("/").rpartition("/")[2] for i in found if i["type"] == "directory")
    return [name for name in names if not name.startswith(("_", "."))]


def _began(fs: Any, home: str) -> tuple[float, str] | None:
    """What sorts a run among others by its beginning; None when there is no run."""
    path = f"{home}/_journal/{1:08d}.json"
    try:
        with store_errors(path):
            return _written(fs.info(path)), path
    except NotFoundError:
        return None


def _written(info: Mapping[str, Any]) -> float:
    """When an object was written, which each filesystem says in its own way; 0 if it does not."""
    for key in ("mtime", "last_modified", "LastModified", "updated"):
        match info.get(key):
            case int() | float() as seconds:
                return float(seconds)
            case datetime() as moment:
                return moment.timestamp()
            case str() as text:
                return datetime.fromisoformat(text).timestamp()
    return 0.0


_HEADER = {
    "pipeline": str, "run": str, "target": str, "logical_date": str, "params": dict, "path": str,
    "definition": dict, "files": dict, "images": dict,
}  # fmt: skip


def _read(journal: Journal) -> list[Event]:
    """The events of a journal whose header is whole: others may write into a store, too."""
    events = journal.read()
    with _damage(journal):
        for key, kind in _HEADER.items():
            if not isinstance(journal.header[key], kind):
                raise TypeError(f"{key} is no {kind.__name__}")
        _run(journal.header)
    return events


@contextmanager
def _damage(journal: Journal) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, DefinitionError) as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RunError(
            f"the journal at {journal.home} has a damaged header: {cause}; start a new run"
        ) from error


def _recorded(header: Mapping[str, Any]) -> tuple[Project, Local]:
    file = Path(header["path"])
    local = Local(
        {path: LocalFile(**file) for path, file in header["files"].items()},
        {name: Image(**image) for name, image in header["images"].items()},
    )
    folder = file.parent if file.exists() else Path.cwd()
    return Project(Pipeline.model_validate(header["definition"]), folder, file), local


def _run(header: Mapping[str, Any]) -> Run:
    return Run(
        id=header["run"],
        logical_date=datetime.fromisoformat(header["logical_date"]),
        params=header["params"],
    )


def _header(project: Project, run: Run, target: Target, local: Local) -> dict[str, Any]:
    return {
        "portaflow": __version__,
        "pipeline": project.pipeline.name,
        "run": run.id,
        "target": target.name,
        "logical_date": run.logical_date.isoformat(),
        "params": dict(run.params),
        "path": str(project.file),
        "definition": project.pipeline.model_dump(mode="json"),
        "files": {path: dataclasses.asdict(file) for path, file in local.files.items()},
        "images": {name: dataclasses.asdict(image) for name, image in local.images.items()},
    }
