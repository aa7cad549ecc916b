"""The one command of a backend author, run as such, on our backends and on a stranger's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.manifest import CONTRACT, MANIFEST

STRANGER = """
from portaflow.errors import NotFoundError
from portaflow.hookspecs import BackendSpec, hookimpl
from portaflow_local.folder import Folder, FolderFileSystem
from portaflow_local.process import ContainerDriver, Processes

@hookimpl
def portaflow_backends():
    return (
        BackendSpec("strict", "store", "stranger:Strict"),
        BackendSpec("moody", "store", "stranger:Moody"),
        BackendSpec("far", "store", "stranger:Far"),
        BackendSpec("no-vault", "container", "stranger:NoVault"),
    )

class StrictFileSystem(FolderFileSystem):
    def rm_file(self, path):
        if not self.exists(path):
            raise FileNotFoundError(path)
        super().rm_file(path)

class MoodyFileSystem(FolderFileSystem):
    moods = [OSError("not now")]
    def rm_file(self, path):
        if self.moods:
            raise self.moods.pop()
        super().rm_file(path)

class Strict(Folder):
    def filesystem(self):
        return StrictFileSystem(root=str(self.config.root))

class Moody(Folder):
    def filesystem(self):
        return MoodyFileSystem(root=str(self.config.root))

class Far(Folder):
    def url(self, key):
        return f"far://bucket/{key}"

class Vaultless(ContainerDriver):
    def start(self, request, parent=None):
        if request["secrets"]:
            raise NotFoundError("there is no such secret")
        return super().start(request, parent)

class NoVault(Processes):
    @property
    def containers(self):
        return Vaultless(self.config.root, self.config.root)
