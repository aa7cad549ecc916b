"""portaflow run, resume, stop: what starts, goes on with and ends a run."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from portaflow.engine import Engine
from portaflow.errors import LeakError, NotFoundError, PortaflowError, RunError
from portaflow.load import load
from portaflow.plan import Run
from portaflow.session import Past, RunRef, Session

from . import complete, outcome
from .interrupt import Interrupts
from .options import again, as_json, print_json, read_date, read_params, with_run, with_session
from .progress import Progress, progress

_LOOKED_AT = 50  # runs, the latest ones, in search of one to resume or stop
_LOOK_AGAIN = 0.2  # seconds between two looks at the journal of another engine

_path = click.argument("path", type=click.Path(path_type=Path))
_run = click.argument("run", default="", metavar="[RUN]", shell_complete=complete.runs)


@click.command()
@_path
@with_run("the time and four random digits")
@as_json
@with_session
def run(
    session: Session, path: Path, run_id: str, params: tuple[str, ...], date: str, as_json: bool
) -> None:
    """Run the pipeline at PATH, a folder or a file, and wait for its end.

    Progress goes to standard error, the result to standard output. Ctrl-C stops what runs.
    """
    project = load(path)
    given = read_params(params, project.pipeline.params)
    this = Run(id=run_id or new_id(), logical_date=read_date(date), params=given)
    _conduct(session, lambda p: session.start(project, this, p.observe, p.trouble), as_json)


@click.command()
@_run
@click.option(
    "--path",
    type=click.Path(path_type=Path),
    help="The pipeline [default: where it was when the run began].",
)
@click.option("--force", is_flag=True, help="Take the run over though an engine seems alive.")
@as_json
@with_session
def resume(session: Session, run: str, path: Path | None, force: bool, as_json: bool) -> None:
    """Go on with RUN: what had committed stays, what still runs is adopted.

    RUN is an id or pipeline/id [default: the latest that has not succeeded].
    """
    if run:
        ref = session.find(run)
    else:
        pipeline = load(path).pipeline.name if path else ""
        wanted = _latest(session, pipeline, lambda p: not p.journal.alive() and not _succeeded(p))
        if not wanted:
            raise NotFoundError(
                f"none of the last {_LOOKED_AT} runs in the store of target "
                f"{session.target.name!r} needs to be resumed; `{again('status')}` lists them"
            )
        ref = wanted[0]
    _conduct(session, lambda p: session.resume(ref, path, p.observe, p.trouble, force), as_json)


@click.command()
@_run
@as_json
@with_session
def stop(session: Session, run: str, as_json: bool) -> None:
    """Stop RUN and all it has started, and wait until that is done.

    An engine that is alive is asked to; a dead one's run is taken over.
    RUN is an id or pipeline/id [default: the one run that has not ended].
    """
    ref = session.find(run) if run else _only_open(session)
    if ref is None:
        _nothing_to_stop(f"no run on target {session.target.name!r} is under way", {}, as_json)
        return
    past, began = session.recorded(ref), time.time()
    plan, state = past.plan, past.state
    if state.ended and not past.journal.alive():
        document = outcome.document(plan, state, outcome.elapsed(state, began), "")
        _nothing_to_stop(f"run {ref} has ended: {document['state']}", document, as_json)
        return
    shown = progress(live=False)
    if past.journal.alive():
        _ask(past, ref, shown)
    if not state.ended:
        shown.say(f"the engine of {ref} is gone; stopping all that it started")
        engine = session.stop(ref, shown.observe, shown.trouble)
        state = engine.state
        with Interrupts(_Stopping(shown, engine).told), suppress(LeakError):  # told below
            engine.run()
    report = outcome.write_report(session, plan)
    leak = outcome.leak(plan, state)
    if as_json:
        seconds, left = outcome.elapsed(state, began), leak.handles if leak else ()
        print_json(outcome.document(plan, state, seconds, report, left))
    else:
        names = outcome.stopped(plan, state, began)
        click.echo(f"stopped: {', '.join(names) or 'nothing was running any more'}")
        click.echo(f"go on: {again('resume', plan.run)}")
    if leak:
        raise leak


def _nothing_to_stop(why: str, document: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        click.echo(f"{why}; there is nothing to stop")


def new_id() -> str:
    """A run's id: sorts by time, and two of the same second still differ."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


