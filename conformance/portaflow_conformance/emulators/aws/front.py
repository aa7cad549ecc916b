"""The TLS server for all services but S3: each call is logged, struck, then done by moto."""

from __future__ import annotations

import io
import json
import re
import ssl
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl

from werkzeug.serving import WSGIRequestHandler, make_server

from ..control import Fault
from ..faults import Reset, abort_socket, struck
from ..place import Place
from .eks import Eks
from .emr import Emr
from .rest import Asked, RefusedError, Service, named
from .serverless import Serverless
from .shop import Shop, Store

_MOTO = ("sts", "secretsmanager")
_REST = ("emr-serverless", "eks")
_NAMES = {"elasticmapreduce": "emr"}
_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        pass


class Front:
    def __init__(
        self, place: Place, pem: Path, s3: int, key: str, secret: str, env: Mapping[str, str]
    ) -> None:
        self._place = place
        self._loading = threading.Lock()
        self._moto: Any = None

        store = Store(s3, key, secret)

        def shop(name: str) -> Shop:
            return Shop(place.folder / name, place.control, place.pace, store, env)

        self._own: dict[str, Service] = {
            "eks": Eks(place, key, secret),
            "elasticmapreduce": Emr(shop("emr")),
            "emr-serverless": Serverless(shop("emr-serverless")),
        }
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet, ssl_context=context
        )
        self._server.daemon_threads = True  # type: ignore[attr-defined]
        self.port = int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for service in self._own.values():
            service.stop()

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        asked, service, operation, params = _read(environ, body)
        called = f"aws:{_NAMES.get(service, service)}.{operation}"
        fault = self._place.control.called(called, asked.principal, **params)

        def apply() -> Iterable[bytes]:
            if service in self._own:
                return self._ours(start, self._own[service], operation, replace(asked, fault=fault))
            if service not in _MOTO:
                return _error(start, 501, "NotImplemented", f"{called} is not in the local AWS")
            answer: Iterable[bytes] = self._app()(environ, start)
            return answer

        def refuse(fault: Fault) -> Iterable[bytes]:
            if fault.effect == "throttle":
                return _error(start, 400, "ThrottlingException", "Rate exceeded")
            if fault.effect == "deny":
                return _denied(start, service, operation, asked)
            return _error(start, fault.status, "InternalServerException", "a fault on order")

        try:
            return struck(fault, apply, refuse)
        except Reset:
            abort_socket(environ["werkzeug.socket"])
            raise ConnectionResetError("a fault on order") from None

    def _ours(self, start: Any, service: Service, operation: str, asked: Asked) -> Iterable[bytes]:
        try:
            told = service.do(operation, asked)
        except RefusedError as error:
            return _error(start, error.status, error.code, error.message)
        return _said(start, "200 OK", {k: v for k, v in told.items() if v is not None})

    def _app(self) -> Any:
        """moto costs a second to load: not before a call needs it."""
        with self._loading:
            if self._moto is None:
                from moto.moto_server.werkzeug_app import (
                    DomainDispatcherApplication,
                    create_backend_app,
                )
                from moto.secretsmanager.models import secretsmanager_backends
                from moto.sts.models import sts_backends

                for left in (secretsmanager_backends, sts_backends):
                    left.clear()  # by a stand-in that this process had before
                self._moto = DomainDispatcherApplication(create_backend_app)
        return self._moto


def _read(environ: dict[str, Any], body: bytes) -> tuple[Asked, str, str, dict[str, Any]]:
    """Whose call of which service it is: the signature tells."""
    found = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    principal, region, service = found.groups() if found else ("", "", "unsigned")
    method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
    params: dict[str, Any] = {}
    with suppress(ValueError):  # the service's own parser says what is wrong with it
        if body[:1] == b"{":
            params = json.loads(body)
        elif service not in _REST:
            params = dict(parse_qsl(body.decode() or query))
    path: dict[str, str] = {}
    target = str(environ.get("HTTP_X_AMZ_TARGET", "")).rpartition(".")[2]
    operation = target or str(params.pop("Action", "")) or f"{method} {environ['PATH_INFO']}"
    asked = Asked(region, principal, path, parse_qs(query), params)
    if service in _REST:
        raw = environ["REQUEST_URI"].partition("?")[0]  # what is quoted is part of a name
        operation, names = named(service, method, raw, query)
        path |= names
        params = {**dict(parse_qsl(query)), **params, **names}
    if service == "secretsmanager":
        params = {k: v for k, v in params.items() if k not in ("SecretString", "SecretBinary")}
    kept = {k: v for k, v in params.items() if k not in ("operation", "principal", "self")}
    return asked, service, operation, kept


def _denied(start: Any, service: str, operation: str, asked: Asked) -> Iterable[bytes]:
    why = f"User: {asked.principal} is not authorized to perform: {service}:{operation}"
    return _error(start, 403 if service in _REST else 400, "AccessDeniedException", why)


def _error(start: Any, status: int, code: str, message: str) -> Iterable[bytes]:
    return _said(start, f"{status} Refused", {"__type": code, "message": message}, code)


def _said(start: Any, status: str, told: dict[str, Any], code: str = "") -> Iterable[bytes]:
    body = json.dumps(told).encode()
    kind, length = "application/x-amz-json-1.1", str(len(body))
    headers = [("Content-Type", kind), ("Content-Length", length)]
    start(status, [*headers, ("x-amzn-ErrorType", code)] if code else headers)
    return [body]
