"""Commands that other distributions add, by the entry-point group `portaflow.commands`.

    [project.entry-points."portaflow.commands"]
    emulate = "portaflow_conformance.emulators.command:emulate"

The value is a click.Command. It is imported when it is used and never before, so that a broken
one hurts only who calls it. The files of installed distributions are read here by hand, for
importlib.metadata takes longer to import than the rest of `portaflow --help`.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import click

from portaflow.errors import PluginError

GROUP = "portaflow.commands"


@dataclass(frozen=True)
class Plugged:
    """One command of an installed distribution."""

    name: str
    where: str
    distribution: str

    def load(self) -> click.Command:
        """Import it. Raises PluginError, whatever the stranger's code does."""
        module, _, attribute = self.where.partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"command {self.name!r} of {self.distribution} cannot be loaded: "
                f"{type(error).__name__}: {error}; reinstall or remove {self.distribution}"
            ) from error
        if not isinstance(command, click.Command):
            raise PluginError(
                f"command {self.name!r} of {self.distribution}: {self.where} is no click.Command; "
                "report it to its authors"
            )
        return command


def plugged() -> dict[str, list[Plugged]]:
    """The commands on offer by name; more than one for a name that several claim."""
    found: dict[str, list[Plugged]] = {}
    seen: set[str] = set()
    for folder in sys.path:
        for distribution, text in _announcements(folder or "."):
            if distribution not in seen:  # the first on the path hides the others
                seen.add(distribution)
                for name, where in _entries(text):
                    found.setdefault(name, []).append(Plugged(name, where, distribution))
    return dict(sorted(found.items()))


def command(name: str) -> click.Command | None:
    """The command of that name, imported. Raises PluginError; None where there is none."""
    offers = plugged().get(name, [])
    if len(offers) > 1:
        owners = " and ".join(o.distribution for o in offers)
        raise PluginError(f"command {name!r} is offered by {owners}; uninstall one of them")
    return offers[0].load() if offers else None


def _announcements(folder: str) -> Iterator[tuple[str, str]]:
    """Distributions in a folder that have commands, with the text of their entry points."""
    try:
        entries = sorted(e.path for e in os.scandir(folder) if e.name.endswith(".dist-info"))
    except OSError:  # a path need not exist, nor be a folder
        return
    for path in entries:
        try:
            with open(f"{path}/entry_points.txt", encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        if f"[{GROUP}]" in text:
            yield os.path.basename(path).partition("-")[0].replace("_", "-"), text


def _entries(text: str) -> Iterator[tuple[str, str]]:
    ours = False
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            ours = line == f"[{GROUP}]"
        elif ours and not line.startswith("#"):
            name, equals, where = line.partition("=")
            if equals:
                yield name.strip(), where.partition("[")[0].strip()
