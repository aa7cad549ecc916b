"""The report: whole, safe whatever it is told, self-contained; and the history and graph in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portaflow import text
from portaflow.backend import Cause, Fit, Handle, Verdict
from portaflow.history import attempts, standing, word
from portaflow.layout import layout
from portaflow.load import Project
from portaflow.pipeline import ContainerTask, Pipeline
from portaflow.plan import Action, Local, Note, Plan
from portaflow.report import Found, render
from portaflow.session import Past
from portaflow.state import Event, Phase, RunState
from portaflow.target import Binding, Target

EVIL = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>{{ 7*7 }}&amp;"""
TARGET = Target(name="here", store=Binding(backend="folder"), container=Binding(backend="process"))
P = Phase


def plan(*actions: Action, notes: tuple[Note, ...] = (), run: str = "r1") -> Plan:
    return Plan(
        pipeline="pipe", target="here", run=run, owner="o", home="file:///store/pipe/r1",
        actions=actions, notes=notes,
    )  # fmt: skip


def task(id: str, *needs: str, parent: str = "") -> Action:
    return Action(
        id=id, verb="start", kind="job" if parent else "container", subject=id, backend="process",
        name=f"pf-{id}", needs=frozenset(needs), parent=parent, home=f"file:///store/pipe/r1/{id}",
    )  # fmt: skip


CLUSTER = Action(id="cluster/spark", verb="start", kind="cluster", subject="spark", name="pf-s")
STOP = Action(
    id="stop/spark", verb="stop", kind="cluster", subject="spark", undoes="cluster/spark",
    needs=frozenset({"cluster/spark", "job"}),
)  # fmt: skip
HYBRID = plan(
    CLUSTER, task("job", "cluster/spark", parent="cluster/spark"), task("after", "job"), STOP
)


def event(action: str, phase: Phase, time: float, attempt: int = 1, **more: Any) -> Event:
    return Event(action=action, phase=phase, time=1_790_000_000 + time, attempt=attempt, **more)


def past(
    planned: Plan, *events: Event, params: dict[str, Any] | None = None, about: str = ""
) -> Past:
    tasks = tuple(ContainerTask(id=a.id, image="x") for a in planned.actions if a.kind != "cluster")
    model = Pipeline(name="pipe", description=about, params=params or {}, tasks=tasks)
    journal: Any = type("Header", (), {"header": {"params": {}, "logical_date": "2026-01-01"}})()
    project = Project(model, Path(), Path())
    return Past(journal, planned, list(events), project, Local())


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text that is shown."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.shown = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.shown += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


EVENTS = (
    event("cluster/spark", P.STARTING, 0),
    event("cluster/spark", P.RUNNING, 1, handle=Handle(name="pf-s", id="j-1", url="https://c/1")),
    event("cluster/spark", P.DONE, 20),
    event("job", P.STARTING, 20),
    event("job", P.RUNNING, 21, handle=Handle(name="pf-job", id="s-1")),
    event("job", P.WAITING, 30, 2, reason="exit code 1\nfirst", cause=Cause.USER, exit_code=1),
    event("job", P.STARTING, 40, 2),
    event("job", P.RUNNING, 41, 2, handle=Handle(name="pf-job-2", id="s-2", url="https://s/2")),
    event("job", P.FAILED, 60, 2, reason="exit code 9\nsecond", cause=Cause.USER, exit_code=9),
    event("after", P.SKIPPED, 60),
    event("stop/spark", P.STARTING, 60),
    event("stop/spark", P.RUNNING, 61),
    event("stop/spark", P.DONE, 80),
)


# -- history


def test_attempts_tell_when_each_try_began_worked_and_ended() -> None:
    tried = attempts(HYBRID, EVENTS)
    first, second = tried["job"]
    base = 1_790_000_000
    assert (first.number, first.began, first.running, first.ended) == (
        1,
        base + 20,
        base + 21,
        base + 30,
    )
    assert (first.outcome, first.exit_code, first.reason) == (P.WAITING, 1, "exit code 1\nfirst")
    assert (second.outcome, second.exit_code, second.ended) == (P.FAILED, 9, base + 60)
    assert second.handle
    assert second.handle.id == "s-2"
    assert tried["after"] == []


