"""The suite that any backend must pass, on real containers: what it calls conformant is so."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.suite import outcomes

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
    env = {k: v for k, v in os.environ.items() if not k.startswith("PORTAFLOW_")}
    words = ("--image", podman.image, "--shortest-ttl", "2")
    seen = outcomes(
        tmp_path, "boxes", "docker", "container", *words, env=env, emulated=False,
        verdict="conformant",
    )  # fmt: skip
    assert set(seen.values()) == {"passed"}
