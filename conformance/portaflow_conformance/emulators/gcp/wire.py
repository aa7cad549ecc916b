"""HTTP on a loopback port, with and without TLS, and the faults that a call can meet there.

An application is a function from `Request` to `Response`. Each connection has a thread, each
request its line and headers read by the standard library; the body is a stream, so that an
object of gigabytes never is in memory.
"""

from __future__ import annotations

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

from ..faults import Reset, abort_socket
from .crossing import Crossing

_CHUNK = 2**18
_IDLE = 75.0  # seconds after which a silent connection is closed


@dataclass(slots=True)
class Request:
    """One request; `path` is as the client sent it, undecoded."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: IO[bytes]
    principal: str = ""
    secure: bool = True
    search: str = ""  # the query as it came: a name may be there more than once

    @property
    def host(self) -> str:
        return self.headers.get("host", "").rpartition("@")[2].split(":")[0].lower()

    @property
    def base(self) -> str:
        """How the client reaches us: links to be followed begin with it."""
        host = self.headers.get("host", "storage.googleapis.com")
        return f"{'https' if self.secure else 'http'}://{host}"

    def chunks(self) -> Iterator[bytes]:
        while data := self.body.read(_CHUNK):
            yield data

    def json(self) -> dict[str, Any]:
        text = self.body.read()
        if not text.strip():
            return {}
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("the body is not a JSON object")
        return value


@dataclass(slots=True)
class Response:
    """What is answered. A `stream` of `length` bytes takes the place of `body`."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    stream: IO[bytes] | None = None
    length: int | None = None

    @classmethod
    def json(cls, value: Any, status: int = 200, **headers: str) -> Response:
        kind = {"Content-Type": "application/json; charset=UTF-8"}
        return cls(status, json.dumps(value).encode(), {**kind, **headers})

    @classmethod
    def xml(cls, text: str, status: int = 200, **headers: str) -> Response:
        return cls(
            status, text.encode(), {"Content-Type": "application/xml; charset=UTF-8", **headers}
        )


class _Body:
    """The body of a request: as many bytes as it says, or chunked."""

    def __init__(self, file: Any, headers: Mapping[str, str]) -> None:
        self._file = file
        self._chunked = headers.get("transfer-encoding", "").lower() == "chunked"
        self._left = 0 if self._chunked else int(headers.get("content-length") or 0)
        self._done = False

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        if self._chunked and not self._left and not self._done:
            self._next()
        data = self._file.read(min(size, self._left)) if self._left else b""
        if self._left and not data:
            raise ConnectionError("the client went away in the middle of a body")
        self._left -= len(data)
        if self._chunked and not self._left and not self._done:
            self._file.readline()
        return data

    def _next(self) -> None:
        self._left = int(self._file.readline(64).split(b";")[0], 16)
        if not self._left:
            self._done = True
            while self._file.readline(65536).strip():
                pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "UploadServer"
    sys_version = ""
    timeout = _IDLE
    disable_nagle_algorithm = True
    wbufsize = 2**16
    server: HttpServer

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ValueError):  # a client that goes away is nobody's error
            self.close_connection = True

    def _answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("expect", "").lower() == "100-continue":
            self.wfile.flush()
        parts = urlsplit(self.path)
        body: Any = _Body(self.rfile, headers)
        request = Request(
            method=self.command,
            path=parts.path,
            query=dict(parse_qsl(parts.query, keep_blank_values=True)),
            headers=headers,
            body=body,
            secure=self.server.secure,
            search=parts.query,
        )
        try:
            response = self.server.application(request)
            for _ in request.chunks():  # what nobody read would be taken for the next request
                pass
            self._send(response)
        except Reset:
            abort_socket(self.connection)
            raise

    def _send(self, response: Response) -> None:
        length = len(response.body) if response.length is None else response.length
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        if response.status not in (204, 304) and "Content-Length" not in response.headers:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        stream = response.stream
        try:
            if self.command == "HEAD" or response.status in (204, 304):
                return
            if stream is None:
                self.wfile.write(response.body)
                return
            while length and (data := stream.read(min(length, _CHUNK))):
                self.wfile.write(data)
                length -= len(data)
        finally:
            if stream is not None:
                stream.close()
            self.wfile.flush()

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Calls are in the control's log."""


class HttpServer(ThreadingMixIn, TCPServer):
    """Serves one application on a free port of 127.0.0.1; `stop` leaves no thread."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512
    allow_reuse_address = True

    def __init__(
        self,
        application: Callable[[Request], Response],
        certificate: Path | None = None,
        crossing: Crossing | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.application = application
        self._crossing = crossing
        self.secure = certificate is not None
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._open: dict[socket.socket, threading.Thread] = {}
        self._guard = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        with self._guard:
            self._open[request] = thread
        thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        plain = request
        if self._crossing and self._crossing.carried(request, _IDLE):
            self._forget(request)
            return
        if self._tls:  # here and not in accept: a slow handshake holds up nobody else
            request.settimeout(_IDLE)
            try:
                request = self._tls.wrap_socket(request, server_side=True)
            except OSError:
                self._forget(plain)
                return
            with self._guard:
                self._open[request] = threading.current_thread()
                self._open.pop(plain, None)
        try:
            super().finish_request(request, client_address)
        finally:
            self._forget(request)
            request.close()

    def _forget(self, request: socket.socket) -> None:
        with self._guard:
            self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is the client's affair."""

    def stop(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()
        with self._guard:
            threads = dict(self._open)
        for connection in threads:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        deadline = time.monotonic() + 2
        for thread in threads.values():
            thread.join(max(deadline - time.monotonic(), 0))
