"""config, backends, doctor, reap; with broken plugins, and things that dead runs left."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from portaflow_local.process import Processes

from portaflow import plugins
from portaflow.backend import ContainerRun, Finding
from portaflow.hookspecs import BackendSpec
from portaflow.plugins import Broken, Offer, Registry, installed
from tests.cli.conftest import Invoke, processes_below, until

Write = Callable[[str, str], Path]
Start = Callable[..., Any]


class Raising(ContainerRun):
    """Cannot even be looked at."""

    name = "raising"

    @property
    def containers(self) -> Any:
        raise NotImplementedError

    def check(self) -> Iterator[Finding]:
        yield Finding(what="before", ok=True)
        raise ZeroDivisionError("as strangers do")


class Exiting(Raising):
    def check(self) -> Iterator[Finding]:
        raise SystemExit(7)


class Looking(Processes):
    """Processes, but with images."""

    name = "looking"

    def check_image(self, reference: str) -> Finding:
        if reference == "odd":
            raise ZeroDivisionError("as strangers do")
        return Finding(what=f"image {reference}", ok=False, detail="nowhere", fix="push it")


@pytest.fixture
def strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The installed plugins, and some that are broken in different ways."""
    real = installed()
    offers = [
        *real,
        Offer(BackendSpec("raising", "container", f"{__name__}:Raising"), "stranger"),
        Offer(BackendSpec("exiting", "container", f"{__name__}:Exiting"), "stranger"),
        Offer(BackendSpec("looking", "container", f"{__name__}:Looking"), "stranger"),
        Offer(BackendSpec("absent", "container", "no.such:Thing"), "stranger"),
        Offer(BackendSpec("twice", "container", "a:b"), "stranger"),
        Offer(BackendSpec("twice", "container", "a:b"), "other"),
        Offer(BackendSpec("future", "container", f"{__name__}:Raising", "9.0"), "stranger"),
    ]
    broken = [Broken("bad", "bad-dist", "ImportError: no module", "Traceback ...\nImportError")]
    registry = Registry(offers, broken)
    for module in (plugins, __import__("portaflow.cli.place", fromlist=["place"])):
        monkeypatch.setattr(module, "installed", lambda: registry)


# -- config


def test_config_says_where_each_setting_came_from(
    invoke: Invoke, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "portaflow.toml").write_text(
        '[targets.base]\nextends = "local"\nmax_parallel = 3\nstore.root = "low"\n'
        '[targets.top]\nextends = "base"\nstore.root = "high"\n'
    )
    monkeypatch.setenv("PORTAFLOW__CONTAINER__CACHE", "/cache")
    words = ("config", "-t", "top", "--set", "params.n=1", "--origin")
    body = json.loads(invoke(*words, "--json").stdout)
    said = {path: (s["value"], s["origin"]) for path, s in body["settings"].items()}
    file = place / "portaflow.toml"
    assert said["store.root"] == ("high", f"{file} [targets.top]")
    assert said["max_parallel"] == (3, f"{file} [targets.base]")
    assert said["container.cache"] == ("/cache", "environment PORTAFLOW__CONTAINER__CACHE")
    assert said["params.n"] == (1, "--set params.n")
    assert said["container.backend"] == ("process", "default")
    assert said["compute.root"] == (".portaflow/local", "default")
    assert "[targets.top]" in invoke(*words).stdout
    assert "[targets.top]" not in invoke("config", "-t", "top").stdout.partition("\n")[2]


def test_config_never_shows_what_looks_like_a_secret(invoke: Invoke) -> None:
    sets = {
        "params.db_password": "hush1",
        "tasks.t.env.API_KEY": "hush2",
        "container.overrides.container.token": "hush3",
        "sources.s": "s3://user:hush4@host/x",
        "tasks.t.secrets.DB": "name-of-secret",
    }
    words = [w for path, value in sets.items() for w in ("--set", f"{path}={value}")]
    for more in ((), ("--json",), ("--origin",), ("--origin", "--json")):
        out = invoke("config", *words, *more).stdout
        assert "hush" not in out
        assert "name-of-secret" in out


# -- backends


