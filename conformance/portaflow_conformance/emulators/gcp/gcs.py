"""The local GCS: both APIs and JSON batches behind one door, which knows who calls."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from email.parser import BytesParser
from http import HTTPStatus
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import parse_qsl, urlsplit

from ..control import Control, Fault
from ..faults import Reset, struck
from .gcs_json import JsonApi
from .gcs_xml import XmlApi, error_xml
from .items import GcsError
from .objects import Objects
from .signed import is_signed, signer
from .tokens import Tokens
from .uploads import Uploads
from .wire import Request, Response

_JSON = ("/storage/v1/", "/upload/", "/download/", "/resumable/")
_BATCH = ("/batch/storage/v1", "/batch")
_MOST_BATCHED = 100
_PROOF = ("upload_id", "X-Goog-Signature")  # who has them can do what they stand for
_REFUSALS = {
    401: ("authError", "Invalid Credentials"),
    403: ("forbidden", "The caller does not have storage access to this resource."),
    404: ("notFound", "The specified bucket does not exist."),
    412: ("conditionNotMet", "At least one of the pre-conditions you specified did not hold."),
    429: ("rateLimitExceeded", "The rate of requests to this object exceeds the limit."),
}


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
        return self._storage(request)

    def _token(self, request: Request) -> Response:
        fault = self._control.called("gcp:oauth2.token", self._tokens.email)
        return struck(
            fault,
            lambda: self._tokens.endpoint(request),
            lambda f: Response.json({"error": "internal_failure"}, _status(f)),
        )

    def _storage(self, request: Request) -> Response:
        batch = request.path in _BATCH and request.method == "POST"
        as_json = batch or request.path.startswith(_JSON)
        api: JsonApi | XmlApi = self._json if as_json else self._xml
        show = _error_json if as_json else error_xml
        try:
            if batch:  # Java's client proves who it is in each call alone
                proof = request.headers.get("authorization", "")
                request.principal = self._tokens.principal(proof)
                return self._batch(request)
            who = request.principal = self._caller(request, 401 if as_json else 403)
            name, parts = api.operation(request)
            words = ("bucket", "object", *(("toBucket",) if len(parts) > 3 else ()), "toObject")
            keys = dict(zip(words, parts, strict=False))
            params = {k: v for k, v in request.query.items() if k not in _PROOF} | keys
            fault = self._control.called(f"gcp:storage.{name}", who, **params)
            if fault and fault.effect == "hang":
                self.closing.wait(fault.seconds or None)
                raise Reset(applied=False)
            apply = _shown(api, name, parts, request, show)
            with self.objects.hiding(fault):
                return _struck(fault, request, apply, lambda f: show(refusal(f)))
        except GcsError as error:
            return show(error)

    def _caller(self, request: Request, status: int) -> str:
        """Who calls. `status` is that of an error for somebody who shows no proof at all."""
        if proof := request.headers.get("authorization", ""):
            if who := self._tokens.principal(proof):
                return who
            raise GcsError(401, "authError", "Invalid Credentials")
        if is_signed(request):
            return signer(request, self._tokens)
        if request.principal:  # in a batch
            return request.principal
        if self.uploads.knows(request.query.get("upload_id", "")):
            return self._tokens.email  # the address of a session is a secret of its own
        text = "Anonymous caller does not have storage access to this resource."
        raise GcsError(status, "required" if status == 401 else "AccessDenied", text)

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
            call = _inner(text, request)
            call.principal = request.principal
            response = self._storage(call)
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


class _Torn:
    """A stream that breaks when half of it has been read: the connection is to be reset."""

    def __init__(self, file: IO[bytes], length: int) -> None:
        self._file, self._left = file, length // 2

    def read(self, size: int = -1) -> bytes:
        if self._left <= 0:
            raise Reset(applied=False)
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


def _struck(
    fault: Fault | None, request: Request, apply: Callable[[], Response],
    refuse: Callable[[Fault], Response],
) -> Response:  # fmt: skip
    """`struck`, and a call that dies: of what it sends or gets only half arrives."""
    if fault is None or fault.effect != "die":
        made: list[Response] = []

        def kept() -> Response:
            made.append(apply())
            return made[0]

        try:
            return struck(fault, kept, refuse)
        except Reset:
            for lost in made:  # what nobody sends, nobody else closes
                if lost.stream is not None:
                    lost.stream.close()
            raise
    if length := int(request.headers.get("content-length") or 0):
        request.body = cast(IO[bytes], _Torn(request.body, length))
    response = apply()
    if response.stream is not None:
        response.stream = cast(IO[bytes], _Torn(response.stream, response.length or 0))
        return response
    raise Reset(applied=True)


def refusal(fault: Fault) -> GcsError:
    """What an ordered throttle or error is answered with."""
    status = _status(fault)
    reason, text = _REFUSALS.get(status, ("backendError", "Backend Error"))
    return GcsError(status, reason, f"{text} (a fault on order)")


def _status(fault: Fault) -> int:
    return 429 if fault.effect == "throttle" else fault.status


def _error(status: int, reason: str, message: str) -> dict[str, Any]:
    detail = {"message": message, "domain": "global", "reason": reason}
    return {"error": {"code": status, "message": message, "errors": [detail]}}


def _error_json(error: GcsError) -> Response:
    if error.status == 304:
        return Response(304)
    if error.status == 401:
        challenge = {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'}
        return Response.json(_error(401, error.reason, error.message), 401, **challenge)
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
