"""The TLS server for all services but S3: each call is logged, struck, then done by moto."""

from __future__ import annotations

import hashlib
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
from . import forms
from .ec2 import Ec2
from .eks import Eks
from .emr import Emr
from .iam import Iam
from .keys import Holder, Keys
from .pricing import Pricing
from .rest import Asked, RefusedError, Service, named
from .serverless import Serverless
from .shop import Shop, Store
from .signing import Signed
from .sts import Sts

_MOTO = ("secretsmanager",)
_REST = ("emr-serverless", "eks")
_OPEN = ("AssumeRoleWithWebIdentity",)  # whose caller has no keys yet
_HUSHED = ("SecretString", "SecretBinary", "WebIdentityToken")
_JSON, _XML = "application/x-amz-json-1.1", "text/xml"
_NAMES = {"elasticmapreduce": "emr"}
_SCOPE = re.compile(r"Credential=([^/]+)/\d+/([^/]+)/([^/]+)/")


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code: Any = "-", size: Any = "-") -> None:
        pass

    def handle(self) -> None:
        with suppress(OSError):  # of a connection that a client, or a fault, has reset
            super().handle()


class Front:
    def __init__(
        self, place: Place, pem: Path, s3: int, keys: Keys, env: Mapping[str, str]
    ) -> None:
        self._place, self._keys = place, keys
        self._loading = threading.Lock()
        self._moto: Any = None
        store = Store(s3, keys.lasting.key, keys.lasting.secret)

        def shop(name: str) -> Shop:
            return Shop(place.folder / name, place.control, place.pace, store, env)

        self._own: dict[str, Service] = {
            "ec2": Ec2(),
            "eks": Eks(place, keys),
            "elasticmapreduce": Emr(shop("emr")),
            "emr-serverless": Serverless(shop("emr-serverless")),
            "iam": Iam(place.control, keys),
            "pricing": Pricing(),
            "sts": Sts(keys),
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

        xml = service in forms.SPACES or "urlencoded" in environ.get("CONTENT_TYPE", "")

        def failed(status: int, code: str, why: str) -> Iterable[bytes]:
            if xml:
                body = forms.error(service, code, why)
                return _said(start, f"{status} Refused", body, _XML)
            body = json.dumps({"__type": code, "message": why}).encode()
            return _said(start, f"{status} Refused", body, _JSON, ("x-amzn-ErrorType", code))

        def apply() -> Iterable[bytes]:
            try:
                holder = None
                if operation not in _OPEN:
                    holder = self._holder(environ, body)
                if own := self._own.get(service):
                    told = own.do(operation, replace(asked, fault=fault, holder=holder))
                    return _done(start, service, operation, told)
            except RefusedError as error:
                return failed(error.status, error.code, error.message)
            if service not in _MOTO:
                return failed(501, "NotImplemented", f"{called} is not in the local AWS")
            answer: Iterable[bytes] = self._app()(environ, start)
            return answer

        def refuse(fault: Fault) -> Iterable[bytes]:
            status, code, why = fault.status, "InternalServerException", "a fault on order"
            if fault.effect == "throttle":
                status, code, why = 400, "ThrottlingException", "Rate exceeded"
                if service == "ec2":
                    status, code, why = 503, "RequestLimitExceeded", "Request limit exceeded."
            elif fault.effect == "deny":
                status = 403 if service in (*_REST, *forms.SPACES) else 400
                other = "AccessDenied" if service in forms.SPACES else "AccessDeniedException"
                code = "UnauthorizedOperation" if service == "ec2" else other
                why = f"User: {asked.principal} is not authorized to perform: {service}:{operation}"
            return failed(status, code, why)

        try:
            return struck(fault, apply, refuse)
        except Reset:
            abort_socket(environ["werkzeug.socket"])
            raise ConnectionResetError("a fault on order") from None

    def _holder(self, environ: dict[str, Any], body: bytes) -> Holder:
        """Who has signed the call. Raises RefusedError."""
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): str(value)
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        }
        signed = Signed.read(headers, environ.get("QUERY_STRING", ""))
        payload = headers.get("x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
        path = environ["REQUEST_URI"].partition("?")[0]
        return self._keys.holder(signed, environ["REQUEST_METHOD"], path, headers, payload)

    def _app(self) -> Any:
        """moto costs a second to load: not before a call needs it."""
        with self._loading:
            if self._moto is None:
                from moto.moto_server.werkzeug_app import (
                    DomainDispatcherApplication,
                    create_backend_app,
                )
                from moto.secretsmanager.models import secretsmanager_backends

                secretsmanager_backends.clear()  # of a stand-in that this process had before
                self._moto = DomainDispatcherApplication(create_backend_app)
        return self._moto


def _read(environ: dict[str, Any], body: bytes) -> tuple[Asked, str, str, dict[str, Any]]:
    """Whose call of which service it is: the signature tells."""
    found = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    principal, region, service = found.groups() if found else ("", "", "unsigned")
    if not found and str(environ.get("HTTP_HOST", "")).startswith("sts."):
        service = "sts"  # some of its calls need no signature
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
    params = {k: v for k, v in params.items() if k not in _HUSHED}
    kept = {k: v for k, v in params.items() if k not in ("operation", "principal", "self")}
    return asked, service, operation, kept


def _done(start: Any, service: str, operation: str, told: dict[str, Any]) -> Iterable[bytes]:
    if service in forms.SPACES:
        return _said(start, "200 OK", forms.answer(service, operation, told), _XML)
    body = json.dumps({k: v for k, v in told.items() if v is not None}).encode()
    return _said(start, "200 OK", body, _JSON)


def _said(
    start: Any, status: str, body: bytes, kind: str, *more: tuple[str, str]
) -> Iterable[bytes]:
    start(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *more])
    return [body]
