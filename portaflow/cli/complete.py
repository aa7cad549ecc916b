"""What the shell offers for the word at the cursor. Cheap, and silent when it cannot know."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portaflow.errors import PortaflowError

if TYPE_CHECKING:
    from portaflow.session import Session


def targets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The targets of the nearest portaflow.toml, and those that are built in."""
    from portaflow.target import BUILT_IN, find_file, read_file

    names = set(BUILT_IN)
    with suppress(PortaflowError, OSError):
        file = ctx.params.get("config") or find_file(Path.cwd())
        names.update(read_file(file).get("targets", {}) if file else ())
    return _matching(names, incomplete)


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The ids of the runs in the target's store, the latest first."""
    with suppress(PortaflowError, OSError):
        found = [r.run for r in _session(ctx).runs()]
        return [run for run in dict.fromkeys(found) if run.startswith(incomplete)][:50]
    return []


def run_or_task(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For `[RUN] TASK`: the tasks of the run that is named already, or of the latest; and runs."""
    named = ctx.params.get("words") or ()
    with suppress(PortaflowError, OSError, LookupError, ValueError, TypeError):
        session = _session(ctx)
        ref = session.find(*named)
        first = json.loads(session.fs.cat_file(f"{ref.home}/_journal/{1:08d}.json"))
        found = _matching((t["id"] for t in first["header"]["definition"]["tasks"]), incomplete)
        return found if named else found + runs(ctx, param, incomplete)
    return []


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted(name for name in names if name.startswith(incomplete))


def _session(ctx: click.Context) -> Session:
    from portaflow.session import Session
    from portaflow.target import find_file, load_target

    file = ctx.params.get("config") or find_file(Path.cwd())
    return Session(load_target(ctx.params.get("target_name") or "", file=file))
