"""The process that calls one function of the user's; call.py starts it.

It imports nothing of ours, so that a call costs little more than Python's own start. The
request comes through standard input, which then stays open: the engine holds the other end
for as long as it lives, so its end is seen however it ended.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def _function(reference: str) -> Callable[..., Any]:
    module_name, _, name = reference.rpartition(":")
    sys.path.insert(0, str(Path.cwd()))
    if module_name.endswith(".py"):
        spec = importlib.util.spec_from_file_location(Path(module_name).stem, module_name)
        if spec is None or spec.loader is None:
            raise ImportError(f"cannot import {module_name}")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(module_name)
    found = getattr(module, name)
    if not callable(found):
        raise TypeError(f"{reference} is no function")
    return found  # type: ignore[no-any-return]


def _call(request: Mapping[str, Any]) -> None:
    os.set_inheritable(request["value"], False)
    value = _function(request["function"])(**request["kwargs"])
    if value is not None:
        data = json.dumps(value, allow_nan=False).encode()
        with open(request["value"], "wb", closefd=False) as file:  # the engine stores it
            file.write(data)


def _request() -> tuple[Mapping[str, Any], int]:
    """Return the request, and the pipe, which neither the function nor its children get."""
    pipe = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    text = b""
    while not text.endswith(b"\n"):
        part = os.read(pipe, 65536)
        if not part:  # the engine died while it asked
            sys.exit(1)
        text += part
    return json.loads(text), pipe


def _end_with_engine(pipe: int) -> None:
    while os.read(pipe, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    request, pipe = _request()
    threading.Thread(target=_end_with_engine, args=(pipe,), daemon=True).start()
    _call(request)


if __name__ == "__main__":
    main()
