"""run: real processes, real signals, and what a user is told."""

from __future__ import annotations

import ctypes
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portaflow.cli.run import new_id
from tests.cli.conftest import BAD, LONG, Invoke, Started, processes_below, until, wait_for_work

Start = Callable[..., Started]
Write = Callable[[str, str], Path]

VALUE = '{"rmse": 0.9312345678, "best": {"ann": [1, 2]}}'
GOOD = (
    "tasks=[sh('make', 'mkdir -p ' + path('outputs.a') + '; echo hi > ' + path('outputs.a') + '/f',"
    " outputs=['a']),"
    f"sh('tell', gives({VALUE!r}), inputs={{'a': 'make.a'}})]"
)
SHORT = "tasks=[sh('first', 'touch started; sleep 2'), sh('last', 'true', after=['first'])]"


# -- how a run is told


def test_a_good_run_ends_with_a_table_of_outputs_and_values_and_a_report(
    place: Path, invoke: Invoke, write: Write
) -> None:
    write("good", GOOD)
    result = invoke("run", "good", "--run-id", "monday")
    home = f"file://{place}/.portaflow/store/good/monday"
    assert f"→ a  {home}/make/a\n" in result.stdout
    assert "= rmse  0.931235\n" in result.stdout
    assert "= best  ann: [1, 2]\n" in result.stdout
    assert "succeeded after" in result.stdout
    assert f"report: {home}/_report.html" in result.stdout
    assert (place / ".portaflow/store/good/monday/_report.html").read_text().startswith("<!")
    assert "run monday of good on local" in result.stderr
    assert "portaflow logs -f monday TASK" in result.stderr


def test_json_is_one_document_on_standard_output(place: Path, invoke: Invoke, write: Write) -> None:
    write("good", GOOD)
    answer = json.loads(invoke("run", "good", "--run-id", "monday", "--json").stdout)
    assert answer["state"] == "succeeded"
    assert [t["task"] for t in answer["tasks"]] == ["make", "tell"]
    assert answer["tasks"][1]["value"]["best"] == {"ann": [1, 2]}
    assert answer["tasks"][0]["outputs"]["a"].startswith("file://")
    assert (answer["clusters"], answer["leaks"]) == ([], [])


def test_output_that_is_piped_has_times_and_no_colour(start: Start, write: Write) -> None:
    write("bad", BAD)
    code, out, err = start("run", "bad").ended()
    assert code == 1
    assert "\x1b" not in out + err
    lines = err[: err.index("error:")].splitlines()
    assert lines
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", line) for line in lines)


def test_a_failed_run_names_the_cause_the_log_and_the_next_step(
    invoke: Invoke, write: Write
) -> None:
    write("bad", BAD)
    result = invoke("run", "bad", "--run-id", "monday", code=1)
    error = result.stderr[result.stderr.index("error:") :]
    assert error.startswith(
        "error: task 'bad' failed: exit code 7\n    one\n    ValueError: no good"
    )
    assert "portaflow logs monday bad" in error
    assert "portaflow resume monday" in error
    assert re.search(r"· never +skipped\n", result.stdout)
    assert "failed after" in result.stdout


