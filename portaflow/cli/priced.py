"""portaflow prices: what the provider asks for the machines that a pipeline takes."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click

from portaflow.backend import Driver, Machines
from portaflow.calls import patiently
from portaflow.load import load
from portaflow.plan import Plan, Run
from portaflow.session import Session
from portaflow.target import Limits, Target

from .options import as_json, print_json, with_target
from .text import printable

_CURRENCY = "USD"
_TRIES = 5


@dataclass
class _Table:
    """The prices of one target, as they belong in it, and why some are missing. `own` are those
    that it has: what the provider does not tell keeps its price."""

    own: Mapping[str, float]
    hourly: dict[str, float] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@as_json
@with_target
@click.pass_context
def prices(ctx: click.Context, target: Target, path: Path, as_json: bool) -> None:
    """Ask the provider what the machines cost that the pipeline at PATH takes.

    Prints a table for portaflow.toml, where `portaflow plan` reads it. These are today's prices
    of the list: agreements, commitments and discounts are not in them. What the provider does
    not tell keeps the price that the target has.

    Exit codes: 0 all is known, 1 something has no price.
    """
    # A limit refuses what has no price yet.
    session = Session(target.model_copy(update={"limits": Limits()}))
    tables = _asked(session, session.plan(load(path), Run(id="prices")))
    day = datetime.datetime.now(datetime.UTC).date()
    unknown = {name: table.unknown for name, table in tables.items() if table.unknown}
    if as_json:
        body = {
            name: {
                "date": day.isoformat(),
                "currency": _CURRENCY,
                "hourly": table.hourly,
                "unknown": table.unknown,
            }
            for name, table in tables.items()
        }
        print_json({"ok": not unknown, "targets": body})
    else:
        _show({name: table.hourly for name, table in tables.items() if table.hourly}, day)
        for name, whys in unknown.items():
            for what, why in whys.items():
                click.echo(f"target {printable(name)}: {printable(what)}: {why}", err=True)
        if not any(table.hourly or table.unknown for table in tables.values()):
            click.echo(f"nothing that {path} takes on target {target.name} is billed by the hour")
    ctx.exit(1 if unknown else 0)


def _asked(session: Session, planned: Plan) -> dict[str, _Table]:
    """The prices of all that a plan starts, by the target on which it starts it."""
    actions = {action.id: action for action in planned.actions}
    tables: dict[str, _Table] = {}
    wanted: dict[Driver[Any], tuple[_Table, dict[str, Machines]]] = {}
    for cost in planned.costs:
        action = actions[cost.action]
        target = session.target.at(action.place)
        table = tables.setdefault(target.name, _Table(_own(target)))
        if cost.machines is None:
            table.unknown[cost.action] = cost.why
        elif cost.machines:
            _, machines = wanted.setdefault(session.driver(action), (table, {}))
            machines |= {one.key: one for one in cost.machines}
    for driver, (table, machines) in wanted.items():
        ask = partial(driver.prices, list(machines.values()))
        found = {**table.own, **patiently(ask, None, _TRIES)}
        for key in sorted(machines):
            if key in found:
                table.hourly[key] = round(found[key], 6)
            else:
                table.unknown[key] = "the provider tells no price; write one by hand"
    return tables


def _own(target: Target) -> Mapping[str, float]:
    return target.prices.hourly if target.prices and target.prices.currency == _CURRENCY else {}


def _show(tables: Mapping[str, Mapping[str, float]], day: datetime.date) -> None:
    """Print them as TOML."""
    for name, hourly in tables.items():
        click.echo(f"[targets.{_key(name)}.prices]")
        click.echo(f'date = {day.isoformat()}\ncurrency = "{_CURRENCY}"\n')
        click.echo(f"[targets.{_key(name)}.prices.hourly]")
        for key, price in hourly.items():
            click.echo(f"{_key(key)} = {price}")
        click.echo()


def _key(name: str) -> str:
    """A key of TOML."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
