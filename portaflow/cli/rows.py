"""A run as rows to look at: one for each task, and one for each cluster from start to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from portaflow.history import word
from portaflow.plan import Action, Plan
from portaflow.state import ENDED, ActionState, Phase, RunState

Look = Literal["good", "bad", "busy", "calm"]
LOOKS: dict[str, Look] = {
    **dict.fromkeys(("done", "ready", "gone"), "good"),
    **dict.fromkeys(("failed", "stopped", "leaked"), "bad"),
    **dict.fromkeys(("starting", "running", "stopping", "committing"), "busy"),
}
"""How the word for a task or cluster is shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is said of one task or cluster now. `seconds` is None when it never started."""

    action: Action
    state: ActionState
    word: str
    look: Look
    seconds: float | None

    @property
    def label(self) -> str:
        return label(self.action)


def label(action: Action) -> str:
    """What an action is about, as people call it."""
    if action.kind in ("cluster", "transfer"):
        return f"{action.kind} {action.subject}"
    return action.subject


def rows(plan: Plan, state: RunState, now: float | None = None) -> Iterator[Row]:
    """Yield a row for each action but stops, which are part of their cluster's row.

    `now`: until when what has not ended has lasted; of a dead engine no more is known.
    """
    now = time.time() if now is None else now
    stops = {a.undoes: a for a in plan.actions if a.verb == "stop"}
    for action in plan.actions:
        if action.verb != "stop":
            stop = stops.get(action.id)
            said = word(state, action)
            yield _row(action, state[action.id], state[stop.id] if stop else None, said, now)


def _row(action: Action, mine: ActionState, stop: ActionState | None, said: str, now: float) -> Row:
    look = LOOKS.get(said, "calm")
    ended = mine.since
    if action.kind == "cluster" and mine.phase is Phase.DONE:  # it costs until it is gone
        ended = stop.since if stop and stop.phase in ENDED else now
    seconds = None
    if mine.first and mine.phase not in (Phase.WAITING, Phase.SKIPPED):
        seconds = (now if look == "busy" else ended) - mine.began
    return Row(action, mine, said, look, seconds)


def row_json(row: Row) -> dict[str, Any]:
    """The row for programs; what did not come up is left out."""
    mine, action = row.state, row.action
    what = "cluster" if action.kind == "cluster" else "task"
    body: dict[str, Any] = {
        what: action.subject,
        "kind": action.kind,
        "state": row.word,
        "attempt": mine.attempt,
        "seconds": None if row.seconds is None else round(row.seconds, 3),
        "outputs": dict(action.outputs),
        "value": mine.value,
        "reason": mine.reason,
        "cause": mine.cause.value if mine.cause else None,
        "exit_code": mine.exit_code,
        "handle": mine.handle.to_json() if mine.handle else None,
    }
    return {k: v for k, v in body.items() if k == "seconds" or v not in (None, "", {})}
