"""Code in a process of its own, in the environment of a local cloud."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from portaflow_conformance.emulators.clouds import Clouds

Run = Callable[..., Any]

_START = """
import json, os, time
told = []
def said(call, *args, **kwargs):
    began = time.monotonic()
    try:
        call(*args, **kwargs)
    except Exception as error:
        assert time.monotonic() - began < 20, error
        return [type(error).__name__, str(error), getattr(error, "retryable", None)]
    return []
"""
_END = """
print("\\n" + json.dumps(told))
"""


def beside(clouds: Clouds, start: str) -> Run:
    """What runs code after `start`, and returns what that leaves in the list `told`.

    The code has `said`, which calls and tells the error, if there is one.
    """

    def python(code: str, **env: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", _START + start + code + _END],
            env={**clouds.environ(), **env},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return python
