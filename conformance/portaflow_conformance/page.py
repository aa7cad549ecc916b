"""One page that shows reports side by side.

`python -m portaflow_conformance.page OUT.html REPORT.json...`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

_COLOURS = {"conformant": "#2e7d32", "partial": "#b26a00", "not conformant": "#c62828"}
_SIGNS = {"passed": "✓", "failed": "✗", "flaky": "≈", "known": "!", "not run": "–", "": ""}

_STYLE = """
:root { color-scheme: light dark; --line: #8883; --dim: #888; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 3rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.1rem; margin-top: 2.5rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line) }
th.backend, td.sign { text-align: center; width: 8rem }
td.id { font-family: ui-monospace, monospace }
.dim, caption { color: var(--dim); font-size: .85rem } caption { text-align: left }
.verdict { color: #fff; border-radius: .4rem; padding: .1rem .6rem; font-size: .9rem }
.passed { color: #2e7d32 } .failed, .flaky { color: #c62828; font-weight: bold }
.known, .not-run { color: #b26a00 }
details { display: inline } pre { white-space: pre-wrap; margin: .3rem 0; font-size: .8rem }
"""


def page(reports: Sequence[Mapping[str, Any]]) -> str:
    """The page for reports as they are in report.json."""
    columns = [(r, b) for r in reports for b in r["backends"]]
    body = "".join(map(_summary, reports))
    for area in dict.fromkeys(row["area"] for r in reports for row in r["results"]):
        body += _matrix(area, columns)
    body += "".join(map(_planned, reports[:1]))
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width,initial-scale=1'>"
        f"<title>portaflow conformance</title><style>{_STYLE}</style>{body}</html>\n"
    )


def standing(report: Mapping[str, Any]) -> str:
    """The verdict with what it is worth: a level, and on what kind of target."""
    return f"{report['verdict']} {report['level']}, {report['target_kind']}"


def badge(report: Mapping[str, Any]) -> str:
    """An SVG that says the verdict; it needs no other file."""
    left, right = f"portaflow {report['contract']}", standing(report)
    colour = _COLOURS[report["verdict"]]
    a, b = 7 * len(left) + 14, 7 * len(right) + 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{a + b}" height="20" role="img"'
        f' aria-label="{left}: {right}"><clipPath id="r"><rect width="{a + b}" height="20" rx="3"/>'
        f'</clipPath><g clip-path="url(#r)"><rect width="{a}" height="20" fill="#444"/>'
        f'<rect x="{a}" width="{b}" height="20" fill="{colour}"/></g>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,sans-serif" font-size="11">'
        f'<text x="{a / 2}" y="14">{left}</text>'
        f'<text x="{a + b / 2}" y="14">{right}</text></g></svg>\n'
    )


def _summary(report: Mapping[str, Any]) -> str:
    verdict = report["verdict"]
    used = ", ".join(
        f"{b['name']} ({b['distribution']} {b['version']})" for b in report["backends"]
    )
    counts = "; ".join(
        f"{name}: " + ", ".join(f"{n} {outcome}" for outcome, n in sorted(table.items()))
        for name, table in report["counts"].items()
        if table
    )
    problems = "".join(f"<p class=failed>{escape(p)}</p>" for p in report["problems"])
    return (
        f"<h1>{escape(report['target'])} "
        f"<span class=verdict style='background:{_COLOURS[verdict]}'>{standing(report)}</span></h1>"
        f"<p>{escape(used)}</p><p>{escape(counts)}</p>{problems}"
        f"<p class=dim>contract {report['contract']}, level {report['level']}, "
        f"{report['target_kind']} target, portaflow {report['portaflow']} with interface "
        f"{report['interface']}, {report['started']}, {report['seconds']:.0f} s</p>"
    )


def _matrix(area: str, columns: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    cells: dict[str, dict[int, Mapping[str, Any]]] = {}
    heads: list[str] = []
    for report, backend in columns:
        rows = [
            r
            for r in report["results"]
            if r["area"] == area and r["backend"] in (backend["name"], "")
        ]
        if not rows:
            continue
        for row in rows:
            cells.setdefault(row["id"], {})[len(heads)] = row
        heads.append(f"<th class=backend>{escape(backend['name'])}")
    lines = "".join(
        f"<tr><td class=id>{escape(id.partition('.')[2])}{_about(row)}"
        + "".join(_cell(row.get(n)) for n in range(len(heads)))
        for id, row in cells.items()
    )
    return f"<h2>{escape(area)}</h2><table><tr><th>check{''.join(heads)}{lines}</table>"


def _about(row: Mapping[int, Mapping[str, Any]]) -> str:
    first = next(iter(row.values()))
    notes = [f"law {n}" for n in first["laws"]]
    if first["capability"]:
        notes.append(first["capability"])
    return f" <span class=dim>{escape(', '.join(notes))}</span>" if notes else ""


def _cell(result: Mapping[str, Any] | None) -> str:
    if result is None:
        return "<td>"
    outcome = result["outcome"]
    sign = f"<span class={outcome.replace(' ', '-')} title='{outcome}'>{_SIGNS[outcome]}</span>"
    if not result["message"]:
        return f"<td class=sign>{sign}"
    text = escape(result["message"])
    return f"<td class=sign><details><summary>{sign}</summary><pre>{text}</pre></details>"


def _planned(report: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td class=id>{escape(p['id'])}<td>{p['level']}<td class=dim>{escape(p['waits_for'])}"
        for p in report["planned"]
    )
    return f"<h2>Not in this level</h2><table><tr><th>check<th>level<th>waits for{rows}</table>"


def main() -> None:
    out, *files = sys.argv[1:]
    Path(out).write_text(page([json.loads(Path(f).read_text("utf-8")) for f in files]), "utf-8")


if __name__ == "__main__":
    main()
