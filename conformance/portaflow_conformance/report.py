"""What a run of the suite found: verdict, report.json, badge and page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["passed", "failed", "flaky", "known", "not run"]
Verdict = Literal["conformant", "partial", "not conformant"]

REPORT_VERSION = 1

EXIT: Mapping[Verdict, int] = {"conformant": 0, "not conformant": 1, "partial": 6}
"""pytest's own exit codes end at 5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one check with one backend."""

    id: str
    area: str
    backend: str
    level: str
    since: str
    laws: tuple[int, ...]
    capability: str  # "" when the check is required of everybody
    declared: bool  # whether the backend has that capability
    outcome: Outcome
    seconds: float
    message: str = ""

    @property
    def required(self) -> bool:
        return not self.capability or self.declared


@dataclass(frozen=True, kw_only=True)
class Report:
    """One run of the suite against one target."""

    contract: str
    portaflow: str
    interface: str
    target: str
    target_kind: str
    level: str
    started: str
    seconds: float
    backends: list[dict[str, Any]]
    results: list[Result]
    planned: list[dict[str, str]]
    problems: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """Every failure counts, gated or not; what did not run makes it partial."""
        outcomes = {r.outcome for r in self.results}
        if self.problems or outcomes & {"failed", "flaky"}:
            return "not conformant"
        if not outcomes or outcomes & {"known", "not run"}:
            return "partial"
        return "conformant"

    def counts(self) -> dict[str, dict[str, int]]:
        """Outcome -> number, for required checks and for those a capability asks for."""
        table: dict[str, Counter[str]] = {"required": Counter(), "extended": Counter()}
        for result in self.results:
            table["extended" if result.capability else "required"][result.outcome] += 1
        return {name: dict(counter) for name, counter in table.items()}

    def to_json(self) -> dict[str, Any]:
        body = asdict(self)
        return {"version": REPORT_VERSION, "verdict": self.verdict, "counts": self.counts(), **body}


def capability_table(report: Report) -> list[tuple[str, str, str, str]]:
    """Rows: backend, capability, what is declared, what the checks have shown."""
    rows = []
    for backend in report.backends:
        for name, support in sorted(backend["capabilities"].items()):
            seen = {
                r.outcome
                for r in report.results
                if r.capability == name and r.backend == backend["name"]
            }
            if not support["supported"]:
                said = f"no: {support['reason'] or support['issue']}"
            else:
                said = "yes"
            shown = ", ".join(sorted(seen)) if seen else "not checked"
            if seen == {"passed"}:
                shown = "works" if support["supported"] else "refused, as it says"
            rows.append((backend["name"], name, said, shown))
    return rows


def write(report: Report, folder: Path) -> None:
    """Write report.json, index.html and badge.svg."""
    from .page import badge, page

    folder.mkdir(parents=True, exist_ok=True)
    body = report.to_json()
    (folder / "report.json").write_text(json.dumps(body, indent=1, ensure_ascii=False) + "\n")
    (folder / "index.html").write_text(page([body]), "utf-8")
    (folder / "badge.svg").write_text(badge(body), "utf-8")
