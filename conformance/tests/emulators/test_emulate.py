"""`portaflow emulate`: what it runs and prints, and that nothing is there when it is over."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest
from portaflow_conformance.emulators.clouds import EMULATORS, Clouds
from portaflow_conformance.emulators.command import emulate as emulate_command
from portaflow_conformance.emulators.control import Effect
from portaflow_conformance.emulators.deviations import rewritten
from portaflow_conformance.emulators.endpoint import RemoteControl

from .frame import GET, HERE, Left, Start, closed, until

pytestmark = pytest.mark.usefixtures("own_tmp")

# -- the command


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_and_leaves_nothing(start: Start, left: Left, number: int) -> None:
    one = start("echo_cloud:Echo", "--json")
    env = one.environment()
    assert Path(env["ECHO_FOLDER"]).is_dir()
    until(lambda: any("sleep 1000" in thing for thing in left()), "its process runs")
    one.child.send_signal(number)
    code, _, err = one.ended()
    assert (code, left()) == (0, []), err
    assert closed(env)


def test_a_kill_leaves_nothing(start: Start, left: Left) -> None:
    one = start("echo_cloud:Echo", "--json")
    env = one.environment()
    one.child.kill()
    until(lambda: not left(), f"all is gone, of {left()}")
    assert closed(env)


def test_a_kill_during_a_command_leaves_nothing(start: Start, left: Left) -> None:
    command = ["sh", "-c", "sleep 1002 & echo up; wait"]
    one = start("echo_cloud:Echo", "--", *command)
    assert one.child.stdout
    assert one.child.stdout.readline() == "up\n"
    until(lambda: any("sleep 1002" in thing for thing in left()), "its process runs")
    one.child.kill()
    until(lambda: not left(), f"all is gone, of {left()}")


@pytest.mark.parametrize("words", [[], ["--", "sleep", "1003"]])
def test_the_end_of_who_began_it_is_its_own(tmp_path: Path, left: Left, words: list[str]) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "portaflow", "emulate", "echo_cloud:Echo", *words]
    script = f"{shlex.join(command)} > {ready} 2>&1 & echo $! ; wait"
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    with subprocess.Popen(["sh", "-c", script], env=env, stdout=subprocess.PIPE) as parent:
        mark = ": sleep 1003 " if words else ": sleep 1001 "
        until(lambda: any(thing.endswith(mark) for thing in left()), "it is up")
        until(lambda: words or ready.stat().st_size, "it has told its environment")
        parent.kill()
    until(lambda: not left(), f"all is gone, of {left()}")


def test_under_nohup_it_outlives_who_began_it(tmp_path: Path, left: Left) -> None:
    ready = tmp_path / "ready"
    command = [sys.executable, "-m", "portaflow", "emulate", "echo_cloud:Echo", "--json"]
    script = f"nohup {shlex.join(command)} > {ready} 2> /dev/null & echo $!"
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    begun = subprocess.run(["sh", "-c", script], env=env, capture_output=True, timeout=30)
    pid = int(begun.stdout)
    try:
        until(lambda: ready.stat().st_size, "it has told its environment")
        env = json.loads(ready.read_text())["env"]
        looked = RemoteControl(env["PORTAFLOW_EMULATE_URL"])
        for _ in range(3):  # longer than it takes to see that a parent is gone
            time.sleep(0.2)
            assert looked.count("*") == 0
    finally:
        os.kill(pid, signal.SIGTERM)
    until(lambda: not left(), f"all is gone, of {left()}")


def test_who_asks_twice_does_not_wait(start: Start, left: Left, tmp_path: Path) -> None:
    slow = tmp_path / "slow_cloud.py"
    slow.write_text(
        "import time\nfrom echo_cloud import Sticks\n"
        "class Slow(Sticks):\n    def stop(self): time.sleep(1000)\n"
    )
    one = start("slow_cloud:Slow", "--json", environ={"PYTHONPATH": f"{HERE}:{tmp_path}"})
    one.environment()
    one.child.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        one.child.wait(1)
    one.child.send_signal(signal.SIGTERM)
    assert one.ended()[0] == 128 + signal.SIGTERM
    until(lambda: not left(), f"all is gone, of {left()}")


def test_a_command_runs_inside_and_its_exit_code_is_ours(start: Start, left: Left) -> None:
    script = f"import sys\n{GET}\nsys.exit(7)"
    code, out, err = start("echo_cloud:Echo", "--", sys.executable, "-c", script).ended()
    assert (code, out, err) == (7, "200 https://x.echo.test/x\n", "")
    assert left() == []


def test_a_command_ends_by_signals_as_a_shell_would_tell(start: Start) -> None:
    assert start("echo_cloud:Echo", "--", "sh", "-c", "kill -TERM $$").ended()[0] == 143
    assert start("echo_cloud:Echo", "--", "no-such-command").ended()[0] == 127
    assert start("echo_cloud:Echo", "--", str(HERE)).ended()[0] == 126


def test_a_command_that_leaves_a_process_does_not(start: Start, left: Left) -> None:
    one = start("echo_cloud:Echo", "--", "sh", "-c", "sleep 1004 >/dev/null 2>&1 & exit 0")
    assert one.ended()[0] == 0
    assert left() == []


def test_a_command_is_told_the_signals(start: Start, left: Left) -> None:
    script = (
        "trap 'echo term; exit 9' TERM; trap 'echo int' INT; echo up; while :; do sleep 0.1; done"
    )
    one = start("echo_cloud:Echo", "--", "sh", "-c", script)
    assert one.child.stdout
    for number, told in ((None, "up\n"), (signal.SIGINT, "int\n"), (signal.SIGTERM, "term\n")):
        if number:
            one.child.send_signal(number)
        assert one.child.stdout.readline() == told
    assert one.ended()[0] == 9
    assert left() == []


def test_at_a_terminal_ctrl_c_is_the_commands(left: Left) -> None:
    reader, writer = pty.openpty()
    script = "trap 'echo INT; exit 3' INT; echo up; while :; do sleep 0.1; done"
    command = [sys.executable, "-m", "portaflow", "emulate", "echo_cloud:Echo"]
    env = {**os.environ, "PYTHONPATH": str(HERE)}

    def login() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # makes it the controlling terminal

    one = subprocess.Popen(
        [*command, "--", "sh", "-c", script],
        env=env, stdin=writer, stdout=writer, stderr=writer, preexec_fn=login,
    )  # fmt: skip
    os.close(writer)
    seen = b""
    while b"up\r\n" not in seen:
        seen += os.read(reader, 1000)
    os.write(reader, b"\x03")
    assert one.wait(20) == 3
    os.close(reader)
    assert left() == []


def test_the_environment_can_be_sourced(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "clouds.sh").open("w") as file:
        one = start("echo_cloud:Echo", stdout=file, environ={"AWS_PROFILE": "it's real"})
        until(lambda: (tmp_path / "clouds.sh").stat().st_size, "it has told its environment")
    script = (
        f". ./clouds.sh; echo ${{AWS_PROFILE-unset}}; exec {shlex.quote(sys.executable)} -c "
        + (shlex.quote(GET))
    )
    env = {**os.environ, "AWS_PROFILE": "it's real"}
    done = subprocess.run(
        ["sh", "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "unset\n200 https://x.echo.test/x\n", done.stderr
    one.child.send_signal(signal.SIGINT)
    assert re.search(r"up in [\d.]+ s; Ctrl-C ends it", one.ended()[2])


def test_calls_are_kept_in_a_file_and_refused_hosts_are_told(start: Start, tmp_path: Path) -> None:
    script = f"{GET}\nrequests.get('http://elsewhere.example.com/x')\nrequests.get('http://elsewhere.example.com/x')"
    log = tmp_path / "calls.jsonl"
    one = start("echo_cloud:Echo", "--log", str(log), "--", sys.executable, "-c", script)
    assert one.ended()[2] == "refused, for no stand-in has it: elsewhere.example.com (2)\n"
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    assert [c["operation"] for c in calls] == ["echo:http.Get", *["proxy:Refused"] * 2]
    assert calls[0]["params"] == {"path": "/x"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["awz"], "error: there is no stand-in 'awz'; did you mean 'aws'?"),
        ([], "Missing argument"),
        (["no_such_module:Echo"], "cannot be imported: No module named 'no_such_module'"),
        (["echo_cloud:Nothing"], "has no attribute 'Nothing'"),
        (["json:JSONDecoder"], "json:JSONDecoder is no Emulator"),
        (["echo_cloud:Echo", "--"], "no command after --"),
        (["echo_cloud:Echo", "--log", "/no/such/folder/log"], "No such file or directory"),
        (["echo_cloud:Echo", "--pace", "-1"], "is not in the range"),
    ],
)
def test_what_is_wrong_is_told_before_anything_starts(
    start: Start, left: Left, words: list[str], told: str
) -> None:
    code, out, err = start(*words).ended()
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert left() == []


def test_without_the_extra_the_way_to_it_is_told(start: Start, tmp_path: Path) -> None:
    (tmp_path / "trustme.py").write_text("raise ModuleNotFoundError('no', name='trustme')")
    for name in ("aws", "gcp", "kubernetes"):
        code, _, err = start(name, path=tmp_path).ended()
        assert code == 2
        assert "pip install 'portaflow-conformance[emulators]'" in err


# -- the page

PAGE = HERE.parents[2] / "docs" / "local-clouds.md"


def test_the_page_tells_the_deviations_that_are_known() -> None:
    page = PAGE.read_text("utf-8")
    assert page == rewritten(page), "python -m portaflow_conformance.emulators.deviations PAGE"


def test_the_page_tells_every_option_effect_and_variable(clouds: Clouds) -> None:
    page = PAGE.read_text("utf-8")
    options = [o for p in emulate_command.params for o in p.opts if o.startswith("--")]
    variables = [name for name in clouds.env if name not in clouds.emulators["echo"].env()]
    words = [*options, *get_args(Effect), *variables]
    assert [word for word in words if f"`{word}" not in page and f"{word}`" not in page] == []


# -- all of them


def test_all_clouds_start_together_and_leave_nothing(start: Start, left: Left) -> None:
    one = start(*EMULATORS, "--json")
    env = one.environment()
    one.child.send_signal(signal.SIGTERM)
    assert (one.ended()[0], left()) == (0, [])
    assert closed(env)


def test_a_bucket_may_be_there_from_the_start() -> None:
    code = (
        "import boto3\nfrom google.cloud import storage\n"
        "print(sorted(b['Name'] for b in boto3.client('s3').list_buckets()['Buckets']),"
        "storage.Client().bucket('mine').exists())"
    )
    words = ["aws", "gcp", "--bucket", "mine", "--bucket", "logs", "--", sys.executable, "-c", code]
    command = [sys.executable, "-m", "portaflow", "emulate", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "['logs', 'mine'] True\n", done.stderr


def test_a_bucket_that_cannot_be_is_refused() -> None:
    words = ["echo_cloud:Echo", "--bucket", "No Bucket", "--", "true"]
    command = [sys.executable, "-m", "portaflow", "emulate", *words]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "'No Bucket': a bucket has 3 to 63 of" in done.stderr
