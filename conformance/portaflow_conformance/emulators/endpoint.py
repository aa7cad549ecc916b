"""Faults, calls and the clock of running stand-ins, for other processes: HTTP on 127.0.0.1.

    GET    URL/               what runs, and the clock
    GET    URL/calls?operation=PATTERN     the calls that match, in their order
    GET    URL/count?operation=PATTERN     how many those are
    GET    URL/faults         the faults that were ordered, with how often each has happened
    POST   URL/faults         order one: {"effect": "throttle", "operation": "aws:emr.*", ...}
    DELETE URL/faults         forget them all
    POST   URL/clock          let times-to-live age: {"seconds": 3600}

URL holds a random token, for whoever can reach 127.0.0.1 could order otherwise. Answers are
JSON; what is wrong is a 4xx with {"error": ...}. `RemoteControl` speaks it from Python.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from .control import TOLD, Call, Control, Fault

VARIABLE = "PORTAFLOW_EMULATE_URL"
_LONGEST = 65_536  # bytes of an order


class Endpoint:
    """Serves one Control in threads of its own."""

    def __init__(self, control: Control, emulators: Sequence[str]) -> None:
        self._token = secrets.token_urlsafe(24)
        handler = type("Handler", (_Handler,), {
            "control": control, "token": self._token, "emulators": tuple(emulators),
        })  # fmt: skip
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="control", daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{self._token}"

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that says nothing must not keep us


class _Handler(BaseHTTPRequestHandler):
    """Of HTTP/1.0: no connection, and so no thread, is kept when the answer is told."""

    timeout = 30
    control: Control
    token: str
    emulators: tuple[str, ...]

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, verb: str) -> None:
        body = self._body()
        url = urlsplit(self.path)
        token, _, name = url.path.removeprefix("/").partition("/")
        if body is None:
            status, answer = 413, {"error": f"an order has at most {_LONGEST} bytes"}
        elif not secrets.compare_digest(token.encode(), self.token.encode()):
            status, answer = 403, {"error": f"wrong token; the address is in {VARIABLE}"}
        else:
            query = {k: v[-1] for k, v in parse_qs(url.query).items()}
            try:
                status, answer = self._done(verb, name.rstrip("/"), query, body)
            except ValueError as error:
                status, answer = 400, {"error": str(error)}
        data = json.dumps(answer, default=str).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        size = int(length) if length.isdigit() else _LONGEST + 1
        return None if size > _LONGEST else self.rfile.read(size)

    def _done(self, verb: str, name: str, query: Mapping[str, str], body: bytes) -> tuple[int, Any]:
        control, pattern = self.control, query.get("operation", "*")
        match verb, name:
            case "GET", "":
                return 200, {"emulators": self.emulators, "now": control.now()}
            case "GET", "calls":
                return 200, [asdict(call) for call in control.seen(pattern)]
            case "GET", "count":
                return 200, control.count(pattern)
            case "GET", "faults":
                return 200, [asdict(fault) for fault in control.ordered()]
            case "POST", "faults":
                return 201, asdict(control.order(Fault.parse(_read(body))))
            case "DELETE", "faults":
                control.clear()
                return 200, []
            case "POST", "clock":
                control.jump(_seconds(_read(body)))
                return 200, control.now()
        return 404, {"error": f"there is no {verb} /{name}; there are calls, count, faults, clock"}

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the log of calls is about the clouds."""


def _read(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise ValueError(f"the body is no JSON: {error}") from error


def _seconds(order: Any) -> float:
    seconds = order.get("seconds") if isinstance(order, dict) else None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise ValueError('a jump of the clock is {"seconds": number}')
    if not abs(seconds) < float("inf"):
        raise ValueError(f"the clock cannot jump by {seconds} seconds")
    return float(seconds)


class RemoteControl:
    """The Control of stand-ins that run in another process. Its errors are ValueError."""

    def __init__(self, url: str = "") -> None:
        """`url` is by default that of the environment that `portaflow emulate` makes."""
        self._url = url or os.environ.get(VARIABLE, "")
        if not self._url:
            raise ValueError(f"{VARIABLE} is not set: run this inside `portaflow emulate`")
        # Proxies of the environment lead to the stand-ins, not to this endpoint.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def order(self, fault: Fault) -> Fault:
        body = {k: v for k, v in asdict(fault).items() if k not in TOLD}
        return Fault(**self._ask("POST", "faults", body))

    def clear(self) -> None:
        self._ask("DELETE", "faults")

    def ordered(self) -> list[Fault]:
        return [Fault(**fault) for fault in self._ask("GET", "faults")]

    def seen(self, operation: str = "*") -> list[Call]:
        found = self._ask("GET", f"calls?{urlencode({'operation': operation})}")
        return [Call(**call) for call in found]

    def count(self, operation: str) -> int:
        return int(self._ask("GET", f"count?{urlencode({'operation': operation})}"))

    def now(self) -> float:
        return float(self._ask("GET", "")["now"])

    def jump(self, seconds: float) -> None:
        self._ask("POST", "clock", {"seconds": seconds})

    def _ask(self, verb: str, name: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}/{name}", data=data, method=verb)
        try:
            with self._opener.open(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                told = error.read().decode(errors="replace")
            raise ValueError(f"{verb} /{name}: {told.strip()}") from None
