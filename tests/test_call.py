"""Calls of the user's functions: real processes that end with their engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from portaflow_local.folder import FolderFileSystem

from portaflow.backend import LogChunk, State, Status
from portaflow.call import CallDriver
from portaflow.errors import ConflictError, NotFoundError, RunError
from portaflow.load import load
from portaflow.plan import CallSpec, Run
from portaflow.session import Session
from portaflow.state import Phase, RunState
from portaflow.target import load_target

from .world import Background

_FUNCTIONS = """
import os, signal, subprocess, sys, time

def add(x, y=1): return {"sum": x + y}
def nothing(): print("done")
def talk():
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.system("echo from a child")
def fails(): raise LookupError("no such customer")
def interrupted(): raise KeyboardInterrupt
def leaves(code): sys.exit(code)
def no_json(): return {1, 2}
def not_a_number(): return float("nan")
def huge(): return "x" * 300_000
def tells(before=0):
    print("x" * before + os.environ["PORTAFLOW_SECRET_TOKEN"])
    sys.exit("failed for " + os.environ["PORTAFLOW_SECRET_TOKEN"])
def tells_slowly(gate):
    token = os.environ["PORTAFLOW_SECRET_TOKEN"]
    print("it is " + token + ", again " + token[:4], end="", flush=True)
    while not os.path.exists(gate): time.sleep(0.01)
    print(token[4:] + ".")
def noisy(): print("x" * 5_000_000)
def killed(): os.kill(os.getpid(), signal.SIGKILL)
def reads(): return sys.stdin.read() + subprocess.check_output(["cat"], text=True)
def sleeps(ledger):
    with open(ledger, "a") as file: file.write(f"{os.getpid()}\\n")
    time.sleep(float(os.environ.get("SLEEP_FOR", 600)))
def stubborn(ledger):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sleeps(ledger)
def leaves_a_child(ledger):
    child = subprocess.Popen(["sleep", "600"])
    with open(ledger, "a") as file: file.write(f"{child.pid}\\n")
value = 1
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "functions.py").write_text(_FUNCTIONS)
    monkeypatch.chdir(folder)
    return folder


class Calls:
    """A driver of calls in a project, and the calls that a test makes with it."""

    def __init__(self, project: Path) -> None:
        self.home = f"file://{project}/store/p/r"
        self.result = project / "store/p/r/t/_result.json"
        self.fs = FolderFileSystem(root=str(project / "store"))
        self.driver = CallDriver(lambda uri: self.fs, self.home, project)

    def start(self, function: str, grace: int = 10, name: str = "c", **kwargs: Any) -> None:
        spec = CallSpec(
            function=function if ":" in function else f"functions.py:{function}", kwargs=kwargs,
            env={"PORTAFLOW_RESULT": f"{self.home}/t/_result.json"}, grace=grace,
        )  # fmt: skip
        self.driver.start(self.driver.request(name, spec))

    def status(self, name: str = "c") -> Status:
        handle = self.driver.find(name)
        assert handle
        status = self.driver.poll([handle])[name]
        assert isinstance(status, Status)
        return status

    def end(self, name: str = "c") -> Status:
        return until(lambda: s if (s := self.status(name)).state.final else None)

    def run(self, function: str, **kwargs: Any) -> Status:
        self.start(function, **kwargs)
        return self.end()

    def stop(self, name: str = "c") -> None:
        handle = self.driver.find(name)
        assert handle
        self.driver.stop(handle)

    def log(self, name: str = "c") -> str:
        handle = self.driver.find(name)
        assert handle
        return self.driver.logs(handle).data.decode()