def test_backends_lists_what_is_offered_and_what_is_broken(invoke: Invoke, strangers: None) -> None:
    body = json.loads(invoke("backends", "--json").stdout)
    by_name = {b["name"]: b for b in body["backends"]}
    assert by_name["folder"]["distribution"] == "portaflow-local"
    assert by_name["folder"]["capabilities"]["create-if-absent"]["supported"]
    assert by_name["process"]["capabilities"]["images"]["reason"] == "a process has no image"
    assert "cannot be imported" in by_name["absent"]["error"]
    assert "offered by stranger and other" in by_name["twice"]["error"]
    assert "written for interface 9.0" in by_name["future"]["error"]
    assert body["broken"][0]["distribution"] == "bad-dist"
    out = invoke("backends").stdout
    assert "broken: plugin 'bad' of distribution bad-dist: ImportError: no module" in out
    assert "Traceback" not in out
    verbose = invoke("backends", "--verbose").stdout
    assert "Traceback ..." in verbose
    assert "process: no images: a process has no image" in verbose


def test_plugins_on_the_path_that_break_when_imported_hurt_nobody_else(
    invoke: Invoke, start: Start, write: Write, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("p", 'tasks=(sh("a", "true"),)')
    site = place / "site"
    for name, code in (("raises", "raise ZeroDivisionError('boom')"), ("exits", "exit(9)")):
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[portaflow]\n{name} = {name}\n")
        (site / f"{name}.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(site))
    assert start("--help").ended()[0] == 0
    code, out, err = start("backends", "--json").ended()
    assert code == 0, err
    told = {b["plugin"]: (b["distribution"], b["error"]) for b in json.loads(out)["broken"]}
    assert told["raises"] == ("raises", "ZeroDivisionError: boom")
    assert told["exits"] == ("exits", "SystemExit: 9")
    assert start("run", "p").ended()[0] == 0
    assert start("doctor").ended()[0] == 1


# -- doctor


def findings(invoke: Invoke, *words: str, code: int) -> dict[str, Any]:
    body = json.loads(invoke("doctor", "--json", *words, code=code).stdout)
    assert body["ok"] is (code == 0)
    return {f"{f['where']}: {f['what']}": f for f in body["findings"]}


def test_doctor_checks_each_backend_of_the_target_and_the_pipeline(
    invoke: Invoke, write: Write, place: Path
) -> None:
    write("p", 'tasks=(sh("a", "true"),)')
    found = findings(invoke, "p", code=0)
    assert {key.split(":")[0] for key in found} == {
        "portaflow", "target", "store folder", "compute spark-local", "container process",
        "pipeline p",
    }  # fmt: skip
    assert found["pipeline p: a.image"]["detail"].startswith("approximated: ")
    assert "all is well" in invoke("doctor", "p").stdout


def test_doctor_says_what_is_wrong_and_how_to_fix_it(
    invoke: Invoke, write: Write, place: Path
) -> None:
    (place / "file").touch()
    folder = write("p", 'tasks=(sh("a", "true", size=Size(gpu=1)),)')
    out = invoke("doctor", str(folder), "--set", "store.root=file/below", code=1).stdout
    assert "✗ store folder" in out
    assert "fix: choose another folder" in out
    assert f"✗ pipeline {folder}" in out
    assert "2 of " in out
    assert not findings(invoke, "-t", "nope", code=1)["target: settings"]["ok"]
    assert not findings(invoke, "no-such-folder", code=1)["pipeline no-such-folder: can run here"][
        "ok"
    ]


def test_doctor_looks_once_for_each_image_that_a_pipeline_runs(
    invoke: Invoke, strangers: None, write: Write
) -> None:
    one = "tasks=[sh('a', 'true'), sh('b', 'true'), ContainerTask(id='c', image='odd',"
    folder = write("p", f"{one} command=['true'])]")
    words = ("doctor", str(folder), "--set", "container.backend=looking", "--json")
    found = json.loads(invoke(*words, code=1).stdout)["findings"]
    images = [f for f in found if f["what"].startswith("image ")]
    assert [(f["where"], f["what"], f["detail"]) for f in images] == [
        ("container looking", "image any", "nowhere"),
        ("container looking", "image odd", "ZeroDivisionError: as strangers do"),
    ]
    assert not any(f["ok"] for f in images)


@pytest.mark.parametrize(
    ("backend", "what", "detail"),
    [
        ("raising", "check", "ZeroDivisionError: as strangers do"),
        ("exiting", "check", "SystemExit: 7"),
        ("absent", "can be opened", "cannot be imported"),
        ("folder", "can be opened", "is a store backend"),
    ],
)
def test_a_backend_that_breaks_is_a_finding(
    invoke: Invoke, strangers: None, backend: str, what: str, detail: str
) -> None:
    found = findings(invoke, "--set", f"container.backend={backend}", code=1)
    mine = found[f"container {backend}: {what}"]
    assert not mine["ok"]
    assert detail in mine["detail"]
    assert not found["plugins: plugin 'bad'"]["ok"]


# -- reap

HANGING = 'tasks=(sh("a", "while [ ! -e {gate} ]; do sleep 0.05; done"),)'


@pytest.fixture
def hanging(write: Write, place: Path) -> Path:
    write("p", HANGING.replace("{gate}", str(place / "gate")))
    return place / "gate"


def left(invoke: Invoke, *words: str, code: int) -> list[tuple[str, str]]:
    body = json.loads(invoke("reap", "--json", *words, code=code).stdout)
    return [(f["run"], f["engine"]) for f in body["left"]]


def begun(invoke: Invoke, start: Start, run: str) -> Any:
    engine = start("run", "p", "--run-id", run)

    def runs() -> bool:
        listed = {r["run"] for r in json.loads(invoke("status", "--json").stdout)["runs"]}
        if run not in listed:
            return False
        tasks = json.loads(invoke("status", run, "--json").stdout)["tasks"]
        return bool(tasks[0]["state"] == "running")

    until(runs, f"run {run} is at work")
    return engine


def test_reap_of_nothing_says_so(invoke: Invoke) -> None:
    assert "nothing of portaflow is alive" in invoke("reap").stdout
    assert left(invoke, code=0) == []


def test_reap_leaves_living_engines_alone_and_removes_what_dead_ones_left(
    invoke: Invoke, start: Start, hanging: Path, place: Path
) -> None:
    alive, dead = (begun(invoke, start, run) for run in ("alive", "dead"))
    assert left(invoke, code=0) == []
    dead.child.send_signal(signal.SIGKILL)
    dead.child.wait(10)
    out = invoke("reap", code=3).stdout  # no terminal to ask on: it only lists
    assert "1 left over; --yes removes them" in out
    assert "p/dead" in out
    assert left(invoke, code=3) == [("dead", "dead")]
    assert len(processes_below(place)) >= 2
    out = invoke("reap", "--yes").stdout
    assert out.count("removed container") == 1
    body = json.loads(invoke("reap", "--json").stdout)
    assert [(f["run"], f["engine"]) for f in body["found"]] == [("alive", "alive")]
    assert body["found"][0]["seconds"] > 0
    hanging.touch()
    assert alive.ended()[0] == 0
    assert processes_below(place) == []


def test_what_no_run_of_the_store_owns_is_removed_only_when_that_is_asked_for(
    invoke: Invoke, start: Start, hanging: Path, place: Path
) -> None:
    engine = begun(invoke, start, "r")
    engine.child.send_signal(signal.SIGKILL)
    engine.child.wait(10)
    shutil.rmtree(place / ".portaflow/store/p")
    out = invoke("reap", "--yes", code=3).stdout
    assert "--unknown removes it, too" in out
    assert processes_below(place)
    assert left(invoke, "--yes", "--unknown", code=0) == []
    assert processes_below(place) == []


def test_a_reaped_run_can_be_resumed(
    invoke: Invoke, start: Start, hanging: Path, place: Path
) -> None:
    engine = begun(invoke, start, "r")
    engine.child.send_signal(signal.SIGKILL)
    engine.child.wait(10)
    invoke("reap", "--yes")
    hanging.touch()
    invoke("resume", "r", code=None)
    assert json.loads(invoke("status", "r", "--json").stdout)["engine"] == "ended"
