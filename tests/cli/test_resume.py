"""resume and stop: of runs that ended early, of engines that live and of dead ones."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import BAD, LONG, Invoke, Started, processes_below, until, wait_for_work

Start = Callable[..., Started]
Write = Callable[[str, str], Path]


# -- resume


def test_resume_takes_the_latest_run_that_did_not_succeed(
    place: Path, invoke: Invoke, write: Write
) -> None:
    folder = write("bad", BAD)
    write("good", "tasks=[sh('tell', 'true')]")
    invoke("run", "bad", "--run-id", "run1", code=1)
    invoke("run", "good", "--run-id", "run2")
    definition = folder / "pipeline.py"
    definition.write_text(definition.read_text().replace("exit 7", "exit 0"))
    answer = json.loads(invoke("resume", "--json").stdout)
    assert (answer["pipeline"], answer["run"], answer["state"]) == ("bad", "run1", "succeeded")
    assert [(t["task"], t["attempt"]) for t in answer["tasks"]] == [
        ("good", 1), ("bad", 2), ("never", 1),
    ]  # fmt: skip
    assert "needs to be resumed" in invoke("resume", code=1).stderr


def test_resume_finishes_what_a_killed_engine_left(
    place: Path, start: Start, write: Write, invoke: Invoke
) -> None:
    write(
        "short",
        "tasks=[sh('first', 'touch started; sleep 2'), sh('last', 'true', after=['first'])]",
    )
    run = start("run", "short", "--run-id", "monday")
    wait_for_work(place, 1)
    until(lambda: "monday" in invoke("status").stdout, "the run is there")
    run.child.kill()
    run.ended()
    answer = json.loads(invoke("resume", "--json").stdout)
    assert answer["state"] == "succeeded"
    assert [t["attempt"] for t in answer["tasks"]] == [1, 1], "it was adopted, not run again"


def test_resume_refuses_a_run_whose_engine_is_alive(
    place: Path, start: Start, write: Write, invoke: Invoke
) -> None:
    write("long", LONG)
    run = start("run", "long", "--run-id", "monday")
    wait_for_work(place)
    result = invoke("resume", "monday", code=1)
    assert f"an engine works on run long/monday (process {run.child.pid})" in result.stderr
    run.child.send_signal(signal.SIGINT)
    assert run.ended()[0] == 1


def test_resume_refuses_the_run_of_another_target(
    place: Path, invoke: Invoke, write: Write
) -> None:
    write("bad", BAD)
    (place / "portaflow.toml").write_text("[targets.other]\nextends = 'local'\n")
    invoke("run", "bad", "--run-id", "monday", "-t", "other", code=1)
    assert "say --target other" in invoke("resume", "monday", code=2).stderr
    assert "needs to be resumed" in invoke("resume", code=1).stderr


def test_resume_says_so_when_the_pipeline_has_changed_too_much(
    invoke: Invoke, write: Write
) -> None:
    folder = write("bad", BAD)
    invoke("run", "bad", "--run-id", "monday", code=1)
    definition = folder / "pipeline.py"
    definition.write_text(definition.read_text().replace("'bad'", "'renamed'"))
    assert "does not fit run 'monday' any more" in invoke("resume", "monday", code=2).stderr
    assert "failed" in invoke("status", "monday").stdout


# -- stop


def test_stop_asks_a_live_engine_and_waits_for_it(
    place: Path, start: Start, write: Write, invoke: Invoke
) -> None:
    write("long", LONG)
    run = start("run", "long", "--run-id", "monday")
    wait_for_work(place)
    result = invoke("stop")
    assert f"asked the engine of long/monday (process {run.child.pid}) to stop" in result.stderr
    assert "stopped: first, second\n" in result.stdout
    assert processes_below(place) == []
    code, out, _ = run.ended()
    assert code == 1
    assert "stopped after" in out


def test_stop_takes_over_from_a_dead_engine(
    place: Path, start: Start, write: Write, invoke: Invoke
) -> None:
    folder = write("long", LONG)
    run = start("run", "long", "--run-id", "monday")
    wait_for_work(place)
    run.child.kill()
    run.ended()
    (folder / "pipeline.py").write_text("broken meanwhile")
    result = invoke("stop", "monday")
    assert "stopped: first, second\n" in result.stdout
    assert processes_below(place) == []
    assert "has ended: stopped; there is nothing to stop" in invoke("stop", "monday").stdout


def test_stop_takes_over_when_the_engine_dies_while_it_stops(
    place: Path, start: Start, write: Write, invoke: Invoke
) -> None:
    write("long", LONG)
    run = start("run", "long", "--run-id", "monday")
    wait_for_work(place)
    run.child.send_signal(signal.SIGSTOP)  # alive, and deaf to the wish
    stop = start("stop", "monday", log=(log := place / "log"))
    until(lambda: "asked the engine" in log.read_text(), "it was asked")
    run.child.kill()
    run.ended()
    code, out, _ = stop.ended()
    assert (code, processes_below(place)) == (0, [])
    assert "stopped: first, second" in out


def test_stop_without_a_run_stops_nothing_when_nothing_or_more_than_one_runs(
    place: Path, start: Start, write: Write, invoke: Invoke
) -> None:
    assert "nothing to stop" in invoke("stop").stdout
    assert "no run" in invoke("stop", "nowhere", code=1).stderr
    write("long", LONG)
    write("more", LONG)
    runs = [start("run", name, "--run-id", f"of-{name}") for name in ("long", "more")]
    until(lambda: len(processes_below(place)) >= 4, "both run")
    until(lambda: len(list(place.rglob("started"))) == 2, "both are at work")
    result = invoke("stop", code=1)
    assert "long/of-long" in result.stderr
    assert "more/of-more" in result.stderr
    for name in ("long", "more"):
        invoke("stop", f"of-{name}")
    assert [run.ended()[0] for run in runs] == [1, 1]
