"""status, logs, report on real runs of tiny pipelines."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import ABC, Invoke, shown, until

Write = Callable[[str, str], Path]
Start = Callable[..., Any]

GATED = """tasks=(
    sh("first", "echo begun; while [ ! -e {gate} ]; do sleep 0.02; done; echo ended"),
    sh("second", "echo mine", after=("first",)),
)"""


@pytest.fixture
def gated(write: Write, place: Path) -> Path:
    write("gated", GATED.replace("{gate}", str(place / "gate")))
    return place / "gate"


# -- status


def test_status_of_an_empty_store_says_how_to_make_a_run(invoke: Invoke) -> None:
    assert "portaflow run makes one" in invoke("status").stdout
    assert shown(invoke, "status") == {"runs": [], "more": 0}


def test_status_lists_runs_the_latest_first_whatever_they_are_called(
    invoke: Invoke, write: Write
) -> None:
    write("p", ABC)
    for run in ("zz", "aa"):
        invoke("run", "p", "--run-id", run, code=1)
    lines = invoke("status").stdout.splitlines()
    assert [line.split()[:3] for line in lines[1:3]] == [
        ["aa", "p", "failed"],
        ["zz", "p", "failed"],
    ]
    assert [r["run"] for r in shown(invoke, "status")["runs"]] == ["aa", "zz"]


def test_status_lists_twenty_runs_and_all_with_all(
    invoke: Invoke, write: Write, place: Path
) -> None:
    write("p", 'tasks=(sh("a", "true"),)')
    invoke("run", "p", "--run-id", "r")
    home = place / ".portaflow" / "store" / "p" / "r"
    for n in range(24):
        shutil.copytree(home, home.with_name(f"copy{n}"))
    out = invoke("status").stdout
    assert len(out.splitlines()) == 22
    assert "and 5 more; portaflow status --all lists them" in out
    assert len(invoke("status", "--all").stdout.splitlines()) == 26
    assert shown(invoke, "status")["more"] == 5


def test_status_of_a_run_tells_each_task_and_why_it_failed(invoke: Invoke, write: Write) -> None:
    write("p", ABC)
    invoke("run", "p", "--run-id", "r", code=1)
    body = shown(invoke, "status", "r")
    assert (body["state"], body["engine"], body["target"]) == ("failed", "ended", "local")
    a, b, c = body["tasks"]
    assert (a["state"], b["state"], c["state"]) == ("done", "failed", "skipped")
    assert b["exit_code"] == 3
    assert "going wrong" in b["reason"]
    assert b["handle"]["url"].startswith("file://")
    assert b["started"] < b["ended"]
    out = invoke("status", "r").stdout
    assert "p r on local: failed" in out
    assert "b: exit code 3\ngoing wrong" in out


def test_status_does_not_depend_on_the_pipeline_as_it_is_now(
    invoke: Invoke, write: Write, place: Path
) -> None:
    folder = write("p", ABC)
    invoke("run", "p", "--run-id", "r", code=1)
    before = invoke("status", "r").stdout
    (folder / "pipeline.py").write_text("syntax error")
    assert invoke("status", "r").stdout == before
    shutil.rmtree(folder)
    assert invoke("status", "r").stdout == before


def test_status_while_a_run_goes_on_and_after_its_engine_was_killed(
    invoke: Invoke, start: Start, gated: Path
) -> None:
    engine = start("run", "gated", "--run-id", "g")
    until(
        lambda: (
            shown(invoke, "status")["runs"]
            and shown(invoke, "status", "g")["tasks"][0]["state"] == "running"
        ),
        "the first task runs",
    )
    body = shown(invoke, "status", "g")
    assert (body["state"], body["engine"], body["process"]) == (
        "running",
        "alive",
        engine.child.pid,
    )
    assert body["ended"] is None
    engine.child.send_signal(signal.SIGKILL)
    engine.child.wait(10)
    assert shown(invoke, "status", "g")["state"] == "died"
    assert "engine died; portaflow resume g" in invoke("status", "g").stdout
    assert "g: engine died; portaflow resume g" in invoke("status").stdout
    gated.touch()
    invoke("resume", "g")
    assert shown(invoke, "status", "g")["state"] == "succeeded"


def test_what_is_known_of_a_dead_engines_run_ends_with_its_last_sign_of_life(
    invoke: Invoke, start: Start, gated: Path, place: Path
) -> None:
    engine = start("run", "gated", "--run-id", "g")
    until(lambda: shown(invoke, "status")["runs"], "the run is there")
    until(lambda: shown(invoke, "status", "g")["tasks"][0]["state"] == "running", "it runs")
    engine.child.kill()
    engine.child.wait(10)
    lease = place / ".portaflow" / "store" / "gated" / "g" / "_lease.json"
    began = datetime.fromisoformat(shown(invoke, "status", "g")["started"]).timestamp()
    for closed, state in ((False, "died"), (True, "interrupted")):
        sign = json.loads(lease.read_text()) | {"time": began + 7.0, "closed": closed}
        lease.write_text(json.dumps(sign))
        body = shown(invoke, "status", "g")
        assert (body["state"], round(body["seconds"])) == (state, 7)
        assert round(body["tasks"][0]["seconds"]) == 7
    gated.touch()
    invoke("resume", "g")


def test_a_run_that_cannot_be_read_hides_no_other(
    invoke: Invoke, write: Write, place: Path
) -> None:
    write("p", ABC)
    for run in ("good", "bad"):
        invoke("run", "p", "--run-id", run, code=1)
    (place / ".portaflow/store/p/bad/_journal/00000001.json").write_text("no json")
    runs = {r["run"]: r["state"] for r in shown(invoke, "status")["runs"]}
    assert runs == {"good": "failed", "bad": "unreadable"}
    assert "unreadable" in invoke("status").stdout


@pytest.mark.parametrize(
    ("key", "value"),
    [("definition", None), ("definition", {}), ("target", 3), ("logical_date", "x"),
     ("files", {"a": {"b": 1}}), ("images", {"any": 5}), ("params", {"nope": 1})],
)  # fmt: skip
def test_a_run_with_a_damaged_header_hides_no_other_and_says_so(
    invoke: Invoke, write: Write, place: Path, key: str, value: Any
) -> None:
    write("p", ABC)
    for run in ("broken", "whole"):
        invoke("run", "p", "--run-id", run, code=1)
    record = place / ".portaflow/store/p/broken/_journal/00000001.json"
    document = json.loads(record.read_text())
    document["header"][key] = value
    record.write_text(json.dumps(document))
    states = {r["run"]: r["state"] for r in shown(invoke, "status")["runs"]}
    assert states == {"broken": "unreadable", "whole": "failed"}
    invoke("reap")
    for words in (("status",), ("stop",), ("report",)):
        told = invoke(*words, "broken", code=None).stderr
        assert "has a damaged header" in told or "no parameter 'nope'" in told


def test_an_unknown_run_is_named(invoke: Invoke) -> None:
    assert "there is no run 'nope'" in invoke("status", "nope", code=1).stderr


# -- logs


def test_logs_are_the_exact_bytes(invoke: Invoke, write: Write) -> None:
    write("p", r"""tasks=(sh("a", r"printf 'x\000\377\r\n<b>'"),)""")
    invoke("run", "p", "--run-id", "r")
    assert invoke("logs", "r", "a").stdout_bytes == b"x\0\xff\r\n<b>"


def test_logs_of_a_task_are_of_the_latest_run_unless_one_is_named(
    invoke: Invoke, write: Write
) -> None:
    write("p", 'tasks=(sh("a", "echo of {{ run_id }}"),)')
    for run in ("r2", "r1"):
        invoke("run", "p", "--run-id", run)
    assert invoke("logs", "a").stdout == "of r1\n"
    assert invoke("logs", "r2", "a").stdout == "of r2\n"
    assert invoke("logs", "p/r2", "a").stdout == "of r2\n"


def test_logs_of_what_is_not_there_say_what_is(invoke: Invoke, write: Write) -> None:
    write("p", ABC)
    invoke("run", "p", "--run-id", "r", code=1)
    assert "'r' is a run; name a task of it, too: a, b, c" in invoke("logs", "r", code=1).stderr
    assert "has no task 'd'; known: a, b, c" in invoke("logs", "d", code=1).stderr
    assert "'c' of run 'r' has not started" in invoke("logs", "c", code=1).stderr
    assert "no attempt 2, only 1" in invoke("logs", "a", "--attempt", "2", code=1).stderr
    assert invoke("logs", "r", "a", "b", code=2)


def test_logs_are_of_the_latest_attempt_or_the_one_that_is_named(
    invoke: Invoke, write: Write, place: Path
) -> None:
    script = f"echo try; test -e {place}/flag && echo well && exit 0; touch {place}/flag; exit 1"
    write("p", f'tasks=(sh("a", "{script}", retries=1, retry_delay=0.01),)')
    invoke("run", "p")
    assert invoke("logs", "a").stdout == "try\nwell\n"
    assert invoke("logs", "a", "--attempt", "1").stdout == "try\n"


def test_logs_of_a_call_are_there_when_it_has_ended(
    invoke: Invoke, write: Write, start: Start, place: Path
) -> None:
    folder = write("p", 'tasks=(CallTask(id="c", function="f.py:f"),)')
    (folder / "f.py").write_text(
        "import pathlib, time\n"
        "def f():\n"
        "    print('called', flush=True)\n"
        f"    while not pathlib.Path({str(place / 'gate')!r}).exists(): time.sleep(0.02)\n"
    )
    engine = start("run", "p", "--run-id", "r")
    until(
        lambda: (
            shown(invoke, "status")["runs"]
            and shown(invoke, "status", "r")["tasks"][0]["state"] == "running"
        ),
        "the call is made",
    )
    assert "-f waits for it" in invoke("logs", "c", code=1).stderr
    follower = start("logs", "-f", "c")
    (place / "gate").touch()
    assert follower.ended()[:2] == (0, "called\n")
    assert engine.ended()[0] == 0


def test_following_waits_for_a_task_and_ends_with_it(
    invoke: Invoke, start: Start, gated: Path
) -> None:
    engine = start("run", "gated", "--run-id", "g")
    until(lambda: shown(invoke, "status")["runs"], "the run has begun")
    first, second = start("logs", "-f", "first"), start("logs", "-f", "second")
    assert first.child.stdout.readline() == "begun\n"
    assert second.child.poll() is None
    gated.touch()
    assert first.ended() == (0, "ended\n", "")
    assert second.ended() == (0, "mine\n", "")
    assert engine.ended()[0] == 0


def test_following_goes_on_with_the_next_attempt(
    invoke: Invoke, start: Start, write: Write, place: Path
) -> None:
    script = f"while [ ! -e {place}/gate ]; do sleep 0.02; done; echo try; exit 1"
    write("p", f'tasks=(sh("a", "{script}", retries=1, retry_delay=0.01),)')
    engine = start("run", "p", "--run-id", "r")
    until(lambda: shown(invoke, "status")["runs"], "the run has begun")
    follower = start("logs", "-f", "a")
    (place / "gate").touch()
    assert engine.ended()[0] == 1
    code, out, err = follower.ended()
    assert (code, out) in ((0, "try\ntry\n"), (0, "try\n"))  # it may have come late
    assert ("-- attempt 2" in err) is (out == "try\ntry\n")


def test_following_a_skipped_task_ends(invoke: Invoke, write: Write) -> None:
    write("p", ABC)
    invoke("run", "p", "--run-id", "r", code=1)
    assert "it is skipped" in invoke("logs", "-f", "c", code=1).stderr


def test_a_reader_that_has_enough_and_ctrl_c_end_it_quietly(
    invoke: Invoke, start: Start, gated: Path, write: Write
) -> None:
    write("long", 'tasks=(sh("a", "seq 400000"),)')
    invoke("run", "long", "--run-id", "l")
    reader = start("logs", "l", "a")
    assert reader.child.stdout.readline() == "1\n"
    reader.child.stdout.close()
    assert reader.child.wait(30) == 0
    assert reader.child.stderr.read() == ""
    engine = start("run", "gated", "--run-id", "g")
    until(lambda: len(shown(invoke, "status")["runs"]) == 2, "the run has begun")
    follower = start("logs", "-f", "g", "first")
    assert follower.child.stdout.readline() == "begun\n"
    follower.child.send_signal(signal.SIGINT)
    assert follower.ended() == (130, "", "")
    gated.touch()
    assert engine.ended()[0] == 0


# -- report


def test_report_is_written_beside_the_data_or_into_a_file(
    invoke: Invoke, write: Write, place: Path
) -> None:
    write("p", ABC)
    invoke("run", "p", "--run-id", "r", code=1)
    uri = invoke("report").stdout.strip()
    assert uri == f"file://{place}/.portaflow/store/p/r/_report.html"
    kept = Path(uri.removeprefix("file://"))
    kept.unlink()
    assert invoke("report", "r", "-o", "here.html").stdout == "here.html\n"
    assert not kept.exists()
    assert "going wrong" in (place / "here.html").read_text()
    assert "cannot be written" in invoke("report", "r", "-o", "no/such.html", code=2).stderr