class _Stopping:
    """What a signal does: the first one stops the run, the next ones say that it is stopping."""

    def __init__(self, shown: Progress, engine: Engine) -> None:
        self._shown, self._engine = shown, engine
        self.since = 0.0

    def told(self, number: signal.Signals, count: int) -> None:
        plan, state = self._engine.plan, self._engine.state
        names = ", ".join(outcome.running(plan, state)) or "nothing is running"
        if count == 1:
            self.since = time.time()
            self._engine.cancel()
            self._shown.say(f"{number.name}: stopping: {names}")
        else:
            self._shown.say(
                f"{number.name}: still stopping: {names}. Nothing is lost with kill -9 either: "
                f"`portaflow resume {plan.run}` goes on, `portaflow stop {plan.run}` stops the rest"
            )


def _conduct(session: Session, begin: Callable[[Progress], Engine], as_json: bool) -> None:
    """Run an engine to its end, show it, and raise when it did not end well."""
    shown = progress(live=not as_json)
    began = time.time()
    engine = begin(shown)
    plan, state = engine.plan, engine.state
    shown.say(f"run {plan.run} of {plan.pipeline} on {plan.target}")
    shown.say(f"data: {plan.home}")
    shown.say(f"logs: {again('logs', '-f', plan.run, 'TASK')}")
    leak: LeakError | None = None
    stopping = _Stopping(shown, engine)
    with Interrupts(stopping.told):
        shown.begin(plan, state)
        try:
            engine.run()
        except LeakError as error:
            leak = error
        finally:
            shown.end()
        report = outcome.write_report(session, plan)
    if stopping.since:
        names = outcome.stopped(plan, state, stopping.since)
        shown.say(f"stopped: {', '.join(names) or 'nothing was running'}")
    seconds = outcome.elapsed(state, began)
    if as_json:
        print_json(outcome.document(plan, state, seconds, report, leak.handles if leak else ()))
    else:
        outcome.show(plan, state, seconds, report)
    failure = outcome.error(session, plan, state)
    if leak:
        raise LeakError("\n".join(filter(None, (str(failure or ""), str(leak)))), leak.handles)
    if failure:
        raise failure


def _ask(past: Past, ref: RunRef, shown: Progress) -> None:
    """Ask a live engine to stop, and follow its journal until it has, or has died."""
    past.journal.ask_to_stop()
    lease = past.journal.lease() or {}
    shown.say(f"asked the engine of {ref} (process {lease.get('pid')}) to stop")
    alive = True
    try:
        while alive:
            alive = past.journal.alive()  # looked at first: what it wrote by then is all there is
            for event in past.news():
                shown.observe(past.plan.by_id[event.action], event)
            if alive:
                time.sleep(_LOOK_AGAIN)
    except KeyboardInterrupt:
        raise RunError(f"no longer waiting; the engine of {ref} was asked and will stop") from None


def _latest(session: Session, pipeline: str, wanted: Callable[[Past], bool]) -> list[RunRef]:
    """The wanted ones of the latest runs of this target."""
    found = []
    for ref in session.runs()[:_LOOKED_AT]:
        try:
            past = session.recorded(ref)
            if past.header["target"] != session.target.name:
                continue
            if pipeline in ("", past.plan.pipeline) and wanted(past):
                found.append(ref)
        except PortaflowError:  # whoever names it is told why
            continue
    return found


def _succeeded(past: Past) -> bool:
    return past.state.succeeded


def _only_open(session: Session) -> RunRef | None:
    found = _latest(session, "", lambda p: p.journal.alive() or not p.state.ended)
    if len(found) > 1:
        names = ", ".join(map(str, found))
        raise RunError(f"several runs are under way: {names}; name the one to stop")
    return found[0] if found else None
