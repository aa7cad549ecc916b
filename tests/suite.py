"""The conformance suite, run on a target as whoever writes a backend runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from portaflow_conformance.manifest import MANIFEST

_COMMAND = (
    *(sys.executable, "-m", "pytest", "-p", "portaflow_conformance", "-p", "no:cacheprovider"),
    *("--level", "L1", "--report", "reports"),
)


def outcomes(
    folder: Path,
    target: str,
    backend: str,
    area: str,
    *words: str,
    env: Mapping[str, str] | None = None,
    emulated: bool = True,
    verdict: str = "partial",
) -> dict[str, str]:
    """What became of each check of a backend, by its id; of the plugin's and the area's, all.

    `folder` holds the target's portaflow.toml. The verdict "partial" is of a target that was
    not asked all: a store, say, that has a test of its own.
    """
    given = {k: v for k, v in (os.environ if env is None else env).items() if k[:7] != "PYTEST_"}
    kind = ("--target-kind", "emulator") if emulated else ()
    command = [*_COMMAND, "--target", target, *kind, *words]
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True)
    said = done.stdout[-6000:] + done.stderr[-2000:]
    assert done.returncode == {"conformant": 0, "partial": 6}[verdict], said
    report = json.loads((folder / "reports" / "report.json").read_text())
    assert report["verdict"] == verdict, said
    found = {r["id"]: r["outcome"] for r in report["results"] if r["backend"] == backend}
    asked = [c for c in MANIFEST if c.area in ("plugin", area) and not c.planned]
    assert found.keys() >= {c.id for c in asked if c.level in ("L0", "L1")}
    return found
