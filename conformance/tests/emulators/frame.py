"""What the tests of the frame do: clients in a local cloud, and `portaflow emulate` itself."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from portaflow_conformance.emulators.clouds import Clouds

HERE = Path(__file__).parent
Left = Callable[[], list[str]]

GET = """
import requests
try:
    answer = requests.get('https://x.echo.test/x')
    print(answer.status_code, answer.text)
except requests.ConnectionError as error:
    print('broken:', error)
"""


def until(found: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Look again and again until `found` returns something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := found():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def run(clouds: Clouds, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    env = {**clouds.environ(), **environ}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def python(clouds: Clouds, script: str) -> subprocess.CompletedProcess[str]:
    return run(clouds, sys.executable, "-c", script)


class Started:
    """A `portaflow emulate` in a process of its own."""

    def __init__(self, *words: str, path: Path = HERE, **more: Any) -> None:
        env = {**os.environ, "PYTHONPATH": str(path), **more.pop("environ", {})}
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **more}
        command = [sys.executable, "-m", "portaflow", "emulate", *words]
        self.child = subprocess.Popen(
            command, env=env, text=True, stderr=subprocess.PIPE, **streams
        )

    def environment(self) -> dict[str, str]:
        """Wait until it is up, and read what it prints (--json)."""
        assert self.child.stdout
        text = ""
        for line in self.child.stdout:
            text += line
            if line == "}\n":
                break
        else:
            raise AssertionError(self.ended())
        return json.loads(text)["env"]  # type: ignore[no-any-return]

    def ended(self) -> tuple[int, str, str]:
        out, err = self.child.communicate(timeout=30)
        return self.child.returncode, out, err


Start = Callable[..., Started]


def closed(env: dict[str, str]) -> bool:
    for url in (env["https_proxy"], env["PORTAFLOW_EMULATE_URL"]):
        port = int(re.findall(r":(\d+)", url)[0])
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return False
    return True
