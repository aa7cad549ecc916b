"""How a run ended: the table on standard output, and the error that ends the command."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import click

from portaflow.backend import Handle
from portaflow.errors import LeakError, PortaflowError, RunError
from portaflow.names import key_part
from portaflow.outcome import leaked
from portaflow.plan import Action, Plan
from portaflow.session import RunRef, Session
from portaflow.state import ActionState, Phase, RunState
from portaflow.text import duration

from .options import again
from .progress import MARKS
from .rows import Look, Row, label, row_json, rows
from .text import cut, printable, value_lines, width

_FAILURES = 3  # that are told with their last lines
_TAIL = 8  # lines of a log
_READ = 8  # chunks of a log that are read in search of its end
_COLOURS: dict[Look, str] = {"good": "green", "bad": "red", "busy": "cyan", "calm": "bright_black"}


def verdict(state: RunState) -> str:
    """The run in a word."""
    if state.succeeded:
        return "succeeded"
    if not state.ended:
        return "unfinished"
    return "failed" if state.failed() else "stopped"


def show(plan: Plan, state: RunState, seconds: float, report: str) -> None:
    """Print the table of tasks with what they wrote and returned, and where the report is."""
    all_rows = list(rows(plan, state))
    name_width = min(max(len(r.label) for r in all_rows), 40)
    word_width = max(len(r.word) for r in all_rows)
    time_width = max(len(_time(r)) for r in all_rows)
    for row in all_rows:
        _show_row(row, name_width, word_width, time_width)
    word = verdict(state)
    colour = {"succeeded": "green", "unfinished": "yellow"}.get(word, "red")
    click.echo()
    click.echo(
        f"{click.style(word, fg=colour, bold=True)} after {duration(seconds)}: "
        f"{plan.pipeline} {plan.run} on {plan.target}"
    )
    if report:
        click.echo(f"report: {report}")


def _time(row: Row) -> str:
    return "" if row.seconds is None else duration(row.seconds)


def _show_row(row: Row, name_width: int, word_width: int, time_width: int) -> None:
    mark = click.style(MARKS[row.look], fg=_COLOURS[row.look])
    word = click.style(f"{row.word:{word_width}}", fg=_COLOURS[row.look])
    attempt = f"attempt {row.state.attempt}" if row.state.attempt > 1 else ""
    name = f"{cut(row.label, name_width):{name_width}}"
    click.echo(f"{mark} {name}  {word}  {_time(row):>{time_width}}  {attempt}".rstrip())
    if row.state.phase is not Phase.DONE:
        return
    pad = max((len(name) for name in row.action.outputs), default=0)
    for name, uri in row.action.outputs.items():
        click.echo(f"    → {click.style(f'{name:{pad}}', dim=True)}  {printable(uri)}")
    if row.state.value is not None:
        for line in value_lines(row.state.value, width() - 6):
            click.echo(f"    = {line}")


def document(
    plan: Plan, state: RunState, seconds: float, report: str, leaks: Iterable[Handle] = ()
) -> dict[str, Any]:
    """The same for programs."""
    all_rows = [row_json(r) for r in rows(plan, state)]
    return {
        "pipeline": plan.pipeline,
        "run": plan.run,
        "target": plan.target,
        "home": plan.home,
        "state": verdict(state),
        "seconds": round(seconds, 3),
        "report": report,
        "tasks": [r for r in all_rows if "task" in r],
        "clusters": [r for r in all_rows if "cluster" in r],
        "leaks": [h.to_json() for h in leaks],
    }


def write_report(session: Session, plan: Plan) -> str:
    """Write the run's report beside its data, for any machine to see; return where it is."""
    from portaflow import report

    ref = RunRef(key_part(plan.pipeline), key_part(plan.run), plan.home)
    try:
        return report.write_report(session, ref)
    except Exception as error:  # a plugin's code too: the run is what it is without a report
        click.echo(f"no report: {type(error).__name__}: {printable(str(error))}", err=True)
        return ""


def leak(plan: Plan, state: RunState) -> LeakError | None:
    """What was given up and may still cost money, as the journal tells it."""
    given_up = [(a, h or Handle(name=a.name, id="unknown")) for a, h in leaked(plan, state)]
    if not given_up:
        return None
    names = ", ".join(f"{label(a)} ({h.id})" for a, h in given_up)
    return LeakError(
        f"these could not be stopped and may still cost money: {names}; try `portaflow reap`",
        [h for _, h in given_up],
    )


def error(session: Session, plan: Plan, state: RunState) -> RunError | None:
    """Why the run did not succeed and what to do next; None when it did."""
    if state.succeeded:
        return None
    failed = state.failed()
    parts = [_failure(session, plan, a, state[a.id]) for a in failed[:_FAILURES]]
    if len(failed) > _FAILURES:
        names = ", ".join(label(a) for a in failed[_FAILURES:][:10])
        parts.append(f"{len(failed) - _FAILURES} more failed: {names}")
    if not failed:
        parts.append(f"run {plan.run} was stopped before its end")
    when = "go on after the fix:" if failed else "go on:"
    return RunError("\n".join([*parts, f"  {when}  {again('resume', plan.run)}"]))


def _failure(session: Session, plan: Plan, action: Action, mine: ActionState) -> str:
    first, _, tail = mine.reason.strip().partition("\n")
    if action.verb == "stop":
        return first  # which names what is not gone
    lines = tail.splitlines() or _log_tail(session, action, mine)
    kind = "cluster" if action.kind == "cluster" else "task"
    attempt = f" (attempt {mine.attempt})" if mine.attempt > 1 else ""
    text = [f"{kind} {action.subject!r} failed{attempt}: {first or 'no reason was given'}"]
    text += [f"    {line}" for line in lines[-_TAIL:]]
    if kind == "task" and mine.handle:
        text.append(f"  the whole log:        {again('logs', plan.run, action.subject)}")
    return "\n".join(text)


def _log_tail(session: Session, action: Action, mine: ActionState) -> list[str]:
    """The last lines of a log, where the provider's reason did not bring them."""
    if action.kind == "cluster" or action.inside or mine.handle is None:
        return []
    data, cursor = b"", ""
    try:
        driver = session.driver(action)
        for _ in range(_READ):
            chunk = driver.logs(mine.handle, cursor)
            data, cursor = (data + chunk.data)[-(2**16) :], chunk.cursor
            if chunk.end or not chunk.data:
                break
    except PortaflowError:
        return []
    return data.decode(errors="replace").strip().splitlines()


def stopped(plan: Plan, state: RunState, since: float) -> list[str]:
    """What was ended after `since` because somebody asked."""
    names = []
    for action in plan.actions:
        mine = state[action.id]
        if mine.since < since:
            continue
        if action.verb == "stop":
            if mine.phase is Phase.DONE:
                names.append(label(action))
        elif mine.phase is Phase.STOPPED and mine.first:
            names.append(label(action))
    return list(dict.fromkeys(names))


def running(plan: Plan, state: RunState) -> list[str]:
    """What is at work now, clusters that are ready too."""
    return [r.label for r in rows(plan, state) if r.look == "busy" or r.word == "ready"]


def elapsed(state: RunState, began: float) -> float:
    """From the run's first start to its last event, whichever engines it took."""
    firsts = [s.first for s in state.of.values() if s.first]
    lasts = [s.since for s in state.of.values()]
    return max(lasts, default=time.time()) - min(firsts) if firsts else time.time() - began