def test_values_of_any_shape_fit_the_terminal(
    invoke: Invoke, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = {"rows": 10**9, "text": "long " * 60, "top": [{"user": n, "items": "x" * 40}
             for n in range(20)], "esc": "\x1b[2J", "none": None, "empty": {}}  # fmt: skip
    write("wide", f"tasks=[sh('tell', gives({json.dumps(value)!r}))]")
    monkeypatch.setenv("COLUMNS", "80")
    lines = [x for x in invoke("run", "wide").stdout.splitlines() if x.startswith("    = ")]
    assert all(len(line) <= 80 for line in lines)
    assert "… 15 more" in lines[8].strip()
    assert not any("\x1b" in line for line in lines)


def test_a_retry_is_told_with_its_cause(invoke: Invoke, write: Write) -> None:
    script = "test $(ls -d ../../*flaky* | wc -l) -ge 2 || { echo boom; exit 3; }"
    write("again", f"tasks=[sh('flaky', {script!r}, retries=1, retry_delay='0.2s')]")
    result = invoke("run", "again")
    assert "flaky: exit code 3: boom; attempt 2 follows in 0.2 s" in result.stderr
    assert re.search(r"✓ flaky +done +[\d.]+ s  attempt 2", result.stdout)


def test_a_terminal_sees_a_live_table_and_then_only_the_result(place: Path, write: Write) -> None:
    write(
        "long", "tasks=[sh('first', 'touch started; sleep 1'), sh('last', 'true', after=['first'])]"
    )
    reader, writer = pty.openpty()
    env = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24"}
    command = [sys.executable, "-m", "portaflow", "run", "long"]
    child = subprocess.Popen(command, env=env, stdout=writer, stderr=writer)
    os.close(writer)
    received = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([reader], [], [], 0.1)[0]:
            try:
                received += os.read(reader, 65536)
            except OSError:  # how Linux says that the other side is closed
                break
    os.close(reader)
    assert child.wait(timeout=10) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received.decode())
    assert re.search(r"first +running +[\d.]+ s", text)
    assert re.search(r"last +waiting", text)
    assert re.search(r"✓ first +done", text)
    assert "\x1b[?25h" in received.decode(), "the cursor is there again"


def test_ids_sort_by_time_and_differ() -> None:
    ids = [new_id() for _ in range(3)]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{4}", id) for id in ids)


# -- what must not run


def test_a_run_id_that_is_taken_is_refused_and_its_run_left_alone(
    invoke: Invoke, write: Write
) -> None:
    write("good", GOOD)
    invoke("run", "good", "--run-id", "monday")
    result = invoke("run", "good", "--run-id", "monday", code=1)
    assert "run 'monday' of 'good' exists already" in result.stderr
    assert "succeeded" in invoke("status", "monday").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-t", "nowhere"), "no target 'nowhere'"),
        (("--set", "store.rot=/x"), "did you mean 'root'?"),
        (("--set", "nonsense"), "path=value"),
        (("-c", "absent.toml"), "absent.toml"),
        (("-p", "x=1"), "no parameter 'x'"),
        (("--date", "never"), "--date 'never'"),
        (("--run-id", "x" * 201), "run id"),
        (("--run-id", "a\nb"), "run id"),
        (("--run-id", "a/b"), "run id"),  # which other commands take for a run of pipeline a
        (("--run-id", "-a"), "run id"),  # and this for an option
        (("--run-id", " "), "run id"),
        (("--set", "store.root="), "store: root: is empty"),
        (("--nope",), "--nope"),
    ],
)
def test_wrong_options_end_with_2_before_anything_is_written(
    place: Path, invoke: Invoke, write: Write, words: tuple[str, ...], said: str
) -> None:
    write("good", GOOD)
    assert said in invoke("run", "good", *words, code=2).stderr
    assert not (place / ".portaflow").exists()


def as_others() -> None:
    """Take from root, before a program begins, the right to write everywhere."""
    drop, write_everywhere = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    if os.geteuid() == 0 and ctypes.CDLL(None).prctl(drop, write_everywhere, 0, 0, 0):
        raise OSError("root keeps its rights")


def test_a_folder_that_cannot_be_written_is_a_clear_error(
    place: Path, start: Start, write: Write
) -> None:
    write("good", GOOD)
    (place / ".portaflow").mkdir(mode=0o500)
    code, _, err = start("run", "good", preexec_fn=as_others).ended()
    assert code == 1
    assert "the store refuses" in err
    assert "Permission denied" in err
    assert "Traceback" not in err


def test_a_store_that_cannot_be_made_is_a_clear_error(
    place: Path, invoke: Invoke, write: Write
) -> None:
    write("good", GOOD)
    (place / "file").write_text("")
    result = invoke("run", "good", "--set", f"store.root={place}/file/below", code=1)
    assert f"{place}/file/below" in result.stderr


def test_two_runs_at_once_do_not_meet(start: Start, write: Write) -> None:
    write("good", GOOD)
    both = [start("run", "good", "--json"), start("run", "good", "--json")]
    ends = [one.ended() for one in both]
    assert [code for code, _, _ in ends] == [0, 0]
    assert len({json.loads(out)["run"] for _, out, _ in ends}) == 2


