"""The command line as a whole: its table, its errors, its colours, its speed."""

from __future__ import annotations

import importlib.util
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest

from portaflow.cli import COMMANDS, cli
from tests.cli.conftest import Invoke


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    script = (
        "import sys; from portaflow.cli import cli\n"
        "try: cli(['--help'], prog_name='portaflow')\n"
        "except SystemExit: pass\n"
        "heavy = {'pydantic', 'rich', 'fsspec', 'jinja2', 'pluggy', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_in_the_table_is_there(name: str) -> None:
    module = COMMANDS[name][0].partition(":")[0]
    assert importlib.util.find_spec(f"portaflow.cli.{module}")
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, click.Command)
    assert command.help


def test_an_unknown_command_is_answered_with_the_nearest(invoke: Invoke) -> None:
    assert "did you mean 'validate'?" in invoke("valdate", code=2).output


def test_an_error_goes_to_standard_error_with_its_exit_code(invoke: Invoke) -> None:
    result = invoke("plan", "nowhere", code=2)
    assert result.stdout == ""
    assert result.stderr.startswith("error: nowhere:")


def test_a_message_cannot_steer_the_terminal(invoke: Invoke) -> None:
    assert "\x1b" not in invoke("plan", "\x1b[2Jnowhere", code=2).stderr


def _in_terminal(place: Path, **environ: str) -> bytes:
    """What a terminal receives from a command that fails."""
    reader, writer = pty.openpty()
    env = {**os.environ, "TERM": "xterm", **environ}
    command = [sys.executable, "-m", "portaflow", "plan", "nowhere"]
    subprocess.run(command, cwd=place, env=env, stdout=writer, stderr=writer, timeout=30)
    os.close(writer)
    received = b""
    try:
        while data := os.read(reader, 4096):
            received += data
    except OSError:  # how Linux says that the other side is closed
        pass
    os.close(reader)
    return received


def test_a_terminal_gets_colours_and_none_with_no_color(place: Path) -> None:
    assert b"\x1b[31merror:" in _in_terminal(place)
    assert b"\x1b" not in _in_terminal(place, NO_COLOR="1")


def test_the_shell_completes_commands_targets_runs_and_tasks(place: Path, invoke: Invoke) -> None:
    (place / "portaflow.toml").write_text("[targets.paris]\nextends = 'local'\n")
    invoke("new", "pipeline", "demo")
    invoke("run", "demo", "--run-id", "monday")

    def offered(line: str) -> str:
        words = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
        env = {**os.environ, "_PORTAFLOW_COMPLETE": "bash_complete", **words}
        command = [sys.executable, "-m", "portaflow"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        assert done.stderr == ""
        return done.stdout

    assert "plain,resume" in offered("portaflow re")
    assert "plain,paris" in offered("portaflow run demo -t pa")
    assert "plain,monday" in offered("portaflow resume mo")
    assert "plain,totals" in offered("portaflow logs monday to")


def test_completion_is_silent_when_the_configuration_is_broken(place: Path) -> None:
    (place / "portaflow.toml").write_text("[targets.local\n")
    env = {
        **os.environ, "_PORTAFLOW_COMPLETE": "bash_complete",
        "COMP_WORDS": "portaflow resume x", "COMP_CWORD": "2",
    }  # fmt: skip
    command = [sys.executable, "-m", "portaflow"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(invoke: Invoke, shell: str) -> None:
    assert f"_PORTAFLOW_COMPLETE={shell}_complete" in invoke("completion", shell).stdout


def test_completion_refuses_another_shell(invoke: Invoke) -> None:
    assert "fish" in invoke("completion", "csh", code=2).output
