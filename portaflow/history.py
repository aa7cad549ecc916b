"""How a run came to where it is, in words for people: its attempts and its standing. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .backend import Cause, Handle
from .plan import Action, Plan
from .state import ENDED, Event, Phase, RunState


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One try at one action. `ended` is 0.0 while it is under way.

    A cluster's attempt lasts until it is gone; `outcome` FAILED or WAITING means that it
    did not get there. WAITING is an attempt that failed and was tried again.
    """

    action: str
    number: int
    began: float
    handle: Handle | None = None
    running: float = 0.0  # when it was first seen at work; for a cluster, when it was ready
    ended: float = 0.0
    outcome: Phase | None = None
    reason: str = ""
    cause: Cause | None = None
    exit_code: int | None = None

    @property
    def good(self) -> bool:
        return self.outcome is Phase.DONE

    def seconds(self, now: float) -> float:
        """How long it took, so far if it is under way."""
        return max(0.0, (self.ended or now) - self.began)


def attempts(plan: Plan, events: Iterable[Event]) -> dict[str, list[Attempt]]:
    """Action id -> its attempts in order. What stops a cluster ends the cluster's attempt."""
    tried: dict[str, list[Attempt]] = {a.id: [] for a in plan.actions if a.verb != "stop"}
    for event in events:
        action = plan.by_id.get(event.action)
        if action is None:  # of an earlier version of the pipeline
            continue
        if action.verb == "stop":
            _gone(tried[action.undoes], event)
        else:
            _apply(tried[action.id], action, event)
    return tried


def _apply(mine: list[Attempt], action: Action, event: Event) -> None:
    phase = event.phase
    if phase is Phase.STARTING:
        if not mine or mine[-1].number != event.attempt:
            mine.append(Attempt(action=action.id, number=event.attempt, began=event.time))
        return
    if not mine or mine[-1].ended:
        return
    last = mine[-1]
    last.handle = event.handle or last.handle
    if phase is Phase.RUNNING:
        last.running = last.running or event.time
    elif phase is Phase.DONE and action.kind == "cluster":
        last.running, last.outcome = event.time, Phase.DONE
    elif phase in ENDED or phase is Phase.WAITING:
        _end(last, event)


def _gone(mine: list[Attempt], event: Event) -> None:
    if mine and not mine[-1].ended and event.phase is Phase.DONE:
        mine[-1].ended = event.time
        mine[-1].outcome = mine[-1].outcome or Phase.STOPPED


def _end(last: Attempt, event: Event) -> None:
    last.ended, last.outcome = event.time, event.phase
    last.reason, last.cause, last.exit_code = event.reason, event.cause, event.exit_code


def standing(state: RunState, alive: bool, closed: bool) -> str:
    """The run in one word. `alive`, `closed`: what its engine's lease says."""
    if not state.ended:
        return "running" if alive else "interrupted" if closed else "died"
    if state.succeeded:
        return "succeeded"
    return "failed" if state.failed() else "stopped"


def word(state: RunState, action: Action) -> str:
    """Where a task or cluster is, in one word; a cluster's includes how its stop goes."""
    phase = state[action.id].phase
    if action.kind != "cluster":
        return str(phase.value)
    stop = next((state[a.id].phase for a in state.plan.actions if a.undoes == action.id), None)
    if stop is Phase.FAILED:
        return "leaked"
    if phase in (Phase.STARTING, Phase.RUNNING):
        return "starting"
    if phase is not Phase.DONE:
        return str(phase.value)
    if stop is Phase.DONE:
        return "gone"
    return "stopping" if stop in (Phase.STARTING, Phase.RUNNING) else "ready"
