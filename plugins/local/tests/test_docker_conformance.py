"""The suite that any backend must pass, on real containers: what it calls conformant is so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.manifest import MANIFEST

pytestmark = pytest.mark.podman

TARGET = """
[targets.boxes]
store = {{backend = "folder"}}
container = {{backend = "docker", url = "{url}", cache = "{cache}"}}
"""


@pytest.mark.timeout(600)
def test_the_docker_backend_conforms_with_real_containers(podman: Any, tmp_path: Path) -> None:
    text = TARGET.format(url=podman.url, cache=podman.folder / "cache")
    (tmp_path / "portaflow.toml").write_text(text)
    command = [
        sys.executable, "-m", "pytest", "-p", "portaflow_conformance", "-p", "no:cacheprovider",
        "--target", "boxes", "--level", "L1", "--image", podman.image, "--shortest-ttl", "2",
        "--report", "reports",
    ]  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PORTAFLOW_", "PYTEST_"))}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "boxes: conformant" in done.stdout
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    mine = {r["id"]: r["outcome"] for r in report["results"] if r["backend"] == "docker"}
    ours = [c for c in MANIFEST if c.area in ("plugin", "container") and not c.planned]
    assert mine.keys() >= {c.id for c in ours if c.level in ("L0", "L1")}
    assert set(mine.values()) == {"passed"}
    assert report["verdict"] == "conformant"
