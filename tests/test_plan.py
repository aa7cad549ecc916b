"""Plans: pure, exact, and the same on every machine. Golden files make each change reviewable.

`PORTAFLOW_GOLDEN=write pytest tests/test_plan.py` writes them anew; look at the difference.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from portaflow import Pipeline
from portaflow.load import load
from portaflow.plan import Plan
from portaflow.planner import plan
from portaflow.plugins import Backends
from portaflow.target import load_target

from .plans import (
    CONTAINER_ONLY,
    HYBRID,
    RUN,
    SPARK_ONLY,
    Compute,
    Serverless,
    files,
    planned,
)
from .test_layers import SDKS

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
WRITE = os.environ.get("PORTAFLOW_GOLDEN") == "write"  # read before the fixtures clear it


@pytest.mark.parametrize("given", [HYBRID, SPARK_ONLY, CONTAINER_ONLY], ids=lambda p: p.name)
@pytest.mark.parametrize("compute", [Compute, Serverless], ids=lambda c: c.name)
def test_a_plan_is_what_the_golden_file_says(given: Pipeline, compute: type[Compute]) -> None:
    golden(f"{given.name}.{compute.name}", planned(given, compute=compute(None)))


TARGETS = tuple(tomllib.loads((ROOT / "portaflow.toml").read_text("utf-8"))["targets"])


@pytest.mark.parametrize("name", TARGETS)
def test_the_plan_of_the_demo_is_what_the_golden_file_says(name: str) -> None:
    """On each target of this repository: what would be sent to a cloud, made without one."""
    place = Path("/repository")  # on whichever machine
    where = load_target(name, file=ROOT / "portaflow.toml", environ={}).model_copy(
        update={"base": place, "file": place / "portaflow.toml"}
    )
    demo = load(ROOT / "dags" / "recommendations").pipeline
    golden(f"demo.{name}", plan(demo, where, RUN, Backends(where), files(demo)))


@pytest.mark.parametrize("name", TARGETS)
def test_a_plan_imports_no_sdk(name: str) -> None:
    words = ["-m", "portaflow", "plan", "dags/recommendations", "--json", "--target", name]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words], cwd=ROOT, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    imported = {line.rpartition("|")[2].split(".")[0].strip() for line in done.stderr.splitlines()}
    assert json.loads(done.stdout)["target"] == name
    assert "portaflow" in imported
    assert not SDKS & imported


def golden(name: str, made: Plan) -> None:
    file = GOLDEN / f"{name}.json"
    text = json.dumps(made.to_json(), indent=2, ensure_ascii=False) + "\n"
    if WRITE:
        file.write_text(text)
    assert (file.read_text() if file.is_file() else "") == text, (
        "see the first lines of test_plan.py"
    )


# -- purity


def test_a_plan_is_the_same_twice() -> None:
    one, other = planned(HYBRID), planned(HYBRID)
    assert one == other
    assert one.to_json() == other.to_json()


def test_a_plan_is_the_same_in_every_process() -> None:
    """Also where sets have another order."""
    here = str(Path(__file__).with_name("plans.py"))
    text = (
        "import importlib.util, json, sys\n"
        f"spec = importlib.util.spec_from_file_location('plans', {here!r})\n"
        "plans = sys.modules['plans'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(plans)\n"
        "after = lambda i: [f't{j}' for j in range(i + 1, 20)] if i % 3 else []\n"
        "tasks = [plans.container(f't{i}', after=after(i)) for i in range(20)]\n"
        "print(json.dumps(plans.planned(plans.pipeline(*tasks)).to_json()))\n"
    )
    made = {
        subprocess.run(
            [sys.executable, "-c", text], env={"PYTHONHASHSEED": seed}, check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(made) == 1


_forbidden = threading.local()


def _no_io(event: str, _: Any) -> None:
    if getattr(_forbidden, "now", False) and event.split(".")[0] in (
        "open",
        "os",
        "socket",
        "subprocess",
    ):
        raise AssertionError(f"a plan does no {event}")


@contextmanager
def no_io() -> Iterator[None]:
    """Let every look at files, the network or processes fail in this thread."""
    if not hasattr(_forbidden, "hooked"):
        sys.addaudithook(_no_io)
        _forbidden.hooked = True
    _forbidden.now = True
    try:
        yield
    finally:
        _forbidden.now = False


def test_a_plan_does_no_io() -> None:
    local = files(HYBRID)
    planned(HYBRID, local=local)  # once, for what Python imports
    with no_io():
        planned(HYBRID, local=local)
        planned(SPARK_ONLY, compute=Serverless(None), local=files(SPARK_ONLY))


def test_the_watch_for_io_sees_it() -> None:
    for look in (Path(__file__).read_text, lambda: os.listdir("/"), socket.gethostname):
        with no_io(), pytest.raises(AssertionError, match="a plan does no"):
            look()
