"""The gRPC server of the local GCP: each call is proven, logged, struck, then done.

A service is a table from the names of its methods to the type of their requests and to what
does them. It is loaded by its first call, for Google's messages cost a second and 50 MB.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import grpc  # type: ignore[import-untyped]
from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

from ..control import Fault
from ..faults import Reset, struck
from ..place import Place
from .tokens import Tokens

Code = grpc.StatusCode

_WORKERS = 64  # threads are made when they are needed; a call that hangs holds one
_BY_STATUS = {
    400: Code.INVALID_ARGUMENT,
    401: Code.UNAUTHENTICATED,
    403: Code.PERMISSION_DENIED,
    404: Code.NOT_FOUND,
    409: Code.ABORTED,
    429: Code.RESOURCE_EXHAUSTED,
    500: Code.INTERNAL,
    501: Code.UNIMPLEMENTED,
    504: Code.DEADLINE_EXCEEDED,
}


class RefusedError(Exception):
    """What a call is refused with."""

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def invalid(message: str) -> RefusedError:
    return RefusedError(Code.INVALID_ARGUMENT, message)


def not_found(what: str) -> RefusedError:
    return RefusedError(Code.NOT_FOUND, f"Not found: {what}")


@dataclass(frozen=True, slots=True)
class Call:
    """Who makes a call, and what was ordered to go wrong with what it begins."""

    principal: str
    fault: Fault | None


Method = Callable[[Any, Call], Any]
Stream = Callable[[Iterator[Any], Call], Iterator[Any]]  # the requests come as it asks for them


@dataclass(frozen=True, slots=True)
class Service:
    """What answers for a service: `methods` is name -> (type of request, what does it).

    `begins` are the methods whose effect goes on after their answer: of these a hang, and
    other faults, strike what they begin. `private` are fields that the log must not hold.
    `streams` are methods whose requests, answers or both are a stream: one call of the log.
    """

    log: str  # "dataproc": calls are logged as gcp:dataproc.CreateCluster
    methods: Mapping[str, tuple[Any, Method]]
    begins: frozenset[str] = frozenset()
    private: frozenset[str] = frozenset()
    streams: Mapping[str, tuple[Any, Stream]] = field(default_factory=dict)


class Rpc(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Serves gRPC by TLS on a free port. `load` is full name of a service -> who makes it."""

    def __init__(
        self, place: Place, tokens: Tokens, pem: Path, load: Mapping[str, Callable[[], Service]]
    ) -> None:
        self._place, self._tokens, self._load = place, tokens, load
        self._loaded: dict[str, Service] = {}
        self._loading = threading.RLock()
        self.closing = threading.Event()
        self._workers = ThreadPoolExecutor(_WORKERS, "gcp-rpc")
        self._server = grpc.server(
            self._workers,
            handlers=(self,),
            options=[("grpc.so_reuseport", 0)],
        )
        # One file has both; each is looked for among the blocks that it may have.
        both = pem.read_bytes()
        credentials = grpc.ssl_server_credentials([(both, both)])
        self.port = int(self._server.add_secure_port("127.0.0.1:0", credentials))
        self._server.start()

    def stop(self) -> None:
        self.closing.set()
        self._server.stop(grace=None).wait()
        self._workers.shutdown()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        _, full, name = details.method.split("/")
        if full not in self._load:
            return None
        service = self.named(full)
        asked, _ = service.methods.get(name, (None, None))
        sent = dict(details.invocation_metadata)
        who = self.principal(str(sent.get("authorization", "")))

        def answer(request: Any, context: grpc.ServicerContext) -> Any:
            try:
                message = request if asked else None
                return self.perform(service, name, who, message, lambda: self._hang(context))
            except Reset as error:
                self._reset(context, error)
            except RefusedError as error:
                context.abort(error.code, error.message)

        if name in service.streams:
            return self._streaming(service, name, who)
        kind: Any = asked.pb() if hasattr(asked, "pb") else asked  # type: ignore[union-attr]
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=kind.FromString if kind else None,
            response_serializer=_serialized,
        )

    def _streaming(self, service: Service, name: str, who: str) -> grpc.RpcMethodHandler:
        """On the wire one message is a stream of one: this handles every kind of streams."""
        asked, do = service.streams[name]

        def answers(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            try:
                if not who:
                    text = "Request had invalid authentication credentials."
                    raise RefusedError(Code.UNAUTHENTICATED, text)
                yield from self._flow(service, name, who, do, requests, context)
            except RefusedError as error:
                context.abort(error.code, error.message)

        return grpc.stream_stream_rpc_method_handler(
            answers,
            request_deserializer=asked.pb().FromString,
            response_serializer=_serialized,
        )

    def _flow(
        self, service: Service, name: str, who: str, do: Stream, requests: Iterator[Any],
        context: grpc.ServicerContext,
    ) -> Iterator[Any]:  # fmt: skip
        """A fault strikes the first answer, with what has led to it; "die" what follows."""
        first = next(requests, None)
        if first is None:
            return
        params = _params(first, service.private)
        fault = self._place.control.called(f"gcp:{service.log}.{name}", who, **params)
        if fault and fault.effect == "hang":
            self._hang(context)
        dies = fault is not None and fault.effect == "die"
        answers = do(chain((first,), _broken() if dies else requests), Call(who, fault))
        try:
            answer = struck(fault, lambda: next(answers, None), refuse)
            if answer is None:
                return
            yield answer
            if dies:
                raise Reset(applied=False)
            yield from answers
        except Reset as error:
            self._reset(context, error)

    def _reset(self, context: grpc.ServicerContext, error: Reset) -> NoReturn:
        """gRPC's server cannot reset a connection; whoever comes without a tunnel gets the
        status that a client makes of a reset."""
        self._place.abort(int(context.peer().rpartition(":")[2]))
        raise RefusedError(Code.UNAVAILABLE, "Socket closed") from error

    @property
    def names(self) -> Iterable[str]:
        """The full names of all services."""
        return self._load

    def principal(self, authorization: str) -> str:
        return self._tokens.principal(authorization)

    def named(self, full: str) -> Service:
        with self._loading:
            if full not in self._loaded:
                self._loaded[full] = self._load[full]()
            return self._loaded[full]

    def perform(
        self, service: Service, name: str, who: str, request: Any, hang: Callable[[], NoReturn]
    ) -> Any:
        """Answer a call, by whichever protocol it came. Raises RefusedError and Reset.

        `request` is None when the service has no such method: nobody knows what was asked.
        """
        if not who:
            text = "Request had invalid authentication credentials."
            raise RefusedError(Code.UNAUTHENTICATED, text)
        operation = f"gcp:{service.log}.{name}"
        params = {} if request is None else _params(request, service.private)
        fault = self._place.control.called(operation, who, **params)
        if request is None:
            raise RefusedError(Code.UNIMPLEMENTED, f"{name} is not in the local {service.log}")
        _, method = service.methods[name]
        if fault and fault.effect == "hang" and name not in service.begins:
            hang()
        return struck(fault, lambda: method(request, Call(who, fault)), refuse)

    def _hang(self, context: grpc.ServicerContext) -> NoReturn:
        gone = threading.Event()
        if context.add_callback(gone.set):
            while not gone.wait(0.1) and not self.closing.is_set():
                pass
        raise RefusedError(Code.CANCELLED, "the client went away")


def _broken() -> Iterator[Any]:
    """What follows the first request of a stream that dies."""
    raise Reset(applied=False)
    yield


def _params(request: Any, private: frozenset[str]) -> dict[str, Any]:
    told = MessageToDict(request, preserving_proto_field_name=True)
    return {
        k: v for k, v in told.items() if k not in private and k not in ("operation", "principal")
    }


def _serialized(answer: Any) -> bytes:
    body: bytes = answer.SerializeToString()
    return body


def refuse(fault: Fault) -> NoReturn:
    """Raise what an ordered throttle or error is refused with."""
    if fault.effect == "throttle":
        text = "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute'."
        raise RefusedError(Code.RESOURCE_EXHAUSTED, text)
    code = _BY_STATUS.get(fault.status, Code.UNAVAILABLE if fault.status > 500 else Code.UNKNOWN)
    raise RefusedError(code, "a fault on order")