def until(look: Callable[[], Any], seconds: float = 40.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return seen


@pytest.fixture
def calls(project: Path) -> Iterator[Calls]:
    made = Calls(project)
    yield made
    for handle in made.driver.owned():
        made.driver.stop(handle)
        made.driver.stop(handle)
        made.end(handle.name)


def pid_in(ledger: Path) -> int:
    return int(until(lambda: ledger.exists() and ledger.read_text()))


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z"
    except FileNotFoundError:
        return True


def test_what_a_function_returns_is_its_value(calls: Calls) -> None:
    assert calls.run("add", x=1, y=2) == Status(state=State.SUCCEEDED, exit_code=0)
    assert calls.result.read_text() == '{"sum": 3}'


def test_a_function_that_returns_nothing_has_no_value(calls: Calls) -> None:
    assert calls.run("nothing").state is State.SUCCEEDED
    assert not calls.result.exists()


def test_what_a_function_and_its_children_print_is_the_log(calls: Calls) -> None:
    calls.run("talk")
    assert calls.log().splitlines() == ["to stdout", "to stderr", "from a child"]


def test_the_log_can_be_read_while_the_function_runs(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "project" / "slow.py").write_text(
        "import time\ndef f():\n    print('begun')\n    time.sleep(600)\n"
    )
    calls.start("slow.py:f")
    until(lambda: calls.log() == "begun\n")


@pytest.mark.parametrize(
    ("function", "kwargs", "code", "said"),
    [
        ("fails", {}, 1, "LookupError: no such customer"),
        ("interrupted", {}, 130, "KeyboardInterrupt"),
        ("leaves", {"code": 42}, 42, ""),
        ("leaves", {"code": "the input is empty"}, 1, "the input is empty"),
        ("killed", {}, 137, ""),
        ("no_json", {}, 1, "not JSON serializable"),
        ("not_a_number", {}, 1, "not JSON compliant"),
        ("add", {}, 1, "missing 1 required positional argument: 'x'"),
        ("missing", {}, 1, "has no attribute 'missing'"),
        ("value", {}, 1, "functions.py:value is no function"),
        ("no_file.py:f", {}, 1, "No such file"),
        ("no_module:f", {}, 1, "No module named 'no_module'"),
    ],
)
def test_a_call_that_fails_says_why(
    calls: Calls, function: str, kwargs: dict[str, Any], code: int, said: str
) -> None:
    status = calls.run(function, **kwargs)
    assert status.state is State.FAILED
    assert status.exit_code == code
    assert status.reason.startswith(f"exit code {code}")
    assert said in status.reason


@pytest.mark.parametrize("code", [0, None])
def test_a_function_may_leave_well(calls: Calls, code: int | None) -> None:
    assert calls.run("leaves", code=code).state is State.SUCCEEDED


def test_a_large_log_is_kept_whole_and_its_end_is_told(calls: Calls, project: Path) -> None:
    calls.run("noisy")
    assert (project / "store/p/r/_calls/c.log").stat().st_size == 5_000_001


def test_a_function_and_its_children_read_nothing(calls: Calls) -> None:
    calls.run("reads")
    assert calls.result.read_text() == '""'


def test_a_large_request_arrives_whole(calls: Calls) -> None:
    assert calls.run("add", x="x" * 200_000, y="y").state is State.SUCCEEDED
    assert len(calls.result.read_text()) > 200_000


def test_a_call_is_made_once_and_known_to_its_engine_alone(calls: Calls, project: Path) -> None:
    calls.run("nothing")
    with pytest.raises(ConflictError):
        calls.start("nothing")
    handle = calls.driver.find("c")
    assert handle
    other = CallDriver(lambda uri: calls.fs, calls.home, project)
    assert other.find("c") is None
    assert isinstance(other.poll([handle])["c"], NotFoundError)
    assert other.logs(handle).data == b"done\n"


def test_a_stop_ends_a_call(calls: Calls, tmp_path: Path) -> None:
    calls.start("sleeps", ledger=str(tmp_path / "pid"))
    pid_in(tmp_path / "pid")
    calls.stop()
    assert calls.end().state is State.STOPPED
    calls.stop()  # silent when it is gone


def test_a_call_that_ignores_a_stop_is_killed_after_its_grace(calls: Calls, tmp_path: Path) -> None:
    calls.start("stubborn", grace=0, ledger=str(tmp_path / "pid"))
    pid = pid_in(tmp_path / "pid")
    calls.stop()
    assert calls.end().state is State.STOPPED
    assert is_gone(pid)


def test_what_a_function_leaves_behind_ends_with_it(calls: Calls, tmp_path: Path) -> None:
    calls.run("leaves_a_child", ledger=str(tmp_path / "pid"))
    until(lambda: is_gone(pid_in(tmp_path / "pid")))


@pytest.mark.parametrize("before", [0, 2**20 - 4])  # the latter on the border of two pieces
def test_a_secret_that_a_function_tells_is_in_neither_its_reason_nor_its_log(
    calls: Calls, project: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setenv("PORTAFLOW_SECRET_TOKEN", "hunter2\nhunter3")
    assert calls.run("tells", before=before).reason.endswith("failed for ***")
    kept = (project / "store/p/r/_calls/c.log").read_text()
    assert kept == "x" * before + "***\nfailed for ***\n"


def test_a_log_with_a_secret_that_is_followed_to_its_end_has_no_gap_or_repeat(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTAFLOW_SECRET_TOKEN", "hunter2 of all")
    calls.start("tells_slowly", gate=str(tmp_path / "gate"))
    handle = calls.driver.find("c")
    assert handle
    chunk = LogChunk(data=b"", cursor="", end=False)
    seen = b""

    def read() -> bytes:
        nonlocal chunk, seen
        chunk = calls.driver.logs(handle, chunk.cursor)
        seen += chunk.data
        return seen

    until(lambda: b"it is ***" in read())
    assert b"hunt" not in seen  # what may be the beginning of a value is not shown yet
    (tmp_path / "gate").touch()
    calls.end()
    until(lambda: read() and chunk.end)
    assert seen == b"it is ***, again ***.\n"


def test_a_log_that_cannot_be_kept_fails_no_call(calls: Calls, project: Path) -> None:
    (project / "store").mkdir()
    (project / "store/p").write_text("in the way")
    assert calls.run("nothing").state is State.SUCCEEDED


# -- through the engine

_PIPELINE = """
from portaflow import CallTask, Pipeline
pipeline = Pipeline(name="p", tasks=(
    CallTask(id="t", function="functions.py:{function}", kwargs={kwargs}),
))
"""


def run(project: Path, function: str, **kwargs: Any) -> RunState:
    (project / "pipeline.py").write_text(_PIPELINE.format(function=function, kwargs=kwargs))
    return Session(load_target()).start(load(project), Run(id="r")).run()


def test_a_value_comes_back_through_the_run(project: Path) -> None:
    assert run(project, "add", x=1)["t"].value == {"sum": 2}


def test_a_value_that_is_too_large_fails_the_task_and_says_what_to_do(project: Path) -> None:
    assert "write large data to an output" in run(project, "huge")["t"].reason


def test_a_traceback_is_the_reason_of_a_failed_task(project: Path) -> None:
    reason = run(project, "fails")["t"].reason
    assert 'raise LookupError("no such customer")' in reason
    assert "functions.py" in reason


_ENGINE = """
import sys
from pathlib import Path
from portaflow.load import load
from portaflow.plan import Run
from portaflow.session import Session
from portaflow.target import load_target
Session(load_target()).start(load(Path(".")), Run(id="r")).run()
"""


@pytest.mark.parametrize("function", ["sleeps", "stubborn"])
def test_a_call_ends_with_its_engine_and_a_resume_makes_it_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    ledger = tmp_path / "pids"
    kwargs = {"ledger": str(ledger)}
    (project / "pipeline.py").write_text(_PIPELINE.format(function=function, kwargs=kwargs))
    engine = subprocess.Popen([sys.executable, "-c", _ENGINE])
    first = pid_in(ledger)
    os.kill(engine.pid, signal.SIGKILL)
    engine.wait()
    until(lambda: is_gone(first))
    monkeypatch.setenv("SLEEP_FOR", "0")
    session = Session(load_target())
    state = session.resume(session.find("p/r")).run()
    assert state.succeeded
    assert state["t"].attempt == 2
    assert len(ledger.read_text().split()) == 2


def test_a_call_ends_when_another_engine_takes_its_run(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "pids"
    kwargs = {"ledger": str(ledger)}
    (project / "pipeline.py").write_text(_PIPELINE.format(function="stubborn", kwargs=kwargs))
    session = Session(load_target())
    running = Background(session.start(load(project), Run(id="r")))
    first = pid_in(ledger)
    # Else its record of that may come between the two things that a takeover does.
    until(lambda: session.past(session.find("p/r")).state["t"].phase is Phase.RUNNING)
    monkeypatch.setenv("SLEEP_FOR", "0")
    other = session.resume(session.find("p/r"), force=True)
    running.end()
    assert isinstance(running.error, RunError)
    until(lambda: is_gone(first))
    assert other.run()["t"].attempt == 2
