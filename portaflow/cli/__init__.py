"""The command line: one file per group of commands, imported when one of them is used.

Other distributions add commands of their own (plugged.py); no name of ours can be taken.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping
from typing import Any

import click

from portaflow import __version__
from portaflow.errors import PortaflowError, each

from .plugged import command, plugged
from .text import colours, printable

_YOUNG = 50_000
"""Objects after which Python looks for garbage, not 700: what is imported, or planned, is none,
and to look took a sixth of a plan's time."""

COMMANDS: Mapping[str, tuple[str, str]] = {
    "new": ("define:new", "Make a pipeline that runs at once."),
    "validate": ("define:validate", "Check a pipeline and its target; start nothing."),
    "plan": ("define:plan", "Show everything a run would do, to the exact requests."),
    "prices": ("priced:prices", "Ask the provider what a pipeline's machines cost."),
    "run": ("run:run", "Run a pipeline on a target."),
    "resume": ("run:resume", "Go on with a run that failed, was stopped or lost its engine."),
    "stop": ("run:stop", "Stop a run, wherever its engine is."),
    "status": ("show:status", "Show runs, or the tasks of one."),
    "logs": ("show:logs", "Show a task's log."),
    "report": ("show:report", "Write a run's report, one HTML page."),
    "compare": ("show:compare", "Say whether two runs gave the same data."),
    "config": ("place:config", "Show a target's settings and where each came from."),
    "backends": ("place:backends", "List the backends that plugins offer."),
    "doctor": ("place:doctor", "Check what a target needs and say how to fix it."),
    "reap": ("place:reap", "List, then remove, what dead runs left behind."),
    "schema": ("define:schema", "Print the JSON Schema of a pipeline."),
    "completion": ("define:completion", "Print the shell's completion script."),
}
"""Command -> where it is, and its line of help: `--help` imports none of them."""

_SHOWN = 20  # errors of one command


class Failure(click.ClickException):
    """An error of ours on its way to standard error, with its exit code."""

    def __init__(self, error: PortaflowError) -> None:
        super().__init__(str(error))
        self._errors = each(error)
        self.exit_code = error.exit_code  # type: ignore[misc]  # click's own, for all instances

    def show(self, file: Any = None) -> None:
        label = click.style("error:", fg="red")
        for error in self._errors[:_SHOWN]:
            click.echo(f"{label} {printable(str(error))}", err=True, color=colours())
        if (more := len(self._errors) - _SHOWN) > 0:
            click.echo(f"{label} and {more} more", err=True, color=colours())


class _Commands(click.Group):
    """Looks commands up in COMMANDS, and turns our errors into messages and exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *_added()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return command(cmd_name)
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        ours: click.Command
        ours = getattr(importlib.import_module(f"portaflow.cli.{module}"), attribute)
        return ours

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            added = _added()
            if args[0] not in added:
                from portaflow.pipeline import suggest

                known = [*COMMANDS, *added]
                ctx.fail(f"there is no command {args[0]!r}{suggest(args[0], known)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Offer the commands from the table; click would import them all for their help."""
        from click.shell_completion import CompletionItem

        told = {**{name: text for name, (_, text) in COMMANDS.items()}, **_added()}
        offered = [CompletionItem(n, help=t) for n, t in told.items() if n.startswith(incomplete)]
        return [*offered, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        if added := _added():
            with formatter.section("Added by other distributions"):
                formatter.write_dl(list(added.items()))

    def invoke(self, ctx: click.Context) -> Any:
        ctx.color = colours()
        try:
            return super().invoke(ctx)
        except PortaflowError as error:
            raise Failure(error) from error


def _added() -> dict[str, str]:
    """Commands of other distributions, with whose they are: their own words would cost their
    import."""
    return {
        name: f"Of {' and '.join(offer.distribution for offer in offers)}."
        for name, offers in plugged().items()
        if name not in COMMANDS
    }


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="portaflow")
def cli() -> None:
    """One hybrid pipeline (Spark, containers, Spark) for AWS, GCP, Kubernetes and a laptop.

    Exit codes: 0 good, 1 the run failed, 2 the definition, target or plugin is wrong,
    3 something may still cost money.
    """


def main() -> None:
    """Run the command line; what `portaflow` and `python -m portaflow` call."""
    gc.set_threshold(_YOUNG)
    for stream in (sys.stdout, sys.stderr):  # a name in any language prints on any terminal
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(cli(prog_name="portaflow"))