"""

TARGETS = """
[targets.strict.store]
backend = "strict"
[targets.moody.store]
backend = "moody"
[targets.far.store]
backend = "far"
[targets.vault]
store = {backend = "folder"}
container = {backend = "no-vault"}
"""


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder with a portaflow.toml, and beside it a distribution as pip installs it."""
    site = tmp_path / "site"
    info = site / "stranger-1.2.dist-info"
    info.mkdir(parents=True)
    (site / "stranger.py").write_text(STRANGER)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[portaflow]\nstranger = stranger\n")
    work = tmp_path / "work"
    work.mkdir()
    (work / "portaflow.toml").write_text(TARGETS)
    return work


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PORTAFLOW_", "PYTEST_"))}
    env["PYTHONPATH"] = str(folder.parent / "site")
    command = [sys.executable, "-m", "pytest", "-p", "portaflow_conformance", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def report(folder: Path) -> Any:
    return json.loads((folder / "reports" / "report.json").read_text())


def outcomes(folder: Path) -> dict[str, str]:
    return {r["id"]: r["outcome"] for r in report(folder)["results"]}


@pytest.mark.spark
@pytest.mark.timeout(900)
def test_the_backends_of_this_machine_conform(tmp_path: Path) -> None:
    done = run(tmp_path, "--target", "local", "--report", "reports")
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "local: conformant L1, local" in done.stdout
    found = report(tmp_path)
    assert (found["version"], found["contract"], found["verdict"]) == (1, CONTRACT, "conformant")
    assert (found["target"], found["target_kind"], found["level"]) == ("local", "local", "L1")
    assert [b["name"] for b in found["backends"]] == ["folder", "process", "spark-local"]
    assert all(b["distribution"] == "portaflow-local" and b["version"] for b in found["backends"])
    assert {r["id"] for r in found["results"]} == {c.id for c in MANIFEST if not c.planned}
    assert {r["outcome"] for r in found["results"]} == {"passed"}
    assert {p["id"] for p in found["planned"]} == {c.id for c in MANIFEST if c.planned}
    for name in ("junit.xml", "index.html", "badge.svg"):
        assert (tmp_path / "reports" / name).stat().st_size > 300


def test_the_static_level_asks_nobody_and_writes_nothing_but_its_report(tmp_path: Path) -> None:
    done = run(tmp_path, "--target", "local", "--level", "L0", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert "local: conformant L0, local" in done.stdout
    assert "level L0" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_strangers_store_that_fails_a_check_is_not_conformant_and_known_it_is_partial(
    stranger: Path,
) -> None:
    words = ("--target", "strict", "-k", "delete_idempotent", "--report", "reports")
    done = run(stranger, *words)
    assert done.returncode == 1, done.stdout
    assert "strict: not conformant" in done.stdout
    assert "store.delete_idempotent [strict]: the second removal of a key raises" in done.stdout
    assert outcomes(stranger)["store.delete_idempotent"] == "failed"
    backends = report(stranger)["backends"]
    assert [(b["name"], b["distribution"], b["version"]) for b in backends] == [
        ("strict", "stranger", "1.2")
    ]
    (stranger / "known.toml").write_text(
        textwrap.dedent("""
        [["store.delete_idempotent"]]
        reason = "raises when the key is gone"
        issue = "https://example.org/7"
        expires = 2999-01-01
        """)
    )
    done = run(stranger, *words, "--known-failures", "known.toml")
    assert done.returncode == 6, done.stdout
    assert "strict: partial" in done.stdout
    assert outcomes(stranger)["store.delete_idempotent"] == "known"


def test_what_passes_when_run_again_is_flaky_and_fails(stranger: Path) -> None:
    words = ("--target", "moody", "-k", "delete_idempotent", "--rerun", "--report", "reports")
    done = run(stranger, *words)
    assert done.returncode == 1, done.stdout
    assert "moody: not conformant" in done.stdout
    assert outcomes(stranger)["store.delete_idempotent"] == "flaky"


def test_a_known_failure_that_matches_nothing_or_passes_is_an_error(stranger: Path) -> None:
    (stranger / "known.toml").write_text(
        textwrap.dedent("""
        [["store.no_such_check"]]
        reason = "r"
        issue = "i"
        expires = 2999-01-01
        [["plugin.capabilities_complete"]]
        reason = "r"
        issue = "i"
        expires = 2999-01-01
        """)
    )
    words = ("--target", "strict", "--level", "L0", "--known-failures", "known.toml")
    done = run(stranger, *words)
    assert done.returncode == 1, done.stdout
    assert "store.no_such_check: no check of this run" in done.stdout
    assert "plugin.capabilities_complete: passes; remove the entry" in done.stdout


def test_what_was_left_out_did_not_run_and_makes_the_report_partial(stranger: Path) -> None:
    done = run(stranger, "--target", "strict", "--level", "L0", "-k", "pure", "--report", "reports")
    assert done.returncode == 6, done.stdout
    assert "strict: partial" in done.stdout
    assert outcomes(stranger)["plugin.request_is_pure"] == "passed"
    assert outcomes(stranger)["plugin.capabilities_complete"] == "not run"


def test_a_check_without_what_it_needs_is_not_run_and_says_what_to_do(stranger: Path) -> None:
    words = ("--target", "vault", "-k", "secret_delivered", "--report", "reports")
    done = run(stranger, *words)
    assert done.returncode == 6, done.stdout
    assert "the environment variable PORTAFLOW_SECRET_CONFORMANCE" in done.stdout
    assert outcomes(stranger)["container.secret_delivered_by_reference"] == "not run"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--target", "strickt"), "did you mean 'strict'"),
        (("--target", "strict", "portaflow.toml"), "give no files with it"),
        (("--target", "far"), "say --target-kind emulator, or real"),
        (("--target", "far", "--target-kind", "real"), "a real target costs money"),
        (("--target", "strict", "--known-failures", "missing.toml"), "missing.toml: cannot be"),
        (("--target", "strict", "--config", "missing.toml"), "missing.toml: cannot be"),
        (("--target", "strict", "--shortest-ttl", "soon"), "soon"),
        (("--target", "strict", "-n", "2"), "leave out -n"),
    ],
)
def test_a_wrong_question_is_refused_without_a_traceback(
    stranger: Path, words: tuple[str, ...], says: str
) -> None:
    done = run(stranger, *words)
    assert done.returncode == 4
    assert says in done.stderr
    assert "Traceback" not in done.stderr
