"""No secret in a plan, a handle, a log, a journal, an error or a repr: looked for after a run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from portaflow.load import load
from portaflow.plan import Run
from portaflow.session import Session
from portaflow.target import load_target

PIPELINE = """
name: vault
tasks:
  - id: uses
    kind: container
    image: x
    command: [sh, -c, 'test -n "$TOKEN"']
    secrets: {TOKEN: registry-token}
  - id: tells
    kind: container
    image: x
    after: [uses]
    retries: 1
    retry_delay: 0.01
    command: [sh, -c, 'echo "token $TOKEN"; echo "failed for $TOKEN" >&2; exit 3']
    secrets: {TOKEN: registry-token}
"""

Cli = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def secret() -> str:
    return uuid4().hex


@pytest.fixture
def portaflow(tmp_path: Path, secret: str) -> Cli:
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)

    def run(*args: str) -> subprocess.CompletedProcess[bytes]:
        env = {
            "PATH": os.environ["PATH"], "HOME": str(tmp_path),
            "PORTAFLOW_SECRET_REGISTRY_TOKEN": secret,
        }  # fmt: skip
        return subprocess.run(
            [sys.executable, "-m", "portaflow", *args], cwd=tmp_path, env=env, timeout=120,
            capture_output=True, check=False,
        )  # fmt: skip

    return run


def holding(folder: Path, secret: str) -> list[str]:
    """The files below `folder` that hold the secret."""
    found = []
    for file in folder.rglob("*"):
        if file.is_file() and secret.encode() in file.read_bytes():
            found.append(file.relative_to(folder).as_posix())
    return found


def test_no_secret_is_left_or_shown(tmp_path: Path, portaflow: Cli, secret: str) -> None:
    """Also not by a task that prints it: only its own raw log file has it, and is masked."""
    said = b""
    ran = portaflow("run", ".", "--run-id", "r")
    said += ran.stdout + ran.stderr
    assert ran.returncode == 1, said
    for args in (
        ("plan", ".", "--json"),
        ("status", "r", "--json"),
        ("logs", "r", "tells"),
        ("report", "r"),
    ):
        done = portaflow(*args)
        said += done.stdout + done.stderr
    assert b"Traceback" not in said
    assert secret.encode() not in said
    assert b"failed for ***" in said  # it was there to be seen, and was masked
    raw = [name for name in holding(tmp_path, secret) if not name.endswith("/log")]
    assert raw == []
    logs = holding(tmp_path, secret)
    assert len(logs) == 2, "the search finds what is there: the log of each attempt"
    assert all("/containers/pf-vault-tells-" in name for name in logs)


def test_no_secret_is_in_a_repr_or_a_plan(
    tmp_path: Path, secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTAFLOW_SECRET_REGISTRY_TOKEN", secret)
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    target = load_target(sets=[f"store.root={tmp_path}/s", f"container.root={tmp_path}/c"])
    session, project = Session(target), load(tmp_path)
    plan = session.plan(project, Run(id="r"))
    driver = session.backends.driver("container")
    for thing in (target, project, plan, plan.to_json(), plan.actions, driver, vars(driver)):
        assert secret not in repr(thing)
    assert "registry-token" in repr(plan)


def test_a_secret_that_is_missing_is_told_by_its_name_alone(tmp_path: Path, portaflow: Cli) -> None:
    text = PIPELINE.replace("registry-token", "another-token")
    (tmp_path / "pipeline.yaml").write_text(text)
    ran = portaflow("run", ".", "--run-id", "r")
    assert ran.returncode == 1
    assert b"another-token" in ran.stdout + ran.stderr
    assert b"PORTAFLOW_SECRET_ANOTHER_TOKEN" in ran.stdout + ran.stderr
