"""Environments from requirements: built once however many ask, and told when they fail."""

from __future__ import annotations

import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from portaflow_local import environment
from portaflow_local.process import Config, ContainerDriver, Processes

from portaflow.backend import Cause, ContainerSpec, Handle, State, Status


def wheel(folder: Path, name: str) -> Path:
    """A package to install, made here: tests ask no index."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    members = {
        f"{name}.py": "value = 42\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(member, text)
    return path


@pytest.fixture
def context(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "train.py").write_text("import of_test; print('value', of_test.value)\n")
    (folder / "requirements.txt").write_text(f"{wheel(tmp_path, 'of_test')}\n")
    return folder


@pytest.fixture
def driver(tmp_path: Path) -> ContainerDriver:
    return Processes(Config(root=tmp_path / "root", cache=str(tmp_path / "cache"))).containers


def start(driver: ContainerDriver, name: str, context: Path, *command: str) -> Handle:
    spec = ContainerSpec(image="i", context=str(context), command=command, ttl=300, grace=1)
    return driver.start(driver.request(name, spec))


def wait(driver: ContainerDriver, handle: Handle) -> tuple[Status, set[State]]:
    seen: set[State] = set()
    deadline = time.monotonic() + 120
    while True:
        status = driver.poll([handle])[handle.name]
        assert isinstance(status, Status)
        if status.state.final:
            return status, seen
        seen.add(status.state)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_environment_is_built_once_however_many_ask_and_used_again(
    driver: ContainerDriver, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    handles = [start(driver, f"pf-{n}", context, "python", "train.py") for n in range(3)]
    ends = [wait(driver, h) for h in handles]
    assert [end.state for end, _ in ends] == [State.SUCCEEDED] * 3, ends
    assert State.PENDING in ends[0][1]
    logs = [driver.logs(h).data.decode() for h in handles]
    assert all("value 42" in log for log in logs)
    assert sum("building an environment" in log for log in logs) == 1

    show = "import os, sys; print(sys.prefix, sorted(k for k in os.environ if 'PIP_' in k))"
    later = start(driver, "pf-later", context, "python", "-c", show)
    end, seen = wait(driver, later)
    assert end.state is State.SUCCEEDED
    assert State.PENDING not in seen or "building" not in driver.logs(later).data.decode()
    text = driver.logs(later).data.decode()
    assert "environments" in text
    assert text.rstrip().endswith("[]")  # what pip needs is not the command's

    missing = start(driver, "pf-missing", context, "no-such-program")
    assert wait(driver, missing)[0].exit_code == 127


def test_a_build_that_fails_is_the_users_and_told_with_pips_words(
    driver: ContainerDriver, context: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (context / "requirements.txt").write_text("no-such-distribution-of-ours==1\n")
    end, _ = wait(driver, start(driver, "pf-x", context, "python", "train.py"))
    assert (end.state, end.cause) == (State.FAILED, Cause.USER)
    assert "environment could not be built" in end.reason
    assert "requirements.txt" in end.reason
    assert "no-such-distribution-of-ours" in driver.logs(Handle(name="pf-x", id="")).data.decode()


def test_a_build_can_be_stopped_and_the_next_one_starts_anew(
    driver: ContainerDriver, context: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    handle = start(driver, "pf-x", context, "python", "train.py")
    lock = tmp_path / "cache" / "environments"
    deadline = time.monotonic() + 60
    while not any(lock.glob("*/pyvenv.cfg")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    driver.stop(handle)
    assert wait(driver, handle)[0].state is State.STOPPED
    assert not any(lock.glob("*/.ready"))
    again = start(driver, "pf-y", context, "python", "train.py")
    assert wait(driver, again)[0].state is State.SUCCEEDED


def test_an_image_without_requirements_runs_where_portaflow_is_installed(
    driver: ContainerDriver, context: Path
) -> None:
    (context / "requirements.txt").write_text("\n")
    (context / "show.py").write_text("import sys; print(sys.prefix)\n")
    handle = start(driver, "pf-x", context, "python", "show.py")
    assert wait(driver, handle)[0].state is State.SUCCEEDED
    assert driver.logs(handle).data.decode().strip() == sys.prefix


def test_what_the_folder_of_an_image_holds_is_where_the_command_runs(
    driver: ContainerDriver, context: Path
) -> None:
    (context / "requirements.txt").unlink()
    handle = start(driver, "pf-x", context, "sh", "-c", "ls; echo changed > train.py")
    assert wait(driver, handle)[0].state is State.SUCCEEDED
    assert driver.logs(handle).data == b"train.py\n"
    assert "of_test" in (context / "train.py").read_text()  # the image itself did not change


def test_an_environment_is_another_when_the_requirements_are(context: Path, tmp_path: Path) -> None:
    first, words = environment.prepare(context, tmp_path)
    assert words
    (context / "requirements.txt").write_text("other\n")
    second, _ = environment.prepare(context, tmp_path)
    assert first != second
    assert first.is_relative_to(tmp_path)


def test_the_cache_is_where_it_is_configured_or_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("HOME", "/home/me")
    assert environment.cache_folder() == Path("/x/portaflow")
    assert environment.cache_folder("~/mine") == Path("/home/me/mine")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert environment.cache_folder() == Path("/home/me/.cache/portaflow")


def test_a_program_in_an_environment_minds_a_closed_pipe(
    driver: ContainerDriver, context: Path, tmp_path: Path
) -> None:
    """Python ignores SIGPIPE; a command that it becomes must not inherit that."""
    (context / "requirements.txt").write_text("# nothing\n")
    cache = tmp_path / "cache"
    python, words = environment.prepare(context, cache)
    python.parent.mkdir(parents=True)
    (python.parent.parent / ".ready").touch()
    (tmp_path / "work").mkdir()
    command = [*words, "grep", "SigIgn", "/proc/self/status"]
    done = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True)
    assert int(done.stdout.split()[1], 16) & 1 << 12 == 0
