"""Finds what is alive in a target, tells whose it is, and ends what no engine will.

A run's owner label follows from its pipeline and id, so each run in the store can be asked
for what is its own. What belongs to no run of this store may well be another store's: it is
shown, but only removed when that is asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .backend import Driver, Handle, Kind
from .calls import patiently
from .errors import BackendError, LeakError, NotFoundError, PortaflowError
from .journal import Journal
from .names import owner_label
from .session import Session
from .state import Event, Phase

_PATIENCE = 900.0  # seconds until what was asked to end counts as leaked
_AGAIN = 60.0  # seconds until it is asked again
_PAUSE = 0.2  # seconds between two looks

EngineState = Literal["alive", "ended", "dead", "unknown"]


@dataclass(slots=True, kw_only=True)
class Found:
    """One thing that is alive, and whose it is. `run` is "" when no run of the store owns it."""

    kind: Kind
    place: str = ""  # the target that has it, when it is not the one that was looked at
    backend: str
    handle: Handle
    owner: str = ""
    pipeline: str = ""
    run: str = ""
    engine: EngineState = "unknown"
    since: float = 0.0  # when it was started, if the journal says so
    journal: Journal | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "backend": self.backend,
            "name": self.handle.name,
            "id": self.handle.id,
            "url": self.handle.url,
            "owner": self.owner or None,
            "pipeline": self.pipeline or None,
            "run": self.run or None,
            "engine": self.engine,
            "seconds": round(time.time() - self.since, 3) if self.since else None,
        }


def find(session: Session) -> list[Found]:
    """Everything alive in the target, jobs before the clusters that they run on.

    The things are listed before the engines are looked at: a run begins its journal before
    it starts anything, so none is taken for ownerless because it has just begun.
    """
    drivers = list(_drivers(session))
    unowned: dict[tuple[Kind, str], Found] = {}  # two places may be of one account
    for place, kind, driver in drivers:
        owner = session.backends.at(place)
        backend = owner.container.name if kind == "container" else owner.compute.name
        for handle in patiently(lambda driver=driver: list(driver.owned("")), None):  # type: ignore[misc]
            one = Found(kind=kind, place=place, backend=backend, handle=handle)
            unowned.setdefault((kind, handle.id), one)
    found = list(unowned.values())
    for journal in _journals(session) if found else ():
        if not unowned:
            break
        for _, kind, driver in drivers:
            if any(kind == other for other, _ in unowned):
                _claim(journal, kind, driver, unowned)
    return found


def _drivers(session: Session) -> Iterator[tuple[str, Kind, Driver[Any]]]:
    """Every driver of the target, and of the places where it has tasks."""
    for place in ("", *session.target.others):
        target, backends = session.target.at(place), session.backends.at(place)
        if target.container:
            yield place, "container", backends.driver("container")
        if target.compute:
            yield place, "job", backends.driver("job")
            if backends.compute.clusters is not None:
                yield place, "cluster", backends.driver("cluster")


def _journals(session: Session) -> Iterator[Journal]:
    """The runs' journals: those whose engine did not end first, then the latest first."""
    later = []
    for ref in session.runs():
        journal = Journal(session.fs, ref.home)
        if (journal.lease() or {}).get("closed"):
            later.append(journal)
        else:
            yield journal
    yield from later


def _claim(
    journal: Journal, kind: Kind, driver: Driver[Any], unowned: dict[tuple[Kind, str], Found]
) -> None:
    """Mark what the journal's run owns."""
    try:
        events = journal.read()
        pipeline, run = journal.header["pipeline"], journal.header["run"]
    except (PortaflowError, KeyError):  # a damaged journal owns nothing that could be told
        return
    owner = owner_label(pipeline, journal.home)
    since = _since(events)
    for handle in patiently(lambda: list(driver.owned(owner)), None):
        if mine := unowned.pop((kind, handle.id), None):
            mine.owner, mine.pipeline, mine.run = owner, pipeline, run
            mine.journal, mine.engine = journal, engine(journal)
            mine.since = since.get(handle.id, 0.0)


def _since(events: list[Event]) -> dict[str, float]:
    began: dict[str, float] = {}
    for event in events:
        if event.handle and event.phase is Phase.RUNNING:
            began.setdefault(event.handle.id, event.time)
    return began


def engine(journal: Journal) -> EngineState:
    """What is known of the engine of a run."""
    if journal.alive():
        return "alive"
    return "ended" if (journal.lease() or {}).get("closed") else "dead"


def removable(found: Found, unknown: bool = False) -> bool:
    """Whether no living engine will end the thing; `unknown` includes what no run here owns."""
    return found.engine in ("ended", "dead") or (unknown and found.engine == "unknown")


def remove(
    session: Session, things: list[Found], tell: Callable[[Found], None] = lambda found: None
) -> list[Found]:
    """End things and wait until they are gone; `tell` is called for each that is.

    Leaves alone, and returns, those whose run an engine has taken up meanwhile. Raises
    LeakError for those that do not end.
    """
    for thing in things:
        if thing.journal:
            thing.engine = engine(thing.journal)
    spared = [f for f in things if f.engine == "alive"]
    going = [f for f in things if f.engine != "alive"]
    drivers = {(place, kind): driver for place, kind, driver in _drivers(session)}
    failed: list[tuple[Found, str]] = []
    for kind in ("job", "container", "cluster"):  # a cluster last: its jobs end by themselves
        for place in sorted({f.place for f in going if f.kind == kind}):
            mine = [f for f in going if f.kind == kind and f.place == place]
            failed += _end(drivers[place, kind], mine, tell)
    if failed:
        told = ", ".join(f"{f.kind} {f.handle.name} ({f.handle.id}): {why}" for f, why in failed)
        raise LeakError(
            f"these did not end and may still cost money: {told}; look into the provider's console",
            [f.handle for f, _ in failed],
        )
    return spared


def _end(
    driver: Driver[Any], things: list[Found], tell: Callable[[Found], None]
) -> list[tuple[Found, str]]:
    left = {f.handle.name: f for f in things}
    failed = []
    until, ask = time.monotonic() + _PATIENCE, 0.0
    while left and time.monotonic() < until:
        if time.monotonic() >= ask:
            ask = time.monotonic() + _AGAIN
            for name, thing in list(left.items()):
                try:
                    patiently(lambda handle=thing.handle: driver.stop(handle), None)  # type: ignore[misc]
                except BackendError as error:
                    failed.append((left.pop(name), str(error)))
        if not left:
            break
        now = patiently(lambda: driver.poll([f.handle for f in left.values()]), None)
        for name in list(left):
            status = now[name]
            if isinstance(status, NotFoundError) or status.state.final:
                tell(left.pop(name))
        if left:
            time.sleep(_PAUSE)
    why = f"goes on {_PATIENCE:g} s after it was asked"
    return failed + [(thing, why) for thing in left.values()]
