"""Options that commands share: which target, from which file, with which settings."""

from __future__ import annotations

import functools
import json
import shlex
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from portaflow.errors import DefinitionError
from portaflow.session import Session
from portaflow.target import Target, find_file, load_target

from . import complete

Command = Callable[..., Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def with_target(command: Command) -> Command:
    """Add --target, --config and --set; the command receives the checked `target`."""

    @_place
    @functools.wraps(command)
    def wrapped(
        *args: Any, target_name: str, config: Path | None, sets: tuple[str, ...], **kwargs: Any
    ) -> Any:
        return command(*args, target=open_target(target_name, config, sets), **kwargs)

    return wrapped


def with_session(command: Command) -> Command:
    """As `with_target`, but the command receives the opened `session`."""

    @with_target
    @functools.wraps(command)
    def wrapped(*args: Any, target: Target, **kwargs: Any) -> Any:
        return command(*args, session=Session(target), **kwargs)

    return wrapped


def with_open(command: Command) -> Command:
    """As `with_target`, but the command receives `opened`: a call that returns the target.

    For a command that has more to say when the target is wrong.
    """

    @_place
    @functools.wraps(command)
    def wrapped(
        *args: Any, target_name: str, config: Path | None, sets: tuple[str, ...], **kwargs: Any
    ) -> Any:
        opened = functools.partial(open_target, target_name, config, sets)
        return command(*args, opened=opened, **kwargs)

    return wrapped


def _place(command: Command) -> Command:
    options = (
        click.option(
            "-t",
            "--target",
            "target_name",
            metavar="NAME",
            default="",
            help="Where [default: the file's default_target, else local].",
            shell_complete=complete.targets,
        ),
        click.option(
            "-c",
            "--config",
            type=click.Path(path_type=Path, exists=True, dir_okay=False),
            help="The portaflow.toml to use [default: the nearest at or above this folder].",
        ),
        click.option(
            "--set",
            "sets",
            multiple=True,
            metavar="PATH=VALUE",
            help="Change one setting of the target, as in store.root=/data. Repeatable.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def open_target(name: str, config: Path | None, sets: tuple[str, ...]) -> Target:
    """The checked target that --target, --config and --set ask for."""
    return load_target(name, file=config or find_file(Path.cwd()), sets=sets)


def again(*words: str) -> str:
    """A command line for the user to type next, with the target that this one was given."""
    given = click.get_current_context().params
    place: list[str] = []
    if name := given.get("target_name"):
        place += ["-t", name]
    if config := given.get("config"):
        place += ["-c", str(config)]
    for text in given.get("sets") or ():
        place += ["--set", text]
    return shlex.join(["portaflow", *words, *place])


def with_run(default_id: str) -> Callable[[Command], Command]:
    """Add --run-id, -p and --date, which make a Run (`run_of`)."""
    options = (
        click.option("--run-id", metavar="ID", default="", help=f"[default: {default_id}]"),
        click.option(
            "-p",
            "--param",
            "params",
            multiple=True,
            metavar="NAME=VALUE",
            help="Give a parameter, typed like its default; JSON or TOML. Repeatable.",
        ),
        click.option(
            "--date",
            metavar="DATE",
            default="",
            help="Logical date for templates, ISO 8601 [default: today, UTC].",
        ),
    )

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def read_params(texts: tuple[str, ...], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Read NAME=VALUE pairs. A parameter whose default is text is taken as it is."""
    params = {}
    for text in texts:
        name, mark, value = text.partition("=")
        if not mark or not name:
            raise DefinitionError(f"-p {text!r}: say it as name=value, as in -p scale=10")
        params[name] = value if isinstance(defaults.get(name), str) else _value(value)
    return params


def _value(text: str) -> Any:
    import tomllib

    def refuse(word: str) -> Any:
        raise ValueError(word)  # NaN and infinity are no JSON

    try:
        return json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        pass
    try:
        value = tomllib.loads(f"value = {text}")["value"]
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return text
    return value


def read_date(text: str) -> datetime:
    """Read an ISO 8601 date or time; "" is today, and what names no zone is in UTC."""
    if not text:
        return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise DefinitionError(f"--date {text!r}: say it as 2026-11-25 or 2026-11-25T06:00") from (
            error
        )
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def print_json(value: Any) -> None:
    """Print a value as JSON, indented so that a person can read it too."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
