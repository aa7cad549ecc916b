"""A broken plugin of a stranger hurts only who selects it. Real distributions, real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HOOK = (
    "from portaflow.hookspecs import BackendSpec, hookimpl\n@hookimpl\ndef portaflow_backends():\n"
)

FAULTS: dict[str, tuple[str | None, str]] = {
    "import-error": ("raise ImportError('libcloud.so.3 is missing')", ""),
    "syntax-error": ("def f(:", ""),
    "no-module": (None, ""),
    "no-dependency": ("import nothing_of_that_name", ""),
    "exits": ("import sys; sys.exit(7)", ""),
    "hook-raises": (f"{HOOK}    1 / 0", ""),
    "hook-exits": (f"{HOOK}    raise SystemExit(7)", ""),
    "hook-garbage": (f"{HOOK}    return [object(), 3]", ""),
    "hook-none": (f"{HOOK}    return None", ""),
    "hook-unknown": (
        "from portaflow.hookspecs import hookimpl\n@hookimpl\ndef portaflow_x(): 1",
        "",
    ),
    "other-version": (f"{HOOK}    return [BackendSpec('future', 'store', 'a:B', '9.0')]", ""),
    "claims-docker": (f"{HOOK}    return [BackendSpec('docker', 'container', 'a:B')]", ""),
    "no-object": ("", "[portaflow]\nx = !!!\n"),
    "deprecated": ("import warnings; warnings.warn('old', DeprecationWarning)", ""),
}
NOT_REPORTED = {"other-version", "claims-docker"}  # they can be read; who selects them is told

PIPELINE = """
name: small
tasks:
  - {id: hello, kind: container, image: x, command: [sh, -c, "echo hello"]}
"""


@pytest.fixture
def portaflow(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line with `site` on the path, in a folder with a small pipeline."""
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    site = tmp_path / "site"

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(site)}
        return subprocess.run(
            [sys.executable, "-m", "portaflow", *args], cwd=tmp_path, env=env, timeout=60,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


def test_with_every_plugin_broken_everything_else_works(
    tmp_path: Path,
    install: Callable[..., Path],
    portaflow: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    for name, (module, entries) in FAULTS.items():
        install(tmp_path / "site", name, module, entries)
    (tmp_path / "site" / "no_object-1.0.dist-info" / "METADATA").unlink()

    helped = portaflow("--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "backends" in helped.stdout

    listed = portaflow("backends")
    said = listed.stdout + listed.stderr
    assert listed.returncode == 0, said
    assert "spark-local" in said
    for name in set(FAULTS) - NOT_REPORTED - {"no-object"}:
        assert name in said
    assert "libcloud.so.3 is missing" in said

    ran = portaflow("run", ".", "--run-id", "r")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("fault", "setting", "told"),
    [
        (
            "import-error",
            "store.backend=cloud",
            "plugin 'import-error' is broken: ImportError: libc",
        ),
        ("exits", "store.backend=cloud", "plugin 'exits' is broken: SystemExit"),
        ("other-version", "store.backend=future", "is written for interface 9.0"),
        ("claims-docker", "container.backend=docker", "is offered by claims-docker and portaflow-"),
    ],
)
def test_who_selects_it_is_told(
    tmp_path: Path,
    install: Callable[..., Path],
    portaflow: Callable[..., subprocess.CompletedProcess[str]],
    fault: str,
    setting: str,
    told: str,
) -> None:
    install(tmp_path / "site", fault, *FAULTS[fault])
    done = portaflow("validate", ".", "--set", setting)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