def test_two_starts_of_one_run_id_have_one_winner(start: Start, write: Write) -> None:
    write("good", GOOD)
    both = [start("run", "good", "--run-id", "monday") for _ in range(2)]
    ends = sorted(one.ended() for one in both)
    assert [code for code, _, _ in ends] == [0, 1]
    assert "exists already" in ends[1][2]


# -- the end before the end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_what_runs_and_says_what_it_stopped(
    place: Path, start: Start, write: Write, number: signal.Signals
) -> None:
    write("long", LONG)
    run = start("run", "long", "--run-id", "monday")
    wait_for_work(place)
    run.child.send_signal(number)
    code, out, err = run.ended()
    assert code == 1
    assert f"{number.name}: stopping: first, second" in err
    assert "stopped: first, second" in err
    assert "stopped after" in out
    assert "portaflow resume monday" in err
    assert "Traceback" not in err
    assert processes_below(place) == []


def test_a_second_signal_says_that_stopping_is_under_way(
    place: Path, start: Start, write: Write
) -> None:
    write("long", "tasks=[sh('first', \"trap '' TERM; touch started; sleep 300 & wait; wait\")]")
    run = start("run", "long", "--run-id", "monday", log=(log := place / "log"))
    wait_for_work(place, 1)
    run.child.send_signal(signal.SIGINT)
    until(lambda: "SIGINT: stopping: first" in log.read_text(), "the first is heard")
    run.child.send_signal(signal.SIGINT)
    until(lambda: "SIGINT: still stopping: first" in log.read_text(), "the second is heard")
    assert "kill -9" in log.read_text()
    code, _, _ = run.ended()
    assert code == 1
    assert processes_below(place) == []


def test_a_hangup_that_is_ignored_stays_ignored(place: Path, start: Start, write: Write) -> None:
    write("short", "tasks=[sh('first', 'touch started; sleep 1.5')]")
    run = start("run", "short", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    wait_for_work(place, 1)
    run.child.send_signal(signal.SIGHUP)
    assert run.ended()[0] == 0


def test_a_run_goes_on_when_nobody_reads_what_it_says(
    place: Path, start: Start, write: Write, invoke: Invoke
) -> None:
    write("good", GOOD)
    reader, writer = os.pipe()
    os.close(reader)
    run = start("run", "good", "--run-id", "monday", stdout=writer, stderr=writer)
    os.close(writer)
    run.ended()
    assert json.loads(invoke("status", "monday", "--json").stdout)["state"] == "succeeded"


# -- trouble


def test_trouble_with_the_provider_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    from portaflow.cli.progress import Progress
    from portaflow.errors import DeniedError, UnavailableError

    shown = Progress()
    for n in range(5):
        shown.trouble(UnavailableError(f"request {n} failed\nbadly"), 1.0)
    threads = [threading.Thread(target=shown.trouble, args=(DeniedError("no"), 1.0))]
    for thread in threads:
        thread.start()
        thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert [line[21:] for line in lines] == [
        "no status for now: request 0 failed badly; asking again, less often",
        "no status for now: no; asking again, less often",
    ]


def test_a_leak_ends_with_3_and_names_what_may_still_cost(
    invoke: Invoke, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from portaflow_local.process import ContainerDriver

    from portaflow.errors import DeniedError

    def refuse(self: Any, handle: Any) -> None:
        raise DeniedError("stopping is not allowed")

    stop = ContainerDriver.stop
    monkeypatch.setattr(ContainerDriver, "stop", refuse)
    write("late", "tasks=[sh('late', 'sleep 300', timeout='0.2s')]")
    result = invoke("run", "late", "--run-id", "monday", code=3)
    monkeypatch.setattr(ContainerDriver, "stop", stop)
    assert "may still cost money" in result.stderr
    assert "late" in result.stderr[result.stderr.index("may still cost") :]
    assert "stopping is not allowed" in result.stderr
    assert "failed after" in result.stdout
    invoke("reap", "--yes")
