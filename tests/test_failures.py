"""What fails is stopped, said and made good by a resume: real processes, through the CLI."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from portaflow import calls, plugins, state
from portaflow.backend import Driver
from portaflow.cli import cli
from portaflow.session import Session
from portaflow.state import Phase, RunState
from portaflow.target import load_target

from .kill.runner import KINDS

_PLUGIN = Path(__file__).parent / "kill"
_PIPELINE = """
from portaflow import Cluster, ContainerTask, Pipeline, SparkTask

def spark(id, **rest):
    args = (id, "{{ params.ledger }}", "{{ outputs.out }}")
    return SparkTask(id=id, cluster="spark", main="task.sh", args=args, outputs=("out",), **rest)

pipeline = Pipeline(
    name="p", params={"ledger": "", "script": ""}, clusters=(Cluster(name="spark"),), tasks=(
        spark("features"),
        ContainerTask(
            id="train", image="x", inputs={"rows": "features.out"}, outputs=("out",),
            command=("sh", "{{ params.script }}"), timeout=TIMEOUT,
            args=("train", "{{ params.ledger }}", "{{ outputs.out }}"),
        ),
        spark("recommend", inputs={"model": "train.out"}),
    ),
)
"""
_GOOD = (_PLUGIN / "pipeline" / "task.sh").read_text()


class Project:
    """A project with a hybrid pipeline whose container does what a test says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.store = folder / "disk" / "store"
        self.disk = folder / "disk"
        self.disk.mkdir()
        (folder / "task.sh").write_text(_GOOD)
        self.write()
        plugin = folder / "installed" / "light-1.dist-info"
        plugin.mkdir(parents=True)
        (plugin / "METADATA").write_text("Metadata-Version: 2.1\nName: light\nVersion: 1\n")
        (plugin / "entry_points.txt").write_text("[portaflow]\nlight = light\n")

    def write(self, timeout: float = 600.0) -> None:
        (self.folder / "pipeline.py").write_text(_PIPELINE.replace("TIMEOUT", str(timeout)))
        (self.folder / "portaflow.toml").write_text(
            "[targets.local]\n"
            'store = {backend = "moody", root = "disk/store"}\n'
            'compute = {backend = "light", root = "light"}\n'
            "tasks.train.overrides.grace = 1\n"
        )

    def train(self, script: str) -> None:
        (self.folder / "train.sh").write_text(script)

    @property
    def run_args(self) -> list[str]:
        params = {"ledger": self.ledger, "script": self.folder / "train.sh"}
        given = [f"{key}={value}" for key, value in params.items()]
        return ["run", ".", "--run-id", "r", *(a for p in given for a in ("-p", p))]

    def run(self) -> Result:
        return CliRunner().invoke(cli, self.run_args)

    def resume(self, *options: str) -> Result:
        return CliRunner().invoke(cli, ["resume", "r", *options])

    def background(self) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(self.folder / "installed"), str(_PLUGIN)])
        return subprocess.Popen(
            [sys.executable, "-m", "portaflow", *self.run_args],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def begun(self) -> list[str]:
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return [line.removesuffix(" begins") for line in lines if line.endswith(" begins")]

    def state(self) -> RunState:
        session = opened()
        return session.recorded(session.find("p/r")).state

    def drivers(self) -> list[Driver[Any]]:
        return [opened().backends.driver(kind) for kind in KINDS]

    def alive(self) -> list[str]:
        return [handle.name for driver in self.drivers() for handle in driver.owned()]

    def stop_all(self) -> None:
        for driver in self.drivers():
            for handle in list(driver.owned()):
                driver.stop(handle)

    def assert_nothing_is_left(self) -> None:
        until(lambda: not self.alive())


def opened() -> Session:
    return Session(load_target(file=Path("portaflow.toml")))


def until(look: Callable[[], object], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    monkeypatch.chdir(tmp_path)
    made = Project(tmp_path)
    monkeypatch.syspath_prepend(str(_PLUGIN))
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    monkeypatch.setattr(calls, "TRIES", 2)
    monkeypatch.setattr(state, "LOSS_DELAY", 0.01)
    plugins.installed.cache_clear()
    yield made
    made.stop_all()  # what a test that fails leaves
    plugins.installed.cache_clear()


_SAYS = 'echo "$1 begins" >>"$2"; for i in 1 2 3 4 5 6 7 8 9; do echo "line $i"; done; '
_FAILURES = {
    "fails": (_SAYS + "echo 'the model diverges' >&2; exit 3", ["exit code 3"]),
    "hangs": (_SAYS + "echo 'the model diverges'; sleep 600", ["timed out after 1 s"]),
    "ignores SIGTERM": (
        "trap '' TERM; " + _SAYS + "echo 'the model diverges'; while :; do sleep 0.05; done",
        ["timed out after 1 s"],
    ),
    "is killed": (_SAYS + "echo 'the model diverges'; kill -KILL $$", ["SIGKILL"]),
    "fills its disk": (
        _SAYS + "echo 'the model diverges'; cat $0 >/dev/full", ["exit code", "No space left"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", _FAILURES)
def test_a_task_that_fails_is_told_with_its_log_and_the_cluster_is_stopped(
    project: Project, how: str
) -> None:
    script, causes = _FAILURES[how]
    project.train(script)
    project.write(timeout=1.0 if "timed" in causes[0] else 600.0)
    result = project.run()
    assert result.exit_code == 1, result.output
    for said in ("train", "the model diverges", "line 9", *causes):
        assert said in result.output
    assert "line 1\n" not in result.output
    state = project.state()
    assert state["recommend"].phase is Phase.SKIPPED
    assert state["stop/spark"].phase is Phase.DONE
    project.assert_nothing_is_left()

    project.train(_GOOD)
    project.write()
    result = project.resume()
    assert result.exit_code == 0, result.output
    assert project.begun() == ["features", "train", "train", "recommend"]
    assert project.state()["train"].attempt == 2
    project.assert_nothing_is_left()


def test_an_output_that_is_missing_fails_the_task_by_name(project: Project) -> None:
    project.train("exit 0")
    result = project.run()
    assert result.exit_code == 1
    assert "output 'out' is missing" in result.output
    project.assert_nothing_is_left()
    project.train(_GOOD)
    assert project.resume().exit_code == 0
    assert project.begun() == ["features", "train", "recommend"]


@pytest.mark.parametrize(("mood", "said"), [("full", "is full"), ("refuses", "refuses")])
def test_a_store_that_takes_no_journal_ends_the_run_and_stops_all(
    project: Project, mood: str, said: str
) -> None:
    mark = Path(f"{project.store}.{mood}")
    project.train(f"{_GOOD}\necho _journal >{mark}")
    result = project.run()
    assert result.exit_code == 1
    assert said in result.output
    assert "portaflow resume" in result.output
    project.assert_nothing_is_left()
    assert project.resume().exit_code == 1

    mark.unlink()
    result = project.resume()
    assert result.exit_code == 0, result.output
    assert project.begun() == ["features", "train", "recommend"]  # it had ended well
    project.assert_nothing_is_left()


@pytest.mark.parametrize(("mood", "said"), [("full", "is full"), ("refuses", "refuses")])
def test_a_store_that_takes_no_commit_fails_the_task_which_runs_once_all_the_same(
    project: Project, mood: str, said: str
) -> None:
    mark = Path(f"{project.store}.{mood}")
    project.train(f"{_GOOD}\necho train/_manifest >{mark}")
    result = project.run()
    assert result.exit_code == 1
    assert said in result.output
    assert project.begun() == ["features", "train"]
    assert project.state()["stop/spark"].phase is Phase.DONE
    project.assert_nothing_is_left()

    assert project.resume().exit_code == 1  # not yet
    mark.unlink()
    result = project.resume()
    assert result.exit_code == 0, result.output
    assert project.begun() == ["features", "train", "recommend"]
    project.assert_nothing_is_left()


@pytest.fixture
def small_disk(project: Project) -> Iterator[Path]:
    """A real file system of half a mebibyte under the store."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(project.disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
    yield project.disk
    subprocess.run(["umount", str(project.disk)], check=True)


def test_a_disk_that_is_really_full_ends_the_run_and_stops_all(
    project: Project, small_disk: Path
) -> None:
    project.train(f'{_GOOD}\ncat /dev/zero >"{small_disk}/ballast"\nexit 0')
    result = project.run()
    assert result.exit_code == 1
    assert "the store is full" in result.output
    project.assert_nothing_is_left()
    (small_disk / "ballast").unlink()
    project.train(_GOOD)
    result = project.resume("--force")  # the lease could not be closed, and this process lives
    assert result.exit_code == 0, result.output
    project.assert_nothing_is_left()


def test_a_disk_that_becomes_read_only_ends_the_run_and_stops_all(
    project: Project, small_disk: Path
) -> None:
    project.train(f'{_GOOD}\nmount -o remount,ro "{small_disk}"')
    result = project.run()
    assert result.exit_code == 1
    assert "the store refuses" in result.output
    project.assert_nothing_is_left()
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    result = project.resume("--force")  # as above
    assert result.exit_code == 0, result.output
    project.assert_nothing_is_left()


def test_a_second_engine_is_refused_and_a_stop_from_elsewhere_is_heard(project: Project) -> None:
    project.train(_SAYS + "sleep 600")
    with project.background() as engine:
        until(lambda: project.begun() == ["features", "train"])
        until(lambda: project.state()["train"].phase is Phase.RUNNING)
        second = project.resume()
        assert second.exit_code == 1
        assert f"(process {engine.pid})" in second.output
        stopped = CliRunner().invoke(cli, ["stop"])
        assert stopped.exit_code == 0, stopped.output
        assert engine.wait(40) == 1
    assert project.state()["train"].phase is Phase.STOPPED
    project.assert_nothing_is_left()
    project.train(_GOOD)
    assert project.resume().exit_code == 0


def test_a_stop_of_a_run_whose_engine_was_killed_stops_all(project: Project) -> None:
    project.train(_SAYS + "sleep 600")
    with project.background() as engine:
        until(lambda: project.begun() == ["features", "train"])
        engine.kill()
    assert len(project.alive()) == 2
    stopped = CliRunner().invoke(cli, ["stop", "r"])
    assert stopped.exit_code == 0, stopped.output
    assert project.alive() == []
