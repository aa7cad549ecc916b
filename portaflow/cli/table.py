"""Rows under headings, aligned; plain text wherever they go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from .text import printable

TONES = {"good": "green", "bad": "red", "warn": "yellow", "busy": "cyan", "calm": "bright_black"}
"""What a tone of the report is on a terminal."""


def show_table(
    headings: Sequence[str], rows: Iterable[Sequence[str | tuple[str, str]]], right: str = ""
) -> None:
    """Print rows; a cell is a text, or a text and its colour. `right`: headings to align so."""
    cells = [[c if isinstance(c, tuple) else (c, "") for c in row] for row in rows]
    cells = [[(printable(t).replace("\n", " "), colour) for t, colour in row] for row in cells]
    widths = [max([len(h), *(len(row[n][0]) for row in cells)]) for n, h in enumerate(headings)]
    aligned = [">" if h in right.split() else "<" for h in headings]

    def line(row: Sequence[tuple[str, str]]) -> str:
        parts = []
        for (text, colour), side, width in zip(row, aligned, widths, strict=True):
            padding = " " * (width - len(text))
            text = click.style(text, fg=colour) if colour else text
            parts.append(text + padding if side == "<" else padding + text)
        return "  ".join(parts).rstrip()

    click.echo(click.style(line([(h, "") for h in headings]), dim=True))
    for row in cells:
        click.echo(line(row))
