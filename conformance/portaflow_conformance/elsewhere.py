"""Another process: `python -m portaflow_conformance.elsewhere` does one thing and ends.

What is to be done arrives pickled on standard input, from our own parent. The child opens
the target's backends by itself; it shares nothing with the process that checks.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from typing import Any

from portaflow.backend import Handle
from portaflow.plugins import Backends, installed
from portaflow.target import Target

_TIMEOUT = 120  # seconds


class OtherProcess:
    """Does things in a child, and kills it with SIGKILL where that is asked for."""

    def __init__(self, target: Target) -> None:
        self._target = target

    def __call__(self, verb: str, **what: Any) -> Any:
        kill_at = what.pop("kill_at", "")
        command = [sys.executable, "-m", __name__]
        message = pickle.dumps({"target": self._target, "verb": verb, "what": what})
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            guard = threading.Timer(_TIMEOUT, child.kill)
            guard.start()
            try:
                assert child.stdin
                assert child.stdout
                child.stdin.write(message)
                child.stdin.close()
                for line in child.stdout:
                    word, _, value = line.decode().partition(" ")
                    if word == kill_at:
                        child.kill()
                        return None
                    if word == "done":
                        return json.loads(value)
            finally:
                guard.cancel()
                child.kill()
        raise AssertionError(f"another process could not {verb}; its error is above")


def act(backends: Backends, verb: str, **what: Any) -> Any:
    """Do one thing with backends that were opened for it."""
    match verb:
        case "put":
            backends.store.filesystem().pipe_file(what["url"], what["data"])
        case "request":
            driver = backends.driver(what["kind"])
            return driver.request(what["name"], what["spec"], what["parent"])
        case "start":
            parent = Handle.from_json(what["parent"]) if what["parent"] else None
            return backends.driver(what["kind"]).start(what["request"], parent).to_json()
        case "stop":
            backends.driver(what["kind"]).stop(Handle.from_json(what["handle"]))
        case _:
            raise ValueError(verb)
    return None


def _say(word: str, value: Any = None) -> None:
    sys.stdout.write(f"{word} {json.dumps(value)}\n")
    sys.stdout.flush()


def main() -> None:
    message = pickle.load(sys.stdin.buffer)
    backends = Backends(message["target"], installed())
    _say("asked")
    answer = act(backends, message["verb"], **message["what"])
    _say("started")
    _say("done", answer)


if __name__ == "__main__":
    main()
