"""The pages keep their word: their files are written, their commands are run, in their order.

A fence with a title is a file. In a `console` fence each line that begins with `$ ` is a command,
which ends with 0 unless the line says `# exit code N`. What takes long or needs more than a clean
machine stands in other fences: of those it is only checked that there are such options.

Tables of names and numbers are held against the code they speak of.
"""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from _pytest.config.argparsing import Parser
from portaflow_conformance import pytest_addoption
from portaflow_conformance.known import read_known
from portaflow_conformance.report import EXIT

from portaflow import calls, engine, history, state
from portaflow.backend import ContainerSpec
from portaflow.cli import COMMANDS, cli
from portaflow.load import load
from portaflow.plan import Run
from portaflow.plugins import installed as installed_backends
from portaflow.session import Session
from portaflow.target import load_target
from tests.benchmarks.__main__ import NAMES

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("dags/*/README.md")])
_FENCE = re.compile(
    r'^(?P<indent> *)```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^ *```$',
    re.MULTILINE | re.DOTALL,
)
_SHOWN = re.compile(r"`(portaflow [^`\n]+)`|^(?:\$ |[ ]{4})?(portaflow .+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\((?P<to>[^)#]+)[^)]*\)")


def steps(page: Path) -> Iterator[tuple[str, str]]:
    """("file", path then content) and ("run", command) in the order of the page."""
    for fence in _FENCE.finditer(page.read_text("utf-8")):
        body = re.sub(rf"^{fence['indent']}", "", fence["body"], flags=re.MULTILINE)
        if fence["title"]:
            yield "file", f"{fence['title']}\n{body}"
        elif fence["language"] == "console":
            yield from (("run", line[2:]) for line in body.splitlines() if line.startswith("$ "))


def installed(folder: Path, project: dict[str, Any]) -> None:
    """Leave what `pip install -e .` leaves: pip would fetch a build backend."""
    told = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = project["entry-points"].items()
    lines = (f"[{g}]\n" + "".join(f"{k} = {v}\n" for k, v in e.items()) for g, e in groups)
    (told / "entry_points.txt").write_text("\n".join(lines))


WITH_COMMANDS = [page for page in PAGES if any(kind == "run" for kind, _ in steps(page))]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PORTAFLOW")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    for kind, text in steps(page):
        if kind == "file":
            name, _, content = text.partition("\n")
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, "utf-8")
            if name == "pyproject.toml":
                installed(tmp_path, tomllib.loads(content)["project"])
                env["PYTHONPATH"] = str(tmp_path)
            continue
        expected = int(found[1]) if (found := re.search(r"# exit code (\d)$", text)) else 0
        words = shlex.split(text, comments=True)
        done = subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == expected, f"$ {text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    places = [link["to"] for link in _LINK.finditer(page.read_text("utf-8"))]
    dead = [to for to in places if "://" not in to and not (page.parent / to).exists()]
    assert not dead


def test_there_are_commands_to_test() -> None:
    assert "quickstart.md" in {page.name for page in WITH_COMMANDS}
    assert sum(kind == "run" for page in WITH_COMMANDS for kind, _ in steps(page)) > 15


def test_every_command_is_told_in_the_pages() -> None:
    told = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert not [name for name in COMMANDS if f"portaflow {name}" not in told]


