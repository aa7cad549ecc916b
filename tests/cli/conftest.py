"""What the tests of the command line share: a folder to be in, and tiny pipelines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from portaflow.cli import cli

Invoke = Callable[..., Result]

HEAD = """
from portaflow import *

def sh(id, script, **more):
    return ContainerTask(id=id, image="any", command=["sh", "-c", script], **more)

def path(uri):
    return "'{{ " + uri + ".removeprefix('file://') }}'"

def gives(value):
    file = path("result")
    return f"mkdir -p $(dirname {file}); cat > {file} <<'END'\\n{value}\\nEND"
"""


BAD = (
    "tasks=[sh('good', 'true'), sh('bad', 'echo one; echo ValueError: no good >&2; exit 7',"
    " after=['good']), sh('never', 'true', after=['bad'])]"
)
LONG = (
    "tasks=[sh('first', 'touch started; sleep 300'), sh('second', 'sleep 300 & wait'),"
    " sh('never', 'true', after=['first'])]"
)

ABC = """tasks=(
    sh("a", "printf 'one\\ntwo'; o=${PORTAFLOW_OUTPUT_O#file://}; mkdir -p $o; echo 1 > $o/x.csv",
       outputs=("o",)),
    sh("b", "echo going wrong >&2; exit 3", after=("a",)),
    sh("c", "true", after=("b",)),
)"""


def shown(invoke: Invoke, *words: str) -> Any:
    return json.loads(invoke(*words, "--json").stdout)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a portaflow.toml of its own, in which the test is."""
    (tmp_path / "portaflow.toml").write_text("[targets.local]\nmax_parallel = 4\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


@pytest.fixture
def invoke(place: Path) -> Invoke:
    """Run a command in this process; what no error of ours explains is raised."""

    def call(*words: str, code: int | None = 0) -> Result:
        result = CliRunner().invoke(cli, words, prog_name="portaflow")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        if code is not None:
            assert result.exit_code == code, result.output
        return result

    return call


@pytest.fixture
def write(place: Path) -> Callable[[str, str], Path]:
    """Write a pipeline: its name, and the arguments of Pipeline(...) after it."""

    def make(name: str, body: str) -> Path:
        folder = place / name
        folder.mkdir()
        (folder / "pipeline.py").write_text(f"{HEAD}\npipeline = Pipeline(name={name!r}, {body})\n")
        return folder

    return make


class Started:
    """A `portaflow` in a process of its own, as a shell would start it. `log`: a file for all
    that it says on standard error."""

    def __init__(self, words: tuple[str, ...], log: Path | None = None, **more: Any) -> None:
        command = [sys.executable, "-m", "portaflow", *words]
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        with (log or Path(os.devnull)).open("w") as file:
            if log:
                streams["stderr"] = file
            self.child = subprocess.Popen(command, text=True, start_new_session=True, **streams)

    def ended(self) -> tuple[int, str, str]:
        """Wait for the end; exit code, standard output, standard error."""
        out, err = self.child.communicate(timeout=60)
        return self.child.returncode, out or "", err or ""


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Started]]:
    started: list[Started] = []

    def make(*words: str, **more: Any) -> Started:
        started.append(Started(words, **more))
        return started[-1]

    yield make
    for one in started:
        if one.child.poll() is None:
            one.child.kill()
        one.child.communicate()
    for pid in processes_below(place):  # of a test that failed
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(found: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Look again and again until `found` returns something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def processes_below(folder: Path) -> list[int]:
    """The processes that work in `folder`."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if Path(os.readlink(link)).is_relative_to(folder / ".portaflow"):
                found.append(int(link.parent.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def wait_for_work(place: Path, count: int = 2) -> None:
    until(lambda: len(processes_below(place)) >= count, "the tasks run")
    until(lambda: list(place.rglob("started")), "the first task is at work")
