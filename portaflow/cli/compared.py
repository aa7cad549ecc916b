"""What came of a comparison, for people."""

from __future__ import annotations

from typing import Any

import click

from portaflow.compare import Compared, Comparison, Difference

from .text import cut, printable, width


def show(result: Comparison) -> None:
    """Print a line for each task, what differs in it, and the verdict."""
    a, b = (printable(run) for run in result.runs)
    click.echo(f"A is {a}, B is {b}")
    click.echo()
    pad = min(max(len(t.task) for t in result.tasks), 40)
    for task in result.tasks:
        _show_task(task, pad)
    click.echo()
    if result.first is None:
        click.echo(f"{click.style('equal', fg='green', bold=True)}: {len(result.tasks)} tasks")
        return
    first = result.first
    how = first.differences[0]
    click.echo(
        f"{click.style('different', fg='red', bold=True)}: the first task that differs is "
        f"{printable(first.task)!r}: {how.where}: {cut(how.detail, 200)}"
    )


def _show_task(task: Compared, pad: int) -> None:
    word = click.style("equal", fg="green") if task.equal else click.style("differs", fg="red")
    rows = ", ".join(f"{where} {a} rows" for where, (a, b) in task.rows.items() if a == b)
    seen = rows or ("the same files" if task.identical else "")
    click.echo(f"{cut(task.task, pad):{pad}}  {word}  {cut(seen, width() - pad - 10)}".rstrip())
    for difference in task.differences:
        _show_difference(difference)


def _show_difference(difference: Difference) -> None:
    room = max(width() - 8, 60)
    click.echo(f"    {printable(difference.where)}: {cut(difference.detail, 4 * room)}")
    for example in difference.examples:
        row = ", ".join(f"{_key(k)}{v!r}" for k, v in example["row"].items())
        click.echo(f"      only in {example['only_in']}: {cut(row, 2 * room)}")


def _key(name: Any) -> str:
    return f"{name}=" if name != "" else ""
