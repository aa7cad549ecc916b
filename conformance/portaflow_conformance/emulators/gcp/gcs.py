"""The local GCS: both APIs and JSON batches behind one door, which knows who calls."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from email.parser import BytesParser
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..control import Control, Fault
from ..faults import Reset, struck
from .gcs_json import JsonApi
from .gcs_xml import XmlApi, error_xml
from .items import GcsError
from .objects import Objects
from .tokens import Tokens
from .uploads import Uploads
from .wire import Request, Response

_JSON = ("/storage/v1/", "/upload/", "/download/", "/resumable/")
_BATCH = ("/batch/storage/v1", "/batch")
_MOST_BATCHED = 100


class Gcs:
    """An application for `HttpServer`: storage, and the endpoints of tokens."""

    def __init__(self, folder: Path, control: Control, tokens: Tokens) -> None:
        self.objects = Objects(folder, control.now)
        self.closing = threading.Event()
        self._control = control
        self._tokens = tokens
        self.uploads = Uploads(self.objects)
        self._json = JsonApi(self.objects, self.uploads)
        self._xml = XmlApi(self.objects, self.uploads)

    def __call__(self, request: Request) -> Response:
        """Answer a request that came by TLS, for whichever host."""
        if request.host in ("oauth2.googleapis.com", "accounts.google.com"):
            return self._token(request)
        if request.host.startswith("iamcredentials.") or request.host.startswith("sts."):
            return Response.json(_error(404, "notFound", f"{request.host} is not here"), 404)
        who = self._tokens.principal(request.headers.get("authorization", ""))
        return self._storage(request, who)

    def _token(self, request: Request) -> Response:
        fault = self._control.called("gcp:oauth2.token", self._tokens.email)
        return struck(
            fault,
            lambda: self._tokens.endpoint(request),
            lambda f: Response.json({"error": "internal_failure"}, _status(f)),
        )

    def _storage(self, request: Request, who: str) -> Response:
        request.principal = who
        if request.path in _BATCH and request.method == "POST":
            return self._batch(request)
        as_json = request.path.startswith(_JSON)
        api: JsonApi | XmlApi = self._json if as_json else self._xml
        show = _error_json if as_json else error_xml
        try:
            if not who:
                text = "Anonymous caller does not have storage access to this resource."
                raise GcsError(401, "required", text)
            name, parts = api.operation(request)
            words = ("bucket", "object", *(("toBucket",) if len(parts) > 3 else ()), "toObject")
            keys = dict(zip(words, parts, strict=False))
            params = {**{k: v for k, v in request.query.items() if k != "upload_id"}, **keys}
            fault = self._control.called(f"gcp:storage.{name}", who, **params)
            if fault and fault.effect == "hang":
                self.closing.wait(fault.seconds or None)
                raise Reset(applied=False)
            return struck(
                fault, _shown(api, name, parts, request, show), lambda f: show(refusal(f))
            )
        except GcsError as error:
            return show(error)

    def _batch(self, request: Request) -> Response:
        """Do the calls of a multipart/mixed body, each with its own status."""
        head = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
        message = BytesParser().parsebytes(head + request.body.read())
        inner: Any = message.get_payload() if message.is_multipart() else []
        if not inner or len(inner) > _MOST_BATCHED:
            error = GcsError(400, "invalid", f"A batch has 1 to {_MOST_BATCHED} calls.")
            return _error_json(error)
        answer = io.BytesIO()
        for part in inner:
            text = bytes(part.get_payload(decode=True))
            call = _inner(text, request)  # Java's client proves who it is in each of them
            who = self._tokens.principal(call.headers.get("authorization", ""))
            response = self._storage(call, who or request.principal)
            number = str(part.get("Content-ID", "")).strip("<>")
            answer.write(b"--batch_portaflow\r\nContent-Type: application/http\r\n")
            answer.write(f"Content-ID: <response-{number}>\r\n\r\n".encode())
            answer.write(f"HTTP/1.1 {response.status} {_word(response.status)}\r\n".encode())
            for key, value in response.headers.items():
                answer.write(f"{key}: {value}\r\n".encode())
            answer.write(f"Content-Length: {len(response.body)}\r\n\r\n".encode())
            answer.write(response.body + b"\r\n")
        answer.write(b"--batch_portaflow--\r\n")
        kind = "multipart/mixed; boundary=batch_portaflow"
        return Response(200, answer.getvalue(), {"Content-Type": kind})


def _shown(
    api: JsonApi | XmlApi, name: str, parts: list[str], request: Request,
    show: Callable[[GcsError], Response],
) -> Callable[[], Response]:  # fmt: skip
    def apply() -> Response:
        try:
            return api.answer(name, parts, request)
        except GcsError as error:
            return show(error)
        except ValueError as error:
            return show(GcsError(400, "invalid", f"Bad request: {error}"))

    return apply


def refusal(fault: Fault) -> GcsError:
    """What an ordered throttle or error is answered with."""
    if fault.effect == "throttle":
        text = "The rate of requests to this object exceeds the limit; retry with back-off."
        return GcsError(429, "rateLimitExceeded", text)
    return GcsError(_status(fault), "backendError", "Backend Error (a fault on order)")


def _status(fault: Fault) -> int:
    return 429 if fault.effect == "throttle" else fault.status


def _error(status: int, reason: str, message: str) -> dict[str, Any]:
    detail = {"message": message, "domain": "global", "reason": reason}
    return {"error": {"code": status, "message": message, "errors": [detail]}}


def _error_json(error: GcsError) -> Response:
    if error.status == 304:
        return Response(304)
    return Response.json(_error(error.status, error.reason, error.message), error.status)


def _inner(text: bytes, outer: Request) -> Request:
    head, _, body = text.lstrip().partition(b"\r\n\r\n")
    if not _ and b"\n\n" in text:
        head, _, body = text.lstrip().partition(b"\n\n")
    first, *lines = head.decode("latin-1").splitlines()
    method, target = [*first.split(), "", ""][:2]
    headers = {}
    for line in lines:
        key, _, value = line.partition(":")
        headers[key.strip().lower()] = value.strip()
    headers.setdefault("host", outer.headers.get("host", ""))
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    return Request(method, parts.path, query, headers, io.BytesIO(body), secure=outer.secure)


def _word(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"
