"""What the services of the local Dataproc share: time, operations, and where jobs work."""

from __future__ import annotations

import heapq
import itertools
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from google.longrunning import operations_pb2  # type: ignore[import-untyped]
from google.protobuf import any_pb2, empty_pb2  # type: ignore[import-untyped]
from google.protobuf.timestamp_pb2 import Timestamp  # type: ignore[import-untyped]

from ..control import Fault
from ..place import Place
from .paging import page
from .rpc import Call, Code, RefusedError, Service, not_found

_TICK = 0.05
_KEPT = 2000  # operations that have ended


class World:
    """One lock for all that Dataproc has, and one thread that lets its time go by."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.watched: dict[object, Callable[[], None]] = {}  # called at each tick
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dataproc", daemon=True)
        self._thread.start()

    def after(self, share: float, do: Callable[[], None]) -> None:
        """Do something when this share of the place's pace (in its 2 s) is over."""
        with self.lock:
            at = time.monotonic() + 2 * share * self.place.pace
            heapq.heappush(self._due, (at, next(self._count), do))

    def now(self) -> float:
        return self.place.control.now()

    def number(self) -> int:
        """Each thing has one, later things a greater one: lists go by it."""
        return next(self._count)

    def hidden_until(self, fault: Fault | None) -> float:
        """When lists begin to tell of a thing whose creation this fault strikes."""
        return self.now() + fault.seconds if fault and fault.effect == "hide" else 0.0

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_TICK):
            with self.lock:
                while self._due and self._due[0][0] <= time.monotonic():
                    self._do(heapq.heappop(self._due)[2])
                for key, look in list(self.watched.items()):
                    if not self._do(look):
                        self.watched.pop(key, None)

    def _do(self, what: Callable[[], None]) -> bool:
        """Time goes on for all other things when one goes wrong, and the log tells of it."""
        try:
            what()
        except Exception as error:
            self.place.control.note("gcp:dataproc.broken", error=repr(error))
            return False
        return True


class Operations:
    """Long-running operations: google.longrunning.Operations of Dataproc's hosts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._all: dict[str, Any] = {}
        self._numbers: dict[str, int] = {}
        self._cancel: dict[str, Callable[[], None]] = {}

    def begin(self, parent: str, metadata: Any, cancel: Callable[[], None] | None = None) -> Any:
        name = f"{parent}/operations/{secrets.token_hex(4)}-{secrets.token_hex(12)}"
        operation = operations_pb2.Operation(name=name, metadata=packed(metadata))
        with self._world.lock:
            self._all[name] = operation
            self._numbers[name] = self._world.number()
            if cancel:
                self._cancel[name] = cancel
            ended = [n for n, o in self._all.items() if o.done]
            for old in ended[: len(ended) - _KEPT] if len(ended) > _KEPT else ():
                del self._all[old], self._numbers[old]
        return operation

    def finish(self, operation: Any, response: Any, metadata: Any = None) -> None:
        with self._world.lock:
            operation.response.CopyFrom(packed(response))
            self._end(operation, metadata)

    def fail(self, operation: Any, code: Code, message: str, metadata: Any = None) -> None:
        with self._world.lock:
            operation.error.code = code.value[0]
            operation.error.message = message
            self._end(operation, metadata)

    def _end(self, operation: Any, metadata: Any) -> None:
        if metadata is not None:
            operation.metadata.CopyFrom(packed(metadata))
        operation.done = True
        self._cancel.pop(operation.name, None)
        self._world.changed.notify_all()

    def service(self) -> Service:
        asked = operations_pb2
        return Service(
            "operations",
            {
                "GetOperation": (asked.GetOperationRequest, self._get),
                "ListOperations": (asked.ListOperationsRequest, self._list),
                "WaitOperation": (asked.WaitOperationRequest, self._wait),
                "CancelOperation": (asked.CancelOperationRequest, self._stop),
                "DeleteOperation": (asked.DeleteOperationRequest, self._delete),
            },
        )

    def _found(self, name: str) -> Any:
        if (found := self._all.get(name)) is None:
            raise not_found(f"Operation {name}")
        return found

    def _get(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            return copied(self._found(request.name))

    def _list(self, request: Any, call: Call) -> Any:
        if request.filter:
            raise RefusedError(Code.UNIMPLEMENTED, "filters of operations are not here")
        with self._world.lock:
            inside = request.name.removesuffix("/operations") + "/"
            found = [o for n, o in self._all.items() if n.startswith(inside)]
            shown, token = page(
                found, request.page_size, request.page_token, lambda o: self._numbers[o.name]
            )
            answer = operations_pb2.ListOperationsResponse(next_page_token=token)
            answer.operations.extend(shown)
            return answer

    def _wait(self, request: Any, call: Call) -> Any:
        limit = request.timeout.ToTimedelta().total_seconds() or 60.0
        with self._world.changed:
            found = self._found(request.name)
            self._world.changed.wait_for(lambda: found.done, min(limit, 60.0))
            return copied(found)

    def _stop(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            found = self._found(request.name)
            if not found.done:
                if (cancel := self._cancel.get(request.name)) is None:
                    text = "This operation cannot be cancelled."
                    raise RefusedError(Code.FAILED_PRECONDITION, text)
                cancel()
        return empty_pb2.Empty()

    def _delete(self, request: Any, call: Call) -> Any:
        with self._world.lock:
            if not self._found(request.name).done:
                text = "The operation is not done."
                raise RefusedError(Code.FAILED_PRECONDITION, text)
            del self._all[request.name], self._numbers[request.name]
        return empty_pb2.Empty()


def packed(message: Any) -> any_pb2.Any:
    holder = any_pb2.Any()
    holder.Pack(message)
    return holder


def copied(message: Any) -> Any:
    """Answers are serialised later, in another thread: they must not change until then."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def stamp(seconds: float | None = None) -> Timestamp:
    told = Timestamp()
    told.FromNanoseconds(int((time.time() if seconds is None else seconds) * 1e6) * 1000)
    return told
