"""Finds a task's log and reads it, across attempts, to where it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from portaflow.backend import Handle
from portaflow.calls import patiently
from portaflow.errors import NotFoundError, RunError
from portaflow.history import Attempt, attempts
from portaflow.names import resource_name
from portaflow.pipeline import suggest
from portaflow.plan import Action
from portaflow.session import Past, Session
from portaflow.state import ENDED

_PAUSE = 0.3  # seconds between two looks at what goes on


def action(session: Session, past: Past, words: tuple[str, ...]) -> Action:
    """What the last of `words` names: a task, or a cluster as "NAME" or "cluster/NAME"."""
    name = words[-1]
    for id in (name, f"cluster/{name}"):
        if (found := past.plan.by_id.get(id)) and found.verb != "stop":
            return found
    names = [a.subject for a in past.plan.actions if a.verb != "stop"]
    if len(words) == 1:
        try:
            of = session.recorded(session.find(name)).plan
        except (NotFoundError, RunError):
            pass
        else:
            tasks = ", ".join(a.subject for a in of.actions if a.kind != "cluster")
            raise RunError(f"{name!r} is a run; name a task of it, too: {tasks}")
    run = past.plan.run
    which = f"run {run!r}" if len(words) == 2 else f"the latest run, {run!r},"
    raise NotFoundError(f"{which} has no task {name!r}{suggest(name, names)}")


def log(
    session: Session, past: Past, action: Action, number: int | None, follow: bool
) -> Iterator[bytes]:
    """Yield the log of one attempt; when following the latest, of those that come after it."""
    reader = _Reader(session, past, action, follow)
    shown = 0
    while True:
        attempt = reader.attempt(number, shown)
        if attempt is None:
            return
        if shown:
            click.echo(f"-- attempt {attempt.number}", err=True)
        yield from reader.read(attempt)
        shown = attempt.number
        if number or not follow:
            return


class _Reader:
    def __init__(self, session: Session, past: Past, action: Action, follow: bool) -> None:
        self._past, self._action, self._follow = past, action, follow
        self._events = list(past.events)
        self._driver = session.drivers(past.plan, past.project.folder)(action)

    def attempt(self, number: int | None, shown: int) -> Attempt | None:
        """The attempt to read, waited for when following; None when no more will come.

        That is attempt `number`, else the latest, after those that were `shown`.
        """
        while True:
            alive = self._past.journal.alive()  # looked at first: its last words are read below
            tried = self._tried()
            last = tried[-1].number if tried else 0
            if number and number <= last:
                return next(t for t in tried if t.number == number)
            if not number and last > shown:
                return tried[-1]
            ended = self._past.state[self._action.id].phase in ENDED
            if ended or not alive or not self._follow:
                if shown:
                    return None
                raise RunError(self._nothing(number, last, alive))
            time.sleep(_PAUSE)

    def _tried(self) -> list[Attempt]:
        self._events += self._past.news()
        return attempts(self._past.plan, self._events)[self._action.id]

    def _nothing(self, number: int | None, last: int, alive: bool) -> str:
        what = f"{self._action.subject!r} of run {self._past.plan.run!r}"
        if last:
            return f"{what} has no attempt {number}, only {last}"
        phase = self._past.state[self._action.id].phase.value
        hint = "; -f waits for it" if alive else ""
        return f"{what} has not started, so there is no log: it is {phase}{hint}"

    def read(self, attempt: Attempt) -> Iterator[bytes]:
        handle = self._handle(attempt)
        cursor = ""
        while True:
            try:
                chunk = patiently(lambda at=cursor: self._driver.logs(handle, at), None)  # type: ignore[misc]
            except NotFoundError:
                if cursor or not self._under_way(attempt):
                    raise
                if not self._follow:
                    raise RunError(
                        f"the log of {self._action.subject!r} is kept once it has ended; "
                        "-f waits for it"
                    ) from None
                time.sleep(_PAUSE)
                continue
            yield chunk.data
            if chunk.end:
                return
            if chunk.cursor == cursor:
                if not self._follow:
                    return
                time.sleep(_PAUSE)
            cursor = chunk.cursor

    def _under_way(self, attempt: Attempt) -> bool:
        now = self._now(attempt)
        return not now.ended and self._past.journal.alive()

    def _now(self, attempt: Attempt) -> Attempt:
        return next(t for t in self._tried() if t.number == attempt.number)

    def _handle(self, attempt: Attempt) -> Handle:
        """The handle, which may not be recorded yet, or never was when the engine died."""
        while True:
            alive = self._past.journal.alive()
            attempt = self._now(attempt)
            if attempt.handle:
                return attempt.handle
            if found := self._driver.find(self._name(attempt), self._parent()):
                handle: Handle = found
                return handle
            if attempt.ended or not alive or not self._follow:
                raise NotFoundError(
                    f"attempt {attempt.number} of {self._action.subject!r} did not come to be, "
                    f"so there is no log{f': {attempt.reason}' if attempt.reason else ''}"
                )
            time.sleep(_PAUSE)

    def _parent(self) -> Any:
        return self._past.state[self._action.parent].handle if self._action.parent else None

    def _name(self, attempt: Attempt) -> str:
        plan, action = self._past.plan, self._action
        if action.verb == "attach":
            return action.name
        return resource_name(plan.pipeline, plan.home, action.kind, action.subject, attempt.number)
