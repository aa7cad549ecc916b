"""Commands of other distributions: found without an import, and harmless when broken."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

WELL = """
import click

@click.command()
@click.argument("word")
def hello(word):
    "Say a word."
    from portaflow.errors import TargetError
    if word == "wrong":
        raise TargetError("no such word; say another")
    click.echo(f"hello {word}")
"""
BROKEN: dict[str, tuple[str | None, str]] = {
    "import-error": ("raise ImportError('libcloud.so.3 is missing')", "libcloud.so.3 is missing"),
    "syntax-error": ("def f(:", "SyntaxError"),
    "exits": ("import sys; sys.exit(7)", "SystemExit: 7"),
    "no-module": (None, "No module named 'no_module'"),
    "no-object": ("", "has no attribute 'hello'"),
    "no-command": ("def hello(): 1", "is no click.Command"),
}

Portaflow = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def portaflow(tmp_path: Path) -> Portaflow:
    """Run the command line with `site` on the path."""

    def run(*args: str, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "site"), **environ}
        command = [sys.executable, "-m", "portaflow", *args]
        return subprocess.run(
            command, cwd=tmp_path, env=env, timeout=60, capture_output=True, text=True
        )

    return run


def announced(name: str) -> str:
    return f"[console_scripts]\nx = y:z\n\n[portaflow.commands]\n{name} = {name.replace('-', '_')}"


@pytest.fixture
def all_of_them(tmp_path: Path, install: Callable[..., Path]) -> None:
    install(tmp_path / "site", "greeting", WELL, f"{announced('greeting')}:hello\n")
    for name, (module, _) in BROKEN.items():
        install(tmp_path / "site", name, module, f"{announced(name)}:hello\n")


@pytest.mark.usefixtures("all_of_them")
def test_help_lists_all_and_imports_none(portaflow: Portaflow) -> None:
    helped = portaflow("--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    for name in ("greeting", *BROKEN):
        assert f"  {name} " in helped.stdout
        assert f"Of {name}." in helped.stdout


@pytest.mark.usefixtures("all_of_them")
def test_a_command_runs_and_its_errors_are_told_like_ours(portaflow: Portaflow) -> None:
    assert portaflow("greeting", "you").stdout == "hello you\n"
    wrong = portaflow("greeting", "wrong")
    assert (wrong.returncode, wrong.stderr) == (2, "error: no such word; say another\n")
    assert portaflow("greeting", "--help").stdout.startswith("Usage: portaflow greeting")


@pytest.mark.usefixtures("all_of_them")
@pytest.mark.parametrize("name", BROKEN)
def test_who_calls_a_broken_one_is_told(portaflow: Portaflow, name: str) -> None:
    done = portaflow(name)
    assert done.returncode == 2
    assert f"command {name!r} of {name}" in done.stderr
    assert BROKEN[name][1] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("all_of_them")
def test_the_other_commands_work_beside_broken_ones(portaflow: Portaflow) -> None:
    assert portaflow("config").returncode == 0
    assert "did you mean 'greeting'?" in portaflow("greetin").stderr
    words = {"COMP_WORDS": "portaflow gree", "COMP_CWORD": "1"}
    offered = portaflow(_PORTAFLOW_COMPLETE="bash_complete", **words)
    assert "plain,greeting" in offered.stdout


def test_a_name_that_two_claim_is_refused_and_none_of_ours_can_be_taken(
    tmp_path: Path, install: Callable[..., Path], portaflow: Portaflow
) -> None:
    site = tmp_path / "site"
    install(site, "one", WELL, "[portaflow.commands]\ngreeting = one:hello\nplan = one:hello\n")
    install(site, "two", WELL, "[portaflow.commands]\ngreeting = two:hello\n")
    done = portaflow("greeting", "you")
    assert done.returncode == 2
    assert "is offered by one and two" in done.stderr
    assert "hello" not in portaflow("plan", "you").stdout


def test_of_two_versions_the_first_on_the_path_counts(
    tmp_path: Path, install: Callable[..., Path], portaflow: Portaflow
) -> None:
    install(tmp_path / "site", "greeting", WELL, f"{announced('greeting')}:hello\n")
    install(tmp_path / "old", "greeting", "1 / 0", f"{announced('greeting')}:hello\n")
    done = portaflow("greeting", "you", PYTHONPATH=f"{tmp_path}/site:{tmp_path}/old")
    assert done.stdout == "hello you\n"
