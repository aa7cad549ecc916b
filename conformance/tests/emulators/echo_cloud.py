"""A cloud in a page: it says what it was asked, keeps a process running, and can break.

`portaflow emulate echo_cloud:Echo` finds it when this folder is on the path.
"""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import grpc
import trustme
from portaflow_conformance.emulators.faults import Reset, abort_socket, struck
from portaflow_conformance.emulators.place import Deviation, Emulator
from portaflow_conformance.emulators.running import Running

DEVIATIONS = (Deviation("Echo", "does what it is asked", "says what it was asked", "echo"),)


class Echo(Emulator):
    """https for *.echo.test and S3's hosts, gRPC for grpc.echo.test, and a host of a stranger."""

    name = "echo"

    def start(self) -> None:
        authority = self.place.authority
        ours = authority.issue("*.echo.test", "*.s3.eu-west-3.amazonaws.com")
        self._https = _serve(_context(ours), self.place.control)
        theirs = self.place.folder / "stranger.pem"
        stranger = trustme.CA().issue_cert("stranger.echo.test")
        stranger.private_key_and_cert_chain_pem.write_to_path(theirs)
        self._stranger = _serve(_context(theirs), self.place.control)
        self._grpc = grpc.server(futures.ThreadPoolExecutor(2), handlers=(_Methods(self),))
        pem = authority.issue("grpc.echo.test").read_bytes()
        key, mark, chain = pem.partition(b"-----BEGIN CERTIFICATE")
        credentials = grpc.ssl_server_credentials([(key, mark + chain)])
        self._grpc_port = self._grpc.add_secure_port("127.0.0.1:0", credentials)
        self._grpc.start()
        log = self.place.folder / "log"
        command = ["sh", "-c", "sleep 1000 & exec sleep 1001"]
        self._job = Running(command, self.place.folder, env={}, stdout=log, stderr=log)

    def routes(self) -> Mapping[str, int]:
        return {
            "*.echo.test": self._https.server_port,
            "grpc.echo.test": self._grpc_port,
            "stranger.echo.test": self._stranger.server_port,
            "*.amazonaws.com": self._https.server_port,
        }

    def env(self) -> Mapping[str, str]:
        keys = {"AWS_ACCESS_KEY_ID": "echo", "AWS_SECRET_ACCESS_KEY": "echo"}
        return {**keys, "AWS_DEFAULT_REGION": "eu-west-3", "ECHO_FOLDER": str(self.place.folder)}

    def stop(self) -> None:
        self._job.stop()
        self._grpc.stop(0).wait()
        for server in (self._https, self._stranger):
            server.shutdown()
            server.server_close()


class Refuses(Emulator):
    """Fails to start, and says why."""

    name = "refuses"

    def start(self) -> None:
        raise OSError("the disk is full")

    def routes(self) -> Mapping[str, int]:
        return {}

    def env(self) -> Mapping[str, str]:
        return {}

    def stop(self) -> None:
        """Nothing was started."""


class Sticks(Refuses):
    """Starts, and fails to stop."""

    name = "sticks"

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        raise OSError("it is stuck")


class Twin(Echo):
    """Claims what Echo has."""

    name = "twin"


def _context(pem: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that do not trust us go away in the middle of a handshake."""


def _serve(context: ssl.SSLContext, control: Any) -> _Server:
    handler = type("Handler", (_Handler,), {"control": control})
    server = _Server(("127.0.0.1", 0), handler)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    control: Any

    def do_GET(self) -> None:
        fault = self.control.called("echo:http.Get", "somebody", path=self.path)
        try:
            answer = struck(fault, self._said, lambda f: (f.status, b"on order"))
        except Reset:
            self.close_connection = True
            self.wfile = self.rfile  # nothing more is to be written
            abort_socket(self.connection)
            return
        self._answer(*answer)

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(200, body)

    def _said(self) -> tuple[int, bytes]:
        return 200, f"https://{self.headers['Host']}{self.path}".encode()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Wed, 25 Nov 2026 06:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Methods(grpc.GenericRpcHandler):
    """Any method answers with its own name; one of them has its tunnel broken."""

    def __init__(self, echo: Echo) -> None:
        self._echo = echo

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._said(details.method, context)
        )

    def _said(self, method: str, context: grpc.ServicerContext) -> bytes:
        fault = self._echo.place.control.called(f"echo:grpc{method.replace('/', '.')}")
        if fault is not None:
            port = int(context.peer().rpartition(":")[2])
            assert self._echo.place.abort(port)
        return method.encode()
