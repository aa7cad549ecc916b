"""What is shown while a run is under way: a live table on a terminal, else plain lines.

All of it goes to standard error, so that standard output holds the result alone. A terminal
that is gone ends the showing, never the run.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import click

from portaflow.plan import Action, Plan
from portaflow.state import ENDED, Event, Phase, RunState
from portaflow.text import duration, moment

from . import text
from .rows import Look, Row, label, rows

_TROUBLE_AGAIN = 300.0  # seconds until the same kind of trouble is told again


class Progress:
    """Plain lines with a time. A run's events come from one thread, troubles from others."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}
        self._began: dict[str, float] = {}
        self._lock = threading.Lock()

    def begin(self, plan: Plan, state: RunState) -> None:
        """The run is about to go on from `state`, which changes while it does."""

    def end(self) -> None:
        """Nothing more will be shown."""

    def say(self, line: str) -> None:
        """Show a line that stays."""
        self._print(f"{moment(time.time())}  {line}")

    def _print(self, line: str) -> None:
        with self._lock:
            try:
                click.echo(text.printable(line), err=True)
            except (OSError, ValueError):  # nobody reads it any more
                return

    def observe(self, action: Action, event: Event) -> None:
        """Show what happened, if it is worth a line."""
        if event.phase is Phase.STARTING:
            self._began[action.id] = event.time
        if line := self._line(action, event):
            self.say(f"{label(action)}: {line}")

    def trouble(self, error: Exception, seconds: float) -> None:
        """A status call failed: say so once for each kind of trouble, not at each poll."""
        kind, now = type(error).__name__, time.monotonic()
        if now - self._told.get(kind, -_TROUBLE_AGAIN) >= _TROUBLE_AGAIN:
            self._told[kind] = now
            self.say(f"no status for now: {text.cut(str(error), 200)}; asking again, less often")

    def _line(self, action: Action, event: Event) -> str:
        reason = text.gist(event.reason, 160)
        since = event.time - self._began.get(action.id, event.time)
        if action.verb == "stop":
            words = {Phase.STARTING: "stopping", Phase.DONE: "gone", Phase.FAILED: reason}
            return words.get(event.phase, "")
        cluster = action.kind == "cluster"
        match event.phase:
            case Phase.STARTING:
                return "starting" if cluster else ""
            case Phase.RUNNING:
                attempt = f", attempt {event.attempt}" if event.attempt > 1 else ""
                return "" if cluster else f"running{attempt}"
            case Phase.DONE:
                return f"{'ready' if cluster else 'done'} after {duration(since)}"
            case Phase.WAITING:
                wait = event.not_before - event.time
                later = f" in {duration(wait)}" if wait > 0 else ""
                return f"{reason}; attempt {event.attempt} follows{later}"
            case Phase.STOPPING | Phase.FAILED | Phase.STOPPED:
                return f"{event.phase.value}: {reason}" if reason else event.phase.value
            case Phase.SKIPPED:
                return "" if cluster else "skipped: something it needs did not end well"
            case _:
                return ""


class LiveProgress(Progress):
    """A table that is drawn anew a few times a second and gone at the end."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._live: Any = None
        self._started = time.time()

    def begin(self, plan: Plan, state: RunState) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._plan, self._state, self._spinner = plan, state, Spinner("dots")
        self._live = Live(
            get_renderable=self._table, console=self._console, refresh_per_second=8, transient=True,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip
        self._live.start()

    def end(self) -> None:
        if self._live:
            live, self._live = self._live, None
            try:
                live.stop()
            except OSError:  # the terminal is gone
                return

    def say(self, line: str) -> None:
        try:
            self._console.print(text.printable(line), markup=False, soft_wrap=True)
        except OSError:
            return

    def observe(self, action: Action, event: Event) -> None:
        """The table shows what is; an attempt that failed would be gone from it soon."""
        if event.cause and event.phase is Phase.WAITING:
            super().observe(action, event)
        elif event.phase is Phase.STARTING:
            self._began[action.id] = event.time

    def _table(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        shown, counts = _fitting(list(rows(self._plan, self._state)), self._console.height - 3)
        table = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(4):
            table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for row in shown:
            busy = row.look == "busy"
            mark = self._spinner if busy else Text(MARKS[row.look], style=_STYLES[row.look])
            seconds = "" if row.seconds is None else duration(row.seconds)
            table.add_row(
                mark, text.cut(row.label, 40), Text(row.word, style=_STYLES[row.look]),
                seconds, Text(_remark(row), style="dim"),
            )  # fmt: skip
        if counts:
            table.add_row("", Text(counts, style="dim"))
        return table


MARKS: dict[Look, str] = {"good": "✓", "bad": "✗", "busy": "…", "calm": "·"}
_STYLES: dict[Look, str] = {"good": "green", "bad": "red", "busy": "cyan", "calm": "dim"}


def _remark(row: Row) -> str:
    attempt = f"attempt {row.state.attempt}" if row.state.attempt > 1 else ""
    reason = text.gist(row.state.reason, 200)
    return ": ".join(filter(None, (attempt, reason)))


def _fitting(all_rows: list[Row], room: int) -> tuple[list[Row], str]:
    """The rows that fit the screen, what moves and what failed first, and what is left out."""
    if len(all_rows) <= room:
        return all_rows, ""
    ranks: dict[Look, int] = {"busy": 0, "bad": 1, "good": 3, "calm": 2}
    chosen = sorted(all_rows, key=lambda r: ranks[r.look])[: max(room - 1, 1)]
    kept = {id(r) for r in chosen}
    done = sum(r.state.phase in ENDED for r in all_rows)
    return [r for r in all_rows if id(r) in kept], f"{done} of {len(all_rows)} ended"


def progress(live: bool = True) -> Progress:
    """What suits where standard error goes."""
    import os

    dumb = os.environ.get("TERM", "") in ("", "dumb")
    return LiveProgress() if live and sys.stderr.isatty() and not dumb else Progress()