def test_a_cluster_lasts_from_its_start_until_it_is_gone() -> None:
    (cluster,) = attempts(HYBRID, EVENTS)["cluster/spark"]
    assert cluster.good
    assert cluster.seconds(0) == 80
    (cluster,) = attempts(HYBRID, EVENTS[:5])["cluster/spark"]
    assert not cluster.ended
    assert cluster.seconds(1_790_000_050) == 50
    again = (event("cluster/spark", P.WAITING, 90, 2), event("cluster/spark", P.STARTING, 91, 2))
    assert [a.number for a in attempts(HYBRID, (*EVENTS, *again))["cluster/spark"]] == [1, 2]


def test_events_of_a_task_that_the_pipeline_no_longer_has_are_left_out() -> None:
    assert attempts(HYBRID, [event("gone", P.STARTING, 0)]).keys() == {
        "cluster/spark",
        "job",
        "after",
    }


@pytest.mark.parametrize(
    ("count", "said"),
    [(1, "starting"), (3, "ready"), (11, "stopping"), (13, "gone")],
)
def test_a_clusters_word_includes_its_stop(count: int, said: str) -> None:
    assert word(RunState(HYBRID, EVENTS[:count]), CLUSTER) == said


@pytest.mark.parametrize(
    ("count", "alive", "closed", "said"),
    [
        (5, True, False, "running"),
        (5, False, False, "died"),
        (5, False, True, "interrupted"),
        (13, True, False, "failed"),
        (13, False, False, "failed"),
    ],
)
def test_a_runs_standing(count: int, alive: bool, closed: bool, said: str) -> None:
    assert standing(RunState(HYBRID, EVENTS[:count]), alive, closed) == said


# -- the page


def page(of: Past, found: Found | None = None, now: float = 1_790_000_100) -> Page:
    return Page(render(of, found or Found(), TARGET, now))


def test_the_page_tells_the_whole_run() -> None:
    manifest = {
        "value": {"rmse": 0.5},
        "outputs": {"t": {"uri": "file:///store/t", "bytes": 1234, "files": [{"size": 1234}]}},
    }
    done = (
        event("a", P.STARTING, 0),
        event("a", P.RUNNING, 1),
        event("a", P.COMMITTING, 2),
        event("a", P.DONE, 3, value={"rmse": 0.5}),
    )
    notes = (Note("a", "image", Fit(Verdict.APPROXIMATED, "a process has no image")),)
    shown = page(
        past(plan(task("a"), notes=notes), *done, params={"scale": 3}, about="All of it."),
        Found({"a": manifest}),
    ).shown
    for part in (
        "succeeded", "All of it.", "1.2 kB", "a.t", "file:///store/t", '{"rmse": 0.5}', "scale",
        "a process has no image", "approximated", "process", "2026-", "3.0 s",
    ):  # fmt: skip
        assert part in shown, part
    assert "portaflow resume" not in shown


def test_a_failed_run_shows_each_attempt_the_end_of_the_log_and_what_to_do_next() -> None:
    found = page(past(HYBRID, *EVENTS), Found(tails={"job": "the last line"}))
    for part in ("the last line", "portaflow resume r1", "exit code 9", "failed, tried again"):
        assert part in found.shown, part
    assert {"href": "https://s/2"} in found.all("a")
    bars = [a for a in found.all("span") if a.get("role") == "img"]
    assert [b["class"] for b in bars] == ["bar cluster", "bar bad", "bar bad"]
    assert re.fullmatch(r"left:0\.0%;width:100\.0%", bars[0]["style"] or "")


def test_the_page_of_a_run_whose_engine_died_says_so() -> None:
    shown = page(past(HYBRID, *EVENTS[:5])).shown
    assert "died" in shown
    assert "portaflow resume r1" in shown
    assert "portaflow resume" not in page(past(HYBRID, *EVENTS[:5]), Found(alive=True)).shown


def test_a_run_in_which_nothing_began_has_a_page() -> None:
    assert "Nothing has started." in page(past(HYBRID)).shown


