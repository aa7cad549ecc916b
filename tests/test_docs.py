"""The pages keep their word: their files are written, their commands are run, in their order.

A fence with a title is a file. In a `console` fence each line that begins with `$ ` is a command,
which ends with 0 unless the line says `# exit code N`.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("dags/*/README.md")])
_FENCE = re.compile(
    r'^(?P<indent> *)```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^ *```$',
    re.MULTILINE | re.DOTALL,
)
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
    from portaflow.cli import COMMANDS

    told = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert not [name for name in COMMANDS if f"portaflow {name}" not in told]
