"""Verdicts, known failures, and the page."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from xml.etree import ElementTree

import pytest
from portaflow_conformance.known import Known, read_known, wrong
from portaflow_conformance.page import badge, page
from portaflow_conformance.report import EXIT, Outcome, Report, Result, capability_table

from portaflow.errors import TargetError

PASSED = Result(
    id="store.list_2500", area="store", backend="mine", level="L1", since="1.0", laws=(),
    capability="", declared=False, outcome="passed", seconds=0.5,
)  # fmt: skip
KNOWN = Known(id="store.list_2500", reason="r", issue="i", expires=date(2030, 1, 1))
TODAY = date(2029, 1, 1)


def report(*results: Result, problems: tuple[str, ...] = ()) -> Report:
    return Report(
        contract="1.0", portaflow="0.1.0", interface="1.0", target="t", target_kind="local",
        level="L1", started="2026-01-01T00:00:00+00:00", seconds=1.0,
        backends=[{
            "role": "store", "name": "mine", "distribution": "d", "version": "1",
            "interface": "1.0", "capabilities": {
                "presign": {"supported": False, "reason": "no server", "issue": ""},
            },
        }],
        results=list(results), planned=[], problems=list(problems),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("outcome", "verdict", "code"),
    [
        ("passed", "conformant", 0),
        ("failed", "not conformant", 1),
        ("flaky", "not conformant", 1),
        ("known", "partial", 6),
        ("not run", "partial", 6),
    ],
)
def test_one_outcome_decides_the_verdict_and_the_exit_code(
    outcome: Outcome, verdict: str, code: int
) -> None:
    made = report(PASSED, replace(PASSED, id="store.other", outcome=outcome))
    assert (made.verdict, EXIT[made.verdict]) == (verdict, code)


def test_a_failure_counts_more_than_what_did_not_run() -> None:
    made = report(replace(PASSED, outcome="not run"), replace(PASSED, outcome="failed"))
    assert made.verdict == "not conformant"


def test_nothing_checked_is_not_conformant_and_a_wrong_entry_spoils_all() -> None:
    assert report().verdict == "partial"
    assert report(PASSED, problems=("expired",)).verdict == "not conformant"


def test_a_gated_check_counts_as_extended_and_shows_what_the_backend_says() -> None:
    made = report(PASSED, replace(PASSED, id="store.presign_expires", capability="presign"))
    assert made.counts() == {"required": {"passed": 1}, "extended": {"passed": 1}}
    assert capability_table(made) == [("mine", "presign", "no: no server", "refused, as it says")]


def test_an_entry_that_holds_is_no_problem() -> None:
    assert wrong([KNOWN], [replace(PASSED, outcome="known")], TODAY) == []


@pytest.mark.parametrize(
    ("entry", "outcome", "says"),
    [
        (replace(KNOWN, expires=date(2028, 1, 1)), "failed", "expired on 2028-01-01"),
        (KNOWN, "passed", "passes; remove the entry"),
        (replace(KNOWN, id="store.none"), "failed", "no check of this run"),
        (replace(KNOWN, backend="other"), "failed", "no check of this run"),
    ],
)
def test_an_entry_that_does_not_hold_is_a_problem(
    entry: Known, outcome: Outcome, says: str
) -> None:
    assert says in wrong([entry], [replace(PASSED, outcome=outcome)], TODAY)[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[a]]\nreason='r'\nissue='i'\n", "a.expires: is missing"),
        ("[[a]]\nreason='r'\nissue='i'\nexpires='soon'\n", "a.expires: must be a date"),
        ("[[a]]\nraeson='r'\n", "a.raeson: unknown key"),
        ("[a]\nreason='r'\n", "a: must be tables"),
        ("[[a]\n", "cannot be read"),
    ],
)
def test_a_wrong_file_names_the_entry_and_the_field(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "known.toml"
    file.write_text(text)
    with pytest.raises(TargetError, match=says):
        read_known(file)


def test_the_page_needs_no_other_file_and_escapes_what_backends_say() -> None:
    failed = replace(PASSED, id="store.x", outcome="failed", message="<script>alert(1)</script>")
    text = page([report(PASSED, failed).to_json()])
    assert "list_2500" in text
    assert "not conformant" in text
    assert "<script" not in text
    assert "http" not in text


def test_the_page_shows_several_backends_side_by_side() -> None:
    mine, yours = report(PASSED).to_json(), report(replace(PASSED, backend="yours")).to_json()
    yours["backends"][0]["name"] = "yours"
    text = page([mine, yours])
    assert "<th class=backend>mine<th class=backend>yours" in text


def test_the_badge_is_a_picture_of_the_verdict() -> None:
    body = report(PASSED, problems=("expired",)).to_json()
    picture = ElementTree.fromstring(badge(body))
    said = f"not conformant {body['level']}, {body['target_kind']}"
    assert picture.attrib["aria-label"] == f"portaflow {body['contract']}: {said}"
    assert said in page([body])
