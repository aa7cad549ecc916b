"""A plan for people: what will happen, in order, and what a backend does differently."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import click

from portaflow.backend import ClusterSpec, ContainerSpec, JobSpec, Machines, Size
from portaflow.cost import Cost
from portaflow.plan import Action, CallSpec, Note, Plan, TransferSpec
from portaflow.text import size

from .text import cut, printable, width


def show(plan: Plan, store: str) -> None:
    """Print the plan. URIs are said as {run}/... and {store}/..., which the head spells out."""
    click.echo(f"{click.style(plan.pipeline, bold=True)} on target {plan.target}, run {plan.run}")
    click.echo(f"  {{run}}    {printable(plan.home)}")
    click.echo(f"  {{store}}  {printable(store)}")
    click.echo(f"  owner    {plan.owner}")
    places = ((plan.home, "{run}"), (store, "{store}"))
    if plan.staged:
        click.echo()
        click.echo("First these files are copied, unless they are there:")
        for item in plan.staged:
            copied = _short(item.uri, places).replace(item.file.digest, item.file.digest[:12] + "…")
            click.echo(f"     {cut(item.file.name, 40)} ({size(item.file.size)})  {copied}")
    click.echo()
    notes: dict[str, list[Note]] = {}
    for note in plan.notes:
        notes.setdefault(note.action, []).append(note)
    costs = {c.action: c for c in plan.costs}
    digits = len(str(len(plan.actions)))
    for number, action in enumerate(plan.actions, 1):
        _show_action(f"{number:{digits}}", action, places, notes.get(action.id, ()), costs)
    _show_total(plan)


def _show_action(
    number: str, action: Action, places: Iterable[tuple[str, str]], notes: Iterable[Note],
    costs: Mapping[str, Cost],
) -> None:  # fmt: skip
    verb = click.style(action.verb, fg="yellow" if action.verb == "stop" else "green")
    subject = click.style(printable(action.subject), bold=True)
    where = f"on cluster {action.parent.partition('/')[2]}" if action.parent else ""
    click.echo(f"{number}  {verb} {action.kind} {subject}  {_dim(action.backend)} {where}".rstrip())
    indent = " " * (len(number) + 2)
    room = width() - len(indent) - 10

    def line(label: str, text: str) -> None:
        click.echo(f"{indent}{_dim(f'{label:8}')}  {text}")

    if action.name:
        line("name", action.name)
    for text in _what(action):
        line("runs" if action.kind != "cluster" else "size", cut(text, room))
    for label, uris in (("reads", action.inputs), ("writes", action.outputs)):
        pad = max((len(n) for n in uris), default=0)
        for name, uri in uris.items():
            line(label, f"{printable(name):{pad}}  {_short(uri, places)}")
    if action.verb == "stop":
        users = sorted(n for n in action.needs if n != action.undoes)
        line("when", cut(f"{', '.join(users)} ended, however", room))
    elif after := sorted(n for n in action.needs if n != action.parent):
        line("after", cut(", ".join(after), room))
    if action.verb == "start" and (limits := _limits(action)):
        line("limits", limits)
    if said := _cost(costs.get(action.id)):
        line("costs", said)
    for note in notes:
        verdict = click.style(note.fit.verdict.value, fg="yellow")
        line("note", f"{note.field} is {verdict}: {note.fit.reason}")


def _cost(of: Cost | None) -> str:
    """The machines, and their price where the target has one; "" where nothing is billed."""
    if of is None or of.machines == ():
        return ""
    kinds = ", ".join(_count(m) for m in of.machines or ())
    if of.hourly is None or of.most is None:
        return ": ".join(filter(None, (kinds, f"unknown, as {of.why}")))
    an_hour = " to ".join(dict.fromkeys(f"{h:.2f}" for h in of.hourly))
    return f"{kinds}: {an_hour} {of.currency} an hour, at most {of.most:.2f}"


def _count(of: Machines) -> str:
    number = f"{of.least:g}" if of.least == of.most else f"{of.least:g} to {of.most:g}"
    return f"{number} x {of.type}{' spot' if of.spot else ''}"


def _show_total(plan: Plan) -> None:
    """What all of it may cost, when all of it is known and something is billed."""
    known = [c.most for c in plan.costs if c.most is not None]
    currencies = {c.currency for c in plan.costs if c.currency}
    if len(known) == len(plan.costs) and len(currencies) == 1:
        days = sorted({c.date.isoformat() for c in plan.costs if c.date})
        prices = f" by the prices of {' and '.join(days)}" if days else ""
        most = f"{sum(known):.2f} {currencies.pop()}{prices}"
        click.echo(f"\nAt most {most}, if all lives until its time-to-live is over.")


def _what(action: Action) -> list[str]:
    match action.spec:
        case ClusterSpec() as spec:
            least, most = spec.workers
            workers = str(least) if least == most else f"{least} to {most}"
            spot = ", spot" if spec.spot else ""
            return [f"{workers} worker{'' if workers == '1' else 's'}: {_size(spec.size)}{spot}"]
        case JobSpec() as spec:
            main = f"{spec.main_class} of " if spec.main_class else ""
            return [" ".join([main + spec.main.rpartition("/")[2], *spec.args])]
        case ContainerSpec() as spec:
            return [f"{spec.image}: {' '.join([*spec.command, *spec.args])}"]
        case CallSpec() as spec:
            given = ", ".join(f"{k}={v!r}" for k, v in spec.kwargs.items())
            return [f"{spec.function}({given})"]
        case TransferSpec() as spec:
            return [f"{source} to {copy}" for source, copy in spec.copies.values()]
    return []


def _size(asked: Size) -> str:
    gpu = f", {asked.gpu} GPU" if asked.gpu else ""
    return f"{asked.cpu:g} cpu, {asked.memory:g} GiB{gpu}"


def _limits(action: Action) -> str:
    retries = f", {action.retries} retries" if action.retries else ""
    ttl = f", provider's time-to-live {action.spec.ttl} s" if action.spec else ""
    return f"timeout {action.timeout:g} s{retries}{ttl}"


def _short(uri: str, places: Iterable[tuple[str, str]]) -> str:
    for place, word in places:
        if uri.startswith(place + "/"):
            return word + printable(uri[len(place) :])
    return printable(uri)


def _dim(text: str) -> str:
    return click.style(text, dim=True)