def options(command: click.Command) -> set[str]:
    return {text for p in command.params for text in (*p.opts, *p.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_commands_that_a_page_shows_exist_with_their_options(page: Path) -> None:
    context = click.Context(cli)
    wrong = []
    for found in _SHOWN.finditer(page.read_text("utf-8")):
        shown = found[1] or found[2]
        words = shlex.split(re.sub(r"[][)(\"]", " ", shown), comments=True)[1:]
        words = words[: words.index("--")] if "--" in words else words  # the rest is another's
        command = cli.get_command(context, words[0]) if words[0][0] != "-" else cli
        if command is None:
            wrong.append(shown)
            continue
        if isinstance(command, click.Group) and len(words) > 1:  # `new pipeline`
            command = command.get_command(context, words[1]) or command
        known = options(command) | {"-h", "--help"}
        wrong += [shown for word in words if word[0] == "-" and word not in known]
    assert not wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_data_that_a_page_shows_can_be_read(page: Path) -> None:
    for fence in _FENCE.finditer(page.read_text("utf-8")):
        body = textwrap.dedent(fence["body"])
        if "--8<--" in body:
            continue
        match fence["language"]:
            case "toml":
                tomllib.loads(body)
            case "yaml":
                yaml.safe_load(body)
            case "python":
                compile(body, str(page), "exec")


# -- tables against code


def section(page: str, heading: str = "") -> str:
    text = (ROOT / page).read_text("utf-8")
    return text.partition(f"\n{heading}\n")[2].partition("\n## ")[0] if heading else text


def rows(text: str) -> list[list[str]]:
    """The cells of all tables of a text, without headings and rulers."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line[:1] == "|"]
    rulers = [n for n, cells in enumerate(lines) if set("".join(cells)) <= set("-|")]
    out = {m for n in rulers for m in (n - 1, n)}
    return [[c.strip() for c in cells] for n, cells in enumerate(lines) if n not in out]


def codes(text: str) -> list[str]:
    """What stands between backticks in the first column of the tables of a text."""
    return [code for cells in rows(text) for code in re.findall(r"`([^`]+)`", cells[0])]


def test_architecture_says_what_each_file_of_the_core_is() -> None:
    core = ROOT / "portaflow"
    there = {f.name for f in core.glob("[!_]*.py")}
    there |= {f"{f.name}/" for f in core.iterdir() if f.is_dir() and f.name[0] not in "._"}
    assert sorted(codes(section("docs/architecture.md", "## The files"))) == sorted(there)


def test_performance_has_a_row_for_each_benchmark_and_a_bound() -> None:
    table = rows(section("docs/performance.md"))
    assert {cells[0].strip("`") for cells in table} == set(NAMES)
    assert all(re.match(r"[<>]", cells[3]) for cells in table)


def test_conformance_tells_the_options_that_there_are() -> None:
    parser = Parser(_ispytest=True)
    pytest_addoption(parser)
    group = parser.getgroup("portaflow conformance")
    there = {name for option in group.options for name in option.names()}
    told = {code.split()[0] for code in codes(section("docs/conformance.md"))}
    assert told == there
    shown = re.findall(r"^\$? ?pytest (.+)$", section("docs/conformance.md"), re.MULTILINE)
    assert {w for line in shown for w in line.split() if w[:2] == "--"} <= there


def test_conformance_tells_the_exit_code_of_each_verdict() -> None:
    table = rows(section("docs/conformance.md", "## What the verdict means"))
    assert {cells[0]: int(cells[1]) for cells in table if cells[0] != "(none)"} == EXIT


def test_the_known_failures_that_conformance_shows_are_read(tmp_path: Path) -> None:
    fence = next(_FENCE.finditer(section("docs/conformance.md", "## Known failures")))
    (tmp_path / "known.toml").write_text(fence["body"])
    assert [str(entry) for entry in read_known(tmp_path / "known.toml")] == [
        "store.list_2500[my-store]"
    ]


def test_running_tells_the_engines_numbers() -> None:
    text = " ".join(section("docs/running.md").split())
    waits = [min(0.2 * 2**n, 30) for n in range(calls.TRIES - 1)]
    assert f"{calls.TRIES} times, later and later, for about {sum(waits):.0f} s" in text
    *first, third = (f"{state.LOSS_DELAY * 2**n:g}" for n in range(state.LOSSES))
    told = f"up to {state.LOSSES} more attempts, after {', '.join(first)} and {third} s"
    assert told in text
    *asked, last = (engine.STOP_AGAIN * 2**n for n in range(engine.STOPS))
    grace = ContainerSpec().grace
    told = f"{', '.join(f'{s:g}' for s in asked[:-1])} and {asked[-1]:g} s more"
    assert f"its grace of {grace} s and {told}" in text
    assert f"{grace + last:g} s after that fourth time" in text


def test_running_tells_every_state_of_a_run() -> None:
    source = inspect.getsource(history.standing)
    there = set(re.findall(r'"(\w+)"', source.partition('"""')[2].partition('"""')[2]))
    told = codes(section("docs/running.md", "## The state of a run"))
    assert sorted(told) == sorted(there | {"unreadable"})


def test_targets_tells_every_setting_of_this_machines_backends() -> None:
    part = section("docs/targets.md", "## The backends of this machine")
    offers = [o for o in installed_backends() if o.distribution == "portaflow-local"]
    settings = {
        f.name
        for o in offers
        for f in fields(installed_backends().load(o.spec.kind, o.spec.name).Config)
    }
    told = {(cells[0], cells[1]) for cells in rows(part)}
    assert {name.strip("`") for _, name in told} >= {o.spec.name for o in offers}
    assert {name.strip("`") for name, _ in told if name[0] == "`"} == settings


def test_targets_tells_every_setting_of_kubernetes() -> None:
    backends = installed_backends()
    pods = {f.name for f in fields(backends.load("container", "kubernetes").Config)}
    spark = {f.name for f in fields(backends.load("compute", "spark-kubernetes").Config)}
    told = [cells for cells in rows(section("docs/targets.md", "## Kubernetes")) if len(cells) == 4]
    of = {name: cells[1] for cells in told for name in re.findall(r"`([^`]+)`", cells[0])}
    assert {name for name, whose in of.items() if whose == "both"} == pods
    assert of.keys() == spark


@pytest.mark.parametrize(("cloud", "managed"), [("aws", "eks"), ("gcp", "gke")])
def test_targets_tells_every_setting_of_a_cloud(cloud: str, managed: str) -> None:
    part = section("docs/targets.md", f"## {cloud.upper()}")
    backends = installed_backends()
    mine = [o for o in backends if o.distribution == f"portaflow-{cloud}"]
    offers = [o for o in mine if o.spec.kind != "store"]
    pods = {f.name for f in fields(backends.load("compute", "spark-kubernetes").Config)}
    settings = {
        (f.name, o.spec.name)
        for o in offers
        for f in fields(backends.load(o.spec.kind, o.spec.name).Config)
        if f.name == "connection" or not (o.spec.name.endswith(managed) and f.name in pods)
    }
    names = {o.spec.name for o in offers}
    told = rows(part)
    assert {cells[1].strip("`") for cells in told if len(cells) == 3} == names
    said = {
        (setting, name)
        for cells in told
        if len(cells) == 4
        for setting in re.findall(r"`([^`]+)`", cells[0])
        for name in (names if cells[1] == "all" else re.findall(r"`([^`]+)`", cells[1]))
    }
    assert said == settings
    assert pods - {"kubeconfig", "context", "connection"} <= set(re.findall(r"`(\w+)`", part))


# -- the README


def readme(language: str) -> str:
    found = [f for f in _FENCE.finditer(section("README.md")) if f["language"] == language]
    return found[0]["body"]


def test_the_pipeline_of_the_readme_is_the_example_and_has_20_lines_at_most() -> None:
    text = (ROOT / "docs/examples/hybrid/pipeline.yaml").read_text("utf-8")
    assert readme("yaml") == text
    assert len(text.splitlines()) <= 20


def test_the_targets_of_the_readme_are_this_repositorys_and_both_take_its_pipeline(
    tmp_path: Path,
) -> None:
    (tmp_path / "portaflow.toml").write_text(readme("toml"))
    for name in ("local", "containers"):
        shown = load_target(name, file=tmp_path / "portaflow.toml", environ={})
        ours = load_target(name, file=ROOT / "portaflow.toml", environ={})
        kept = ("store", "compute", "container")
        assert [getattr(shown, k) for k in kept] == [getattr(ours, k) for k in kept]
        planned = Session(shown).plan(load(ROOT / "docs/examples/hybrid"), Run(id="r"))
        assert [a.subject for a in planned.actions if a.kind != "cluster"] == ["count", "top"]
