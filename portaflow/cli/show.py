"""status, logs, report, compare: commands that look at runs and change nothing."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from portaflow import text
from portaflow.errors import DefinitionError, PortaflowError
from portaflow.history import Attempt, attempts, standing
from portaflow.session import Past, RunRef, Session

from . import Failure, complete
from .options import again, as_json, open_target, print_json, with_session
from .rows import Row, row_json, rows
from .table import TONES, show_table
from .text import cut, printable, width

_LISTED = 20  # runs, unless all are asked for

_WORDS = {"succeeded": "good", "failed": "bad", "died": "bad", "running": "busy"}


@click.command()
@click.argument("run", default="", shell_complete=complete.runs)
@click.option("--all", "everything", is_flag=True, help=f"List all runs, not only {_LISTED}.")
@as_json
@with_session
def status(session: Session, run: str, everything: bool, as_json: bool) -> None:
    """Show the runs of a target's store, or the tasks and clusters of one RUN.

    Works while a run goes on, after it has ended, and when its engine was killed.
    """
    if run:
        past = session.recorded(session.find(run))
        head, until = _head(past)
        if as_json:
            print_json(_run_json(past, head, until))
        else:
            _show_run(past, head, until)
        return
    refs = session.runs()
    listed = [_listed(session, ref) for ref in (refs if everything else refs[:_LISTED])]
    if as_json:
        print_json({"runs": listed, "more": len(refs) - len(listed)})
    else:
        _show_runs(session, listed, len(refs) - len(listed))


def _listed(session: Session, ref: RunRef) -> dict[str, Any]:
    try:
        return _head(session.recorded(ref))[0]
    except PortaflowError as error:  # one run that cannot be read hides no other
        return {
            "run": ref.run, "pipeline": ref.pipeline, "state": "unreadable", "reason": str(error)
        }  # fmt: skip


def _head(past: Past) -> tuple[dict[str, Any], float | None]:
    """What is told of a run as a whole; and when it ended, or the last that is known of it."""
    lease = past.journal.lease() or {}
    alive, closed = past.journal.alive(), bool(lease.get("closed"))
    began = past.events[0].time if past.events else lease.get("time")
    state = standing(past.state, alive, closed)
    last = past.events[-1].time if past.events else None
    if state == "running":
        last = time.time()
    elif state in ("died", "interrupted"):  # its engine's last sign of life
        last = max((t for t in (last, lease.get("time")) if t is not None), default=None)
    head = {
        "run": past.plan.run,
        "pipeline": past.plan.pipeline,
        "target": past.plan.target,
        "state": state,
        "started": _iso(began),
        "ended": None if state == "running" else _iso(last),
        "seconds": round(last - began, 3) if began and last else None,
        "engine": "alive" if alive else "ended" if closed else "dead",
        "process": lease.get("pid") if alive else None,
    }
    return head, last


def _iso(time: float | None) -> str | None:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds") if time else None


def _show_runs(session: Session, listed: list[dict[str, Any]], more: int) -> None:
    if not listed:
        command = again("run")
        click.echo(f"no runs in the store of target {session.target.name!r}; {command} makes one")
        return
    lines = [
        (
            run["run"],
            run["pipeline"],
            _coloured(run["state"]),
            (run.get("started") or "")[:19].replace("T", " "),
            "" if run.get("seconds") is None else text.duration(run["seconds"]),
            run.get("engine", ""),
        )
        for run in listed
    ]
    show_table(("run", "pipeline", "state", "started (UTC)", "took", "engine"), lines, "took")
    if more:
        click.echo(f"and {more} more; {again('status', '--all')} lists them")
    for run in listed:
        if run["state"] == "died":
            click.echo(f"{run['run']}: engine died; {again('resume', run['run'])}")
        elif run["state"] == "unreadable":
            click.echo(f"{run['run']}: {cut(run['reason'], 2 * width())}")


def _coloured(word: str) -> tuple[str, str]:
    return word, TONES[_WORDS.get(word, "warn")]


def _run_json(past: Past, head: dict[str, Any], until: float | None) -> dict[str, Any]:
    tried = attempts(past.plan, past.events)
    shown = rows(past.plan, past.state, until)
    every = [row_json(row) | _times(tried[row.action.id]) for row in shown]
    return {
        **head,
        "home": past.plan.home,
        "tasks": [row for row in every if "task" in row],
        "clusters": [row for row in every if "cluster" in row],
    }


def _times(tried: list[Attempt]) -> dict[str, Any]:
    if not tried:
        return {}
    times = {"started": _iso(tried[-1].began), "ended": _iso(tried[-1].ended)}
    return {key: value for key, value in times.items() if value}


def _show_run(past: Past, head: dict[str, Any], until: float | None) -> None:
    word, colour = _coloured(head["state"])
    took = "" if head["seconds"] is None else f", {text.duration(head['seconds'])}"
    engine = f"{head['engine']} (process {head['process']})" if head["process"] else ""
    name = printable(f"{head['pipeline']} {head['run']}")
    click.echo(
        f"{name} on {head['target']}: {click.style(word, fg=colour, bold=True)}"
        f"{took}; engine {engine or head['engine']}"
    )
    click.echo()
    tried = attempts(past.plan, past.events)
    shown = list(rows(past.plan, past.state, until))
    lines = [_line(row, tried[row.action.id]) for row in shown]
    headings = ("", "state", "attempt", "started", "took", "exit", "where")
    show_table(headings, lines, "attempt took exit")
    for row in shown:
        if row.look == "bad" and row.state.reason:
            click.echo()
            click.echo(f"{click.style(row.label, bold=True)}: {printable(row.state.reason)}")
    if head["state"] in ("died", "interrupted"):
        click.echo()
        end = "engine died" if head["state"] == "died" else "the engine ended before the run did"
        click.echo(f"{end}; {again('resume', past.plan.run)}")


def _line(row: Row, tried: list[Attempt]) -> tuple[str | tuple[str, str], ...]:
    last = tried[-1] if tried else None
    return (
        cut(row.label, 48),
        (row.word, TONES[row.look]),
        str(last.number) if last else "",
        text.moment(last.began)[11:] if last else "",
        "" if row.seconds is None else text.duration(row.seconds),
        "" if row.state.exit_code is None else str(row.state.exit_code),
        row.state.handle.url if row.state.handle else "",
    )


@click.command()
@click.argument(
    "words", nargs=-1, required=True, metavar="[RUN] TASK", shell_complete=complete.run_or_task
)
@click.option("-f", "--follow", is_flag=True, help="Wait for more until the task has ended.")
@click.option("--attempt", "number", type=click.IntRange(1), help="[default: the latest]")
@with_session
@click.pass_context
def logs(
    ctx: click.Context, session: Session, words: tuple[str, ...], follow: bool, number: int | None
) -> None:
    """Write the log of a TASK, or of a cluster, to standard output, as it was written.

    Only the values of its secrets are shown as ***, where they are known. Without RUN it is a
    task of the latest run.
    """
    from . import tail

    if len(words) > 2:
        raise click.UsageError("say portaflow logs [RUN] TASK")
    ref = session.find(words[0] if len(words) == 2 else "")
    past = session.recorded(ref)
    action = tail.action(session, past, words)
    try:
        for data in tail.log(session, past, action, number, follow):
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
    except BrokenPipeError:  # whoever read has enough; nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        ctx.exit(130)


@click.command()
@click.argument("run", default="", shell_complete=complete.runs)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Write this file instead of one beside the run's data.",
)  # fmt: skip
@with_session
def report(session: Session, run: str, output: Path | None) -> None:
    """Write the report of RUN (default: the latest), one HTML page, and say where it is."""
    from portaflow.report import report as page
    from portaflow.report import write_report

    ref = session.find(run)
    if output is None:
        click.echo(write_report(session, ref))
        return
    try:
        output.write_text(page(session, ref), "utf-8", "replace")
    except OSError as error:
        raise DefinitionError(f"{output}: cannot be written: {error.strerror}") from error
    click.echo(output)


@click.command()
@click.argument("run_a", shell_complete=complete.runs)
@click.argument("run_b", shell_complete=complete.runs)
@click.option("--target-b", metavar="NAME", default="", help="Where RUN_B is, if elsewhere.")
@click.option(
    "--tolerance", type=click.FloatRange(0.0, 1.0, max_open=True), default=0.0, metavar="X",
    help="Relative difference up to which two floats count as equal, as 1e-9 [default: 0].",
)  # fmt: skip
@as_json
@with_session
@click.pass_context
def compare(
    ctx: click.Context, session: Session, run_a: str, run_b: str, target_b: str,
    tolerance: float, as_json: bool,
) -> None:  # fmt: skip
    """Say whether two runs gave the same data, and where they differ first.

    Compares the values and outputs of all tasks. Parquet, CSV and JSON are compared row by
    row: neither the order of rows and columns nor how they are spread over files matters.
    Any other file is compared byte by byte.

    Exit codes: 0 equal, 1 different, 2 the runs cannot be compared.
    """
    from portaflow import compare as comparing

    from .compared import show

    try:
        other = session
        if target_b:
            given = ctx.params
            other = Session(open_target(target_b, given["config"], given["sets"]))
        a = session.recorded(session.find(run_a))
        b = other.recorded(other.find(run_b))
        result = comparing.compare(
            comparing.Side(session.fs_at, a), comparing.Side(other.fs_at, b), tolerance
        )
    except PortaflowError as error:  # 1 would say that they differ
        failure = Failure(error)
        failure.exit_code = 2  # type: ignore[misc]  # click's own, for all instances
        raise failure from error
    if as_json:
        print_json(result.to_json())
    else:
        show(result)
    ctx.exit(0 if result.equal else 1)
