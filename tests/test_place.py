"""Tasks in other places: what is handed over between stores, and what is said of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from portaflow.compare import Side, compare
from portaflow.errors import TargetError
from portaflow.load import load
from portaflow.pipeline import Cluster, ContainerTask, Pipeline, SparkTask
from portaflow.plan import Local, Plan, Run
from portaflow.planner import plan
from portaflow.plugins import Backends
from portaflow.session import Session
from portaflow.state import Phase
from portaflow.target import load_target
from portaflow.transfer import TransferDriver

TARGETS = """
[targets.here]
store = {backend = "folder", root = "here"}
compute.backend = "spark-local"
container.backend = "process"
[targets.there]
extends = "here"
store.root = "there"
[targets.neighbour]
extends = "there"
[targets.mixed]
extends = "here"
place = {middle = "there"}
[targets.two]
extends = "here"
place = {middle = "there", last = "neighbour"}
[targets.same]
extends = "here"
place = {middle = "here"}
"""
PIPELINE = """
name: relay
tasks:
  - {id: first, kind: container, image: x, outputs: [a, b, unread],
     command: [sh, -c, 'cd "${PORTAFLOW_OUTPUT_A#file://}" 2>/dev/null ||
       { mkdir -p "${PORTAFLOW_OUTPUT_A#file://}/d" "${PORTAFLOW_OUTPUT_B#file://}"
         "${PORTAFLOW_OUTPUT_UNREAD#file://}"; cd "${PORTAFLOW_OUTPUT_A#file://}"; };
       echo one > d/1; head -c 20000000 /dev/zero > 2; : > "empty é";
       echo b > ../b/x; echo u > ../unread/x']}
  - {id: middle, kind: container, image: x, inputs: {a: first.a, b: first.b}, outputs: [sum],
     command: [sh, -c, 'cd "${PORTAFLOW_INPUT_A#file://}"; O="${PORTAFLOW_OUTPUT_SUM#file://}";
       mkdir -p "$O"; cat d/1 2 "empty é" ../b/x | cksum > "$O/sum"; pwd; ls ..']}
  - {id: last, kind: container, image: x, inputs: {sum: middle.sum}, outputs: [done],
     command: [sh, -c, 'mkdir -p "${PORTAFLOW_OUTPUT_DONE#file://}";
       cp "${PORTAFLOW_INPUT_SUM#file://}/sum" "${PORTAFLOW_OUTPUT_DONE#file://}"']}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "portaflow.toml").write_text(TARGETS)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    return tmp_path


def opened(folder: Path, target: str) -> Session:
    return Session(load_target(target, file=folder / "portaflow.toml"))


def ran(folder: Path, target: str) -> Session:
    session = opened(folder, target)
    state = session.start(load(folder), Run(id=target)).run()
    assert state.succeeded, {a: m.reason for a, m in state.of.items() if m.reason}
    return session


def planned(folder: Path, target: str) -> Plan:
    return opened(folder, target).plan(load(folder), Run(id="r"))


def test_outputs_are_handed_over_to_the_store_where_they_are_read(folder: Path) -> None:
    session = ran(folder, "mixed")
    copy = folder / "there/relay/mixed/first"
    assert (copy / "a/d/1").read_text() == "one\n"
    assert (copy / "a/2").stat().st_size == 20_000_000
    assert (copy / "a/empty é").read_bytes() == b""
    assert not (copy / "unread").exists()
    manifest = json.loads((copy / "_manifest.json").read_text())
    assert manifest["outputs"]["a"]["bytes"] == 20_000_004
    assert (folder / "here/relay/mixed/last/done/sum").is_file()
    both = ran(folder, "here")
    a = Side(session.fs_at, session.recorded(session.find("mixed")))
    b = Side(both.fs_at, both.recorded(both.find("here")))
    assert compare(a, b).equal


def test_the_plan_says_what_is_handed_over(folder: Path) -> None:
    made = planned(folder, "mixed")
    assert [a.id for a in made.actions] == [
        "first", "transfer/first/there", "middle", "transfer/middle/mixed", "last",
    ]  # fmt: skip
    to_there = made.by_id["transfer/first/there"]
    assert to_there.needs == {"first"}
    assert made.by_id["middle"].needs == {"first", "transfer/first/there"}
    assert made.by_id["middle"].place == "there"
    assert set(to_there.outputs) == {"a", "b"}
    body = made.to_json()["actions"][1]
    assert body["request"]["copies"]["a"] == {
        "from": f"file://{folder}/here/relay/r/first/a",
        "to": f"file://{folder}/there/relay/r/first/a",
    }


def test_places_with_one_store_hand_nothing_over(folder: Path) -> None:
    actions = [a.id for a in planned(folder, "two").actions]
    assert actions == ["first", "transfer/first/there", "middle", "last"]
    assert [a.kind for a in planned(folder, "same").actions] == ["container"] * 3


def test_tasks_that_share_a_cluster_are_in_one_place(folder: Path) -> None:
    job = {"main": "file:///j.py", "cluster": "c"}
    pipeline = Pipeline(
        name="p", clusters=(Cluster(name="c"),),
        tasks=(SparkTask(id="first", **job), SparkTask(id="middle", **job)),
    )  # fmt: skip
    where = load_target("mixed", file=folder / "portaflow.toml")
    with pytest.raises(TargetError, match="'first' and 'middle' share cluster 'c'"):
        plan(pipeline, where, Run(id="r"), Backends(where), Local())


def test_a_place_has_settings_of_its_own(folder: Path) -> None:
    with (folder / "portaflow.toml").open("a") as file:
        file.write('[targets.there.tasks]\nmiddle.env = {WHERE = "there"}\n')
        file.write('[targets.there.images]\nx = "there/x:1"\n')
    made = planned(folder, "mixed")
    request = made.by_id["middle"].request
    assert request
    assert request["env"]["WHERE"] == "there"
    spec = made.by_id["middle"].spec
    assert spec is not None
    assert spec.image == "there/x:1"  # type: ignore[attr-defined]
    assert made.by_id["first"].spec.image == "x"  # type: ignore[union-attr]


def test_a_place_that_is_no_target_is_refused(folder: Path) -> None:
    with pytest.raises(TargetError, match=r"there is no target 'ther'; did you mean 'there'\?"):
        load_target("mixed", file=folder / "portaflow.toml", sets=["place.middle=ther"])


def test_what_is_no_longer_what_was_committed_is_not_handed_over(folder: Path) -> None:
    session = ran(folder, "here")
    home = f"file://{folder}/here/relay/here/first"
    (folder / "here/relay/here/first/a/d/1").write_text("two\n")
    driver = TransferDriver(session.fs_at)
    copies = {"a": {"from": f"{home}/a", "to": f"file://{folder}/x/a"}}
    handle = driver.start({"name": "t", "home": home, "copies": copies})
    deadline = time.monotonic() + 30
    while not (status := driver.poll([handle])["t"]).state.final:  # type: ignore[union-attr]
        assert time.monotonic() < deadline
    assert "is no longer what was committed" in status.reason  # type: ignore[union-attr]
    assert not (folder / "x").exists()


def test_a_transfer_that_was_cut_off_is_made_anew(folder: Path) -> None:
    """The first engine is killed when it has begun to copy; another one goes on."""
    code = (
        "import os, signal, portaflow.transfer as t\n"
        "def die(*a): os.kill(os.getpid(), signal.SIGKILL)\n"
        "t._stream = die\n"
        "from portaflow.cli import main; main()\n"
    )
    command = [sys.executable, "-c", code, "run", ".", "--target", "mixed", "--run-id", "r"]
    env: dict[str, Any] = {**os.environ, "PYTHONPATH": ""}
    killed = subprocess.run(command, cwd=folder, env=env, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    session = opened(folder, "mixed")
    ref = session.find("r")
    past = session.recorded(ref)
    assert past.state["transfer/first/there"].phase in (Phase.STARTING, Phase.RUNNING)
    state = session.resume(ref).run()
    assert state.succeeded
    assert state["first"].attempt == 1
    assert (folder / "there/relay/r/first/a/2").stat().st_size == 20_000_000


def test_the_run_can_be_looked_at_and_its_rest_removed(folder: Path) -> None:
    session = ran(folder, "mixed")
    command = [sys.executable, "-m", "portaflow"]
    for words in (["status", "mixed"], ["logs", "mixed", "middle"], ["report", "mixed"], ["reap"]):
        out = subprocess.run(
            [*command, *words, "--target", "mixed"], cwd=folder, capture_output=True, check=False,
            text=True,
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        if words[0] == "status":
            assert "transfer first to there" in out.stdout
        if words[0] == "logs":
            assert "there/relay/mixed/first/a" in out.stdout
    assert session.recorded(session.find("mixed")).state.succeeded


def test_a_container_task_may_be_named_in_no_pipeline(folder: Path) -> None:
    """A target serves many pipelines, so `place` may name tasks of others."""
    where = load_target("mixed", file=folder / "portaflow.toml")
    pipeline = Pipeline(name="p", tasks=(ContainerTask(id="z", image="x", command=("true",)),))
    assert [a.place for a in plan(pipeline, where, Run(id="r"), Backends(where)).actions] == [""]
