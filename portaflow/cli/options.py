"""Options that commands share: which target, from which file, with which settings."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from portaflow.session import Session
from portaflow.target import Target, find_file, load_target

Command = Callable[..., Any]

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def with_target(command: Command) -> Command:
    """Add --target, --config and --set; the command receives the checked `target`."""

    @click.option("-t", "--target", "name", metavar="NAME", help="Where [default: local].")
    @click.option(
        "-c",
        "--config",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="The portaflow.toml to use [default: the nearest at or above this folder].",
    )
    @click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="PATH=VALUE",
        help="Change one setting of the target, as in store.root=/data. Repeatable.",
    )
    @functools.wraps(command)
    def wrapped(
        *args: Any, name: str | None, config: Path | None, sets: tuple[str, ...], **kwargs: Any
    ) -> Any:
        target: Target = load_target(name or "", file=config or find_file(Path.cwd()), sets=sets)
        return command(*args, target=target, **kwargs)

    return wrapped


def with_session(command: Command) -> Command:
    """As `with_target`, but the command receives the opened `session`."""

    @with_target
    @functools.wraps(command)
    def wrapped(*args: Any, target: Target, **kwargs: Any) -> Any:
        return command(*args, session=Session(target), **kwargs)

    return wrapped


def print_json(value: Any) -> None:
    """Print a value as JSON, indented so that a person can read it too."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
