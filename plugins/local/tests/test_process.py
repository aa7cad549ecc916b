"""Containers as processes: real processes, real signals, and real deaths of who started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from portaflow_local.process import Config, ContainerDriver, Processes

from portaflow.backend import (
    Cause,
    ContainerSpec,
    Handle,
    LogChunk,
    Size,
    State,
    Verdict,
)
from portaflow.errors import ConflictError, DeniedError, NotFoundError, RejectedError

from .driven import Driven, kill_hard

Until = Callable[..., Any]
SECRET = "correct horse battery staple"

STARTER = """
import json, sys
from pathlib import Path
from portaflow.backend import ContainerSpec
from portaflow_local.process import Config, Processes
root, name, spec = sys.argv[1:]
driver = Processes(Config(root=Path(root), cache=root)).containers
sys.stdin.readline()
driver.start(driver.request(name, ContainerSpec(**json.loads(spec))))
print("started", flush=True)
sys.stdin.read()
"""


class Field(Driven):
    """A driver in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.driver = self.new_driver()

    def new_driver(self) -> ContainerDriver:
        return Processes(Config(root=self.root, cache=str(self.root / "cache"))).containers

    def start(self, *command: str, name: str = "", **more: Any) -> Handle:
        spec = ContainerSpec(**{"owner": "me", "ttl": 60, "grace": 1, "command": command, **more})
        name = name or f"pf-{len(list(self.root.glob('containers/*')))}"
        return self.driver.start(self.driver.request(name, spec))

    def starter(self, name: str, **spec: Any) -> subprocess.Popen[str]:
        """Another process that starts a container when told to `go`, and stays."""
        return subprocess.Popen(
            [sys.executable, "-c", STARTER, str(self.root), name, json.dumps(spec)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def inside(self) -> list[int]:
        """The processes whose working folder is below the root: all but what escapes on purpose."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                folder = (process / "cwd").readlink()
            except OSError:
                continue
            if folder.is_relative_to(self.root):
                found.append(int(process.name))
        return found


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def has_started(process: subprocess.Popen[str]) -> bool:
    assert process.stdout
    return process.stdout.readline() == "started\n"


@pytest.fixture
def field(tmp_path: Path, until: Until) -> Iterator[Field]:
    field = Field(tmp_path / "root")
    yield field
    for handle in field.driver.owned():
        field.driver.stop(handle)
    until(lambda: not field.inside())  # no process is left behind, whatever the test did


# -- what runs


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of half a mebibyte."""
    (folder := tmp_path / "disk").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("code", [0, 1, 42, 126, 127, 255])
def test_exit_codes_are_told(field: Field, code: int) -> None:
    end = field.wait(field.start("sh", "-c", f"exit {code}"))
    assert end.exit_code == code
    assert end.state is (State.FAILED if code else State.SUCCEEDED)
    assert end.cause is (Cause.USER if code else None)


def test_death_by_a_signal_is_128_and_its_number_with_its_name(field: Field) -> None:
    end = field.wait(field.start("sh", "-c", "kill -SEGV $$"))
    assert (end.state, end.exit_code) == (State.FAILED, 139)
    assert "SIGSEGV" in end.reason
    end = field.wait(field.start("sh", "-c", "kill -KILL $$"))
    assert end.reason == "exit code 137 (SIGKILL): killed from outside, perhaps as memory ran out"


def test_a_failure_tells_the_last_lines_of_the_log(field: Field) -> None:
    end = field.wait(field.start("sh", "-c", "seq 100; echo the cause >&2; exit 3"))
    assert end.reason.splitlines() == ["exit code 3", "97", "98", "99", "100", "the cause"]


def test_a_failure_on_a_full_disk_says_so(field: Field, small_disk: Path, until: Until) -> None:
    field.root, field.driver = small_disk, Field(small_disk).driver
    end = field.wait(field.start("sh", "-c", "cat /dev/zero >ballast; exit 3"))
    assert end.reason.startswith("exit code 3")
    assert end.reason.endswith(f"the disk that holds {small_disk} is full")
    until(lambda: not field.inside())  # nobody keeps the disk busy


def test_a_command_that_is_not_there_or_is_no_program_ends_like_in_a_shell(field: Field) -> None:
    assert field.wait(field.start("/no/such")).exit_code == 127
    assert field.wait(field.start("/etc/passwd")).exit_code == 126


def test_arguments_arrive_verbatim(field: Field) -> None:
    args = ("a b", "", "\"q'", "x\ny", "é✓", "$HOME $(id) `id`", "%s", "}}", "-n", "*", "\\")
    program = "import sys; sys.stdout.buffer.write(repr(sys.argv[1:]).encode())"
    data = field.output(sys.executable, "-c", program, args=args)
    assert data.decode() == repr(list(args))


def test_environment_arrives_verbatim_and_not_the_parents(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_PARENT", "yes")
    env = {"A": "$X $(X) ${X}", "EMPTY": "", "LINES": "a\nb", "U": "é✓", "EQ": "a=b"}
    program = "import os, json; print(json.dumps(dict(os.environ)))"
    seen = json.loads(field.output(sys.executable, "-c", program, env=env))
    assert {key: seen.get(key) for key in env} == env
    assert set(seen) - set(env) <= {"PATH", "HOME", "LANG", "LC_CTYPE"}


def test_a_command_named_like_a_builtin_is_the_program(field: Field) -> None:
    assert field.output("printf", "%s", args=("-x",)) == b"-x"
    assert field.wait(field.start("exit", args=("5",))).exit_code == 127


def test_signals_are_as_a_program_expects_them(field: Field) -> None:
    program = "import signal; print(open('/proc/self/status').read())"
    status = field.output(sys.executable, "-S", "-c", program).decode()
    ignored = int(next(x.split()[1] for x in status.splitlines() if x.startswith("SigIgn")), 16)
    blocked = int(next(x.split()[1] for x in status.splitlines() if x.startswith("SigBlk")), 16)
    own = 1 << (signal.SIGPIPE - 1) | 1 << (signal.SIGXFSZ - 1)  # of Python itself
    background = 1 << (signal.SIGINT - 1) | 1 << (signal.SIGQUIT - 1)  # as a shell's `&` has it
    assert ignored & (2**31 - 1) & ~own & ~background == 0
    assert blocked == 0


def test_nothing_of_portaflows_files_is_open_in_the_command(field: Field) -> None:
    listing = field.output("sh", "-c", "ls -l /proc/$$/fd").decode()
    assert "lock" not in listing
    assert listing.count("->") <= 4


def test_what_cannot_be_said_to_the_system_is_rejected(field: Field) -> None:
    with pytest.raises(RejectedError, match="NUL"):
        field.start("echo", args=("a\0b",), name="nul")
    with pytest.raises(RejectedError, match="too large"):
        field.start("echo", args=("x" * 2**22,), name="large")
    assert field.driver.find("nul") is None
    assert field.driver.find("large") is None


def test_a_process_without_a_command_or_with_a_size_is_told_when_planning(field: Field) -> None:
    with pytest.raises(RejectedError, match="command"):
        field.driver.request("x", ContainerSpec(image="some/image:1"))
    fit = field.driver.fit(ContainerSpec(image="i", size=Size(cpu=4)))
    assert {name: f.verdict for name, f in fit.items()} == {
        "image": Verdict.APPROXIMATED,
        "size": Verdict.APPROXIMATED,
    }


# -- secrets


def test_a_secret_is_delivered_and_kept_out_of_all_but_the_environment(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTAFLOW_SECRET_DB_PASSWORD", SECRET)
    script = 'printf "it is $PW"; test ${#PW} = 28 && exit 3'
    handle = field.start("sh", "-c", script, secrets={"PW": "db-password"})
    end = field.wait(handle)
    assert end.exit_code == 3
    assert SECRET not in end.reason
    assert field.log(handle) == b"it is ***"
    for file in (field.root / "containers" / handle.name).glob("*"):
        if file.is_file() and file.name != "log":  # what a task itself prints is in its log
            assert SECRET.encode() not in file.read_bytes(), file


def test_a_secret_that_is_missing_is_denied_and_starts_nothing(field: Field) -> None:
    with pytest.raises(DeniedError, match="PORTAFLOW_SECRET_NOT_THERE"):
        field.start("true", secrets={"PW": "not-there"}, name="denied")
    assert field.driver.find("denied") is None


# -- stop and time-to-live


def test_stop_is_polite_first(field: Field, until: Until) -> None:
    script = "trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    handle = field.start("sh", "-c", script, grace=30)
    until(lambda: b"ready" in field.driver.logs(handle).data)
    field.driver.stop(handle)
    end = field.wait(handle)
    assert (end.state, end.exit_code) == (State.STOPPED, 7)
    assert (end.reason.splitlines()[0], end.reason[-3:]) == ("it was asked to stop", "bye")
    assert b"bye" in field.log(handle)


def test_what_ignores_a_stop_is_killed_after_the_grace_with_all_it_started(
    field: Field, until: Until
) -> None:
    handle = field.start("sh", "-c", "trap '' TERM; sleep 50 & echo ready; sleep 50", grace=1)
    until(lambda: b"ready" in field.driver.logs(handle).data)
    began = time.monotonic()
    field.driver.stop(handle)
    assert time.monotonic() - began < 0.5
    assert field.status(handle).state is State.RUNNING
    field.driver.stop(handle)
    assert field.wait(handle).state is State.STOPPED
    assert 0.9 < time.monotonic() - began < 5


def test_stop_right_after_the_start_stops_in_whatever_phase_it_comes(field: Field) -> None:
    for number in range(30):
        handle = field.start("sleep", "50", name=f"early-{number}", grace=5)
        time.sleep(number * 0.0002)  # moves the stop through the phases; not a wait for any
        field.driver.stop(handle)
        assert field.wait(handle, 4).state is State.STOPPED


def test_stop_is_silent_when_nothing_was_started_or_all_is_over(field: Field) -> None:
    field.driver.stop(Handle(name="never", id="never"))
    handle = field.start("true")
    field.wait(handle)
    field.driver.stop(handle)
    field.driver.stop(handle)
    assert field.status(handle).state is State.SUCCEEDED


def test_the_time_to_live_ends_it_though_its_starter_is_dead(field: Field) -> None:
    starter = field.starter("pf-x", ttl=1, grace=1, command=["sleep", "50"])
    go(starter)
    assert has_started(starter)
    kill_hard(starter)
    handle = field.driver.find("pf-x")
    assert handle
    end = field.wait(handle, 10)
    assert end.state is State.STOPPED
    assert "time-to-live of 1 s" in end.reason


def test_what_a_command_leaves_behind_ends_with_it(field: Field, until: Until) -> None:
    handle = field.start("sh", "-c", "sleep 50 & trap '' TERM; (trap '' TERM; sleep 50) & exit 0")
    assert field.wait(handle).state is State.SUCCEEDED
    until(lambda: not field.inside(), 2)


def test_a_shim_that_is_killed_is_a_fault_of_the_machine_and_leaves_nothing(
    field: Field, until: Until
) -> None:
    handle = field.start("sh", "-c", "echo ready; sleep 50")
    until(lambda: b"ready" in field.driver.logs(handle).data)
    os.kill(int((field.root / "containers" / handle.name / "lock").read_text()), signal.SIGKILL)
    end = field.wait(handle)
    assert (end.state, end.cause, end.exit_code) == (State.FAILED, Cause.INFRA, None)
    assert "killed from outside" in end.reason
    until(lambda: not field.inside(), 2)


# -- identity


def test_another_process_finds_adopts_and_stops_what_a_killed_one_started(field: Field) -> None:
    starter = field.starter("pf-x", owner="me", ttl=60, grace=1, command=["sleep", "50"])
    go(starter)
    assert has_started(starter)
    kill_hard(starter)
    handle = field.driver.find("pf-x")
    assert handle
    assert field.start("sleep", "50", name="pf-x") == handle
    assert list(field.driver.owned("me")) == list(field.driver.owned()) == [handle]
    assert list(field.driver.owned("other")) == []
    field.driver.stop(handle)
    assert field.wait(handle).state is State.STOPPED
    assert list(field.driver.owned()) == []
    assert field.new_driver().find("pf-x") == handle  # ended, and still known


def test_a_race_of_processes_for_one_name_starts_one(field: Field, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    spec = {"ttl": 60, "grace": 1, "command": ["sh", "-c", f"echo x >> {runs}; sleep 50"]}
    starters = [field.starter("pf-x", **spec) for _ in range(8)]
    for starter in starters:
        go(starter)
    assert [has_started(s) for s in starters] == [True] * 8
    for starter in starters:
        kill_hard(starter)
    handle = field.driver.find("pf-x")
    assert handle
    deadline = time.monotonic() + 10
    while not runs.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    field.driver.stop(handle)
    field.wait(handle)
    assert runs.read_text() == "x\n"


def test_a_race_of_threads_for_one_name_starts_one(field: Field, tmp_path: Path) -> None:
    script = f"echo x >> {tmp_path}/runs"
    with ThreadPoolExecutor(16) as pool:
        handles = list(pool.map(lambda _: field.start("sh", "-c", script, name="pf-x"), range(64)))
    assert len(set(handles)) == 1
    field.wait(handles[0])
    assert (tmp_path / "runs").read_text() == "x\n"


def test_one_name_started_twice_is_one_thing_or_a_conflict(field: Field) -> None:
    handle = field.start("echo", "once", name="pf-x")
    assert field.start("echo", "once", name="pf-x") == handle
    field.wait(handle)
    field.driver = field.new_driver()
    assert field.start("echo", "once", name="pf-x") == handle
    assert field.log(handle) == b"once\n"
    with pytest.raises(ConflictError, match="pf-x"):
        field.start("echo", "twice", name="pf-x")


def test_what_was_never_started_is_not_found(field: Field) -> None:
    handle = Handle(name="never", id="never")
    assert field.driver.find("never") is None
    assert isinstance(field.driver.poll([handle])["never"], NotFoundError)
    with pytest.raises(NotFoundError):
        field.driver.logs(handle)


def test_a_start_that_was_cut_short_is_made_again(field: Field) -> None:
    home = field.root / "containers" / "pf-x"
    home.mkdir(parents=True)
    (home / "lock").touch()
    (home / "request.json").write_text("{}")
    assert field.driver.find("pf-x") is None
    assert field.wait(field.start("true", name="pf-x")).state is State.SUCCEEDED


# -- logs


def test_a_log_is_read_in_pieces_without_gap_or_repeat_while_it_grows(
    field: Field, tmp_path: Path
) -> None:
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    handle = field.start("sh", "-c", f"seq 2000; {wait}; seq 2001 4000; echo end >&2")
    data, chunk, pieces = b"", LogChunk(data=b"", cursor="", end=False), 0
    while not chunk.end:
        chunk = field.new_driver().logs(handle, chunk.cursor)
        pieces += bool(chunk.data)
        data += chunk.data
        if b"\n2000\n" in data:
            (tmp_path / "go").touch()
    assert data == b"".join(b"%d\n" % i for i in range(1, 4001)) + b"end\n"
    assert pieces > 1
    last = field.driver.logs(handle, chunk.cursor)
    assert last == LogChunk(data=b"", cursor=chunk.cursor, end=True)


def test_odd_lines_are_kept_as_they_are(field: Field) -> None:
    script = r"head -c 1048577 /dev/zero | tr '\0' a; printf '\n\377\376\000\r\nend'"
    handle = field.start("sh", "-c", script)
    field.wait(handle)
    first = field.driver.logs(handle)
    assert len(first.data) <= 2**20
    assert not first.end
    assert field.log(handle) == b"a" * 1048577 + b"\n\xff\xfe\x00\r\nend"


def test_a_secret_on_the_border_of_two_chunks_is_masked(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTAFLOW_SECRET_S", SECRET)
    script = f"head -c {2**20 - 9} /dev/zero | tr '\\0' x; printf %s \"$S\"; printf end"
    handle = field.start("sh", "-c", script, secrets={"S": "s"})
    field.wait(handle)
    first = field.driver.logs(handle)
    assert first.data == b"x" * (2**20 - 9)
    assert field.log(handle) == b"x" * (2**20 - 9) + b"***end"


def test_a_line_without_its_end_is_read_while_the_command_runs(field: Field, until: Until) -> None:
    handle = field.start("sh", "-c", "printf question?; sleep 50")
    until(lambda: field.driver.logs(handle).data == b"question?")


def test_doctor_says_what_is_writable_and_what_is_not(tmp_path: Path) -> None:
    good = Processes(Config(root=tmp_path / "a", cache=str(tmp_path / "b"))).check()
    assert all(f.ok for f in good)
    (tmp_path / "file").touch()
    bad = [
        f for f in Processes(Config(root=tmp_path / "file" / "x", cache="/tmp")).check() if not f.ok
    ]
    assert bad
    assert bad[0].fix