def test_nothing_that_a_run_says_becomes_markup() -> None:
    planned = plan(
        task(EVIL), task("b", EVIL), notes=(Note(EVIL, EVIL, Fit(Verdict.REFUSED, EVIL)),), run=EVIL
    )
    events = (
        event(EVIL, P.STARTING, 0),
        event(EVIL, P.RUNNING, 1, handle=Handle(name="x", id="x", url=f"https://x/{EVIL}")),
        event(EVIL, P.FAILED, 2, reason=EVIL, exit_code=1),
        event("b", P.STARTING, 2),
        event("b", P.RUNNING, 2, handle=Handle(name="b", id="b", url="javascript://%0aalert(3)")),
        event("b", P.COMMITTING, 2),
        event("b", P.DONE, 3, value={EVIL: EVIL}),
    )
    outputs = {EVIL: {"uri": EVIL, "bytes": 1, "files": [{}]}}
    of = past(plan(task("x")), params={"evil": EVIL}, about=EVIL)
    of = Past(of.journal, planned, list(events), of.project, of.local)
    found = page(of, Found({"b": {"outputs": outputs}}, {EVIL: EVIL}))
    assert not found.all("script")
    assert not found.all("img")
    assert all(not name.startswith("on") for _, attrs in found.elements for name in attrs)
    assert not any("javascript" in (a.get("href") or "") for a in found.all("a"))
    assert found.shown.count("{{ 7*7 }}") > 8
    assert "49&" not in found.shown


def test_the_page_needs_nothing_else() -> None:
    of = past(HYBRID, *EVENTS)
    text_of_page = render(of, Found(), TARGET, 0)
    found = Page(text_of_page)
    policy = next(m["content"] for m in found.all("meta") if "http-equiv" in m)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert not any(found.all(tag) for tag in ("link", "script", "img", "iframe", "object"))
    assert all("src" not in attrs for _, attrs in found.elements)
    style = text_of_page.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_every_task_of_the_graph_leads_to_its_row() -> None:
    found = page(past(HYBRID, *EVENTS))
    rows = {a["id"] for a in found.all("tr") if "id" in a}
    links = [a["href"] for a in found.all("a") if (a.get("href") or "").startswith("#")]
    assert {f"#{row}" for row in rows} == set(links)
    assert len(links) == 2


@pytest.mark.parametrize("count", [3, 41, 200, 700])
def test_any_number_of_tasks_has_a_page(count: int) -> None:
    actions = [task("t0"), *(task(f"t{n}", f"t{n // 3}") for n in range(1, count))]
    found = page(past(plan(*actions)))
    drawn = len([a for a in found.all("rect") if a.get("class") == "body"])
    assert drawn == (count if count <= 600 else 0)
    assert len([a for a in found.all("tr") if "id" in a]) == count


# -- layout


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, frozenset[str]]:
    count = draw(st.integers(1, 25))
    return {
        f"n{i}": frozenset(f"n{j}" for j in draw(st.sets(st.integers(0, i - 1), max_size=3)))
        if i
        else frozenset()
        for i in range(count)
    }


@given(graphs())
def test_no_two_nodes_overlap_and_every_edge_goes_right(graph: dict[str, frozenset[str]]) -> None:
    placed = layout(graph, (100, 30), (40, 10))
    assert placed.nodes.keys() == graph.keys()
    columns: dict[float, list[float]] = {}
    for x, y in placed.nodes.values():
        columns.setdefault(x, []).append(y)
        assert 0 <= x <= placed.width - 100 + 0.1
        assert -0.1 <= y <= placed.height - 30 + 0.1
    for ys in columns.values():
        assert all(b - a >= 39.9 for a, b in pairwise(sorted(ys)))
    for (a, b), path in placed.edges.items():
        assert placed.nodes[a][0] < placed.nodes[b][0]
        assert path.startswith(f"M{placed.nodes[a][0] + 100:.1f} ")
        assert f"{placed.nodes[b][0]:.1f} " in path
    assert len(placed.edges) == sum(map(len, graph.values()))


def test_a_chain_is_level_and_a_diamond_has_its_ends_in_the_middle() -> None:
    chain = layout({"a": frozenset(), "b": frozenset("a"), "c": frozenset("b")}, (10, 10), (5, 5))
    assert len({y for _, y in chain.nodes.values()}) == 1
    sides = {"b": frozenset("a"), "c": frozenset("a"), "d": frozenset("bc")}
    diamond = layout({"a": frozenset(), **sides}, (10, 10), (5, 5)).nodes
    assert diamond["a"][1] == diamond["d"][1] == (diamond["b"][1] + diamond["c"][1]) / 2


# -- numbers


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.6, "1 min 00 s"), (3599.7, "1 h 00 min"),
     (90061, "1 d 01 h")],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert text.duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_500, "100 kB"), (999_600, "1.0 MB"),
     (5e15, "5000 TB")],
)  # fmt: skip
def test_sizes(count: float, said: str) -> None:
    assert text.size(count) == said
