"""The stream of a watch: what happened since a version, and what happens, line by line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from aiohttp import web

from .problems import Json, Problem
from .resources import Resource
from .selectors import Matcher
from .store import Change, Store, Watcher, encode

Shape = Callable[[Json], Json]  # an object as the client asked to see it

_LONGEST = 3600.0  # seconds; clients ask for less


class Watch:
    """One client's view of a collection: which of its objects it has been told of.

    An object that starts or stops to match the selectors is told as ADDED or DELETED.
    """

    def __init__(
        self, store: Store, resource: Resource, namespace: str, matches: Matcher, shape: Shape
    ) -> None:
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._matches = matches
        self._shape = shape
        self.version = 0  # up to where everything has been told
        self.bookmarks = 0.0  # seconds between two; 0 for none
        self.expires = 0.0  # seconds until a fault ends it with "410 Gone"; 0 for never

    def _line(self, change: Change) -> bytes | None:
        self.version = change.version
        if self._namespace not in ("", change.key[0]):
            return None
        now = self._matches(change.object)
        before = change.old is not None and self._matches(change.old)
        if change.type == "DELETED":
            if not (before or now):
                return None
            return self._told("DELETED", change.object)
        if now:
            return self._told("MODIFIED" if before else "ADDED", change.object)
        if before and change.old is not None:
            # The last state that matched, at the version at which it ceased to.
            version = change.object["metadata"]["resourceVersion"]
            meta = {**change.old["metadata"], "resourceVersion": version}
            return self._told("DELETED", {**change.old, "metadata": meta})
        return None

    def _told(self, type_: str, obj: Json) -> bytes:
        return encode({"type": type_, "object": self._shape(obj)}) + b"\n"

    def _bookmark(self, initial: bool = False) -> bytes:
        meta: Json = {"resourceVersion": str(self.version), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        bare = {
            "kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": meta,
        }  # fmt: skip
        if self._resource.kind in ("Pod", "Job", "Namespace", "Node"):
            bare |= {"spec": {}, "status": {}}
        return encode({"type": "BOOKMARK", "object": bare}) + b"\n"

    def begin(self, since: int | None, initial: bool) -> tuple[Watcher, Iterator[bytes]]:
        """Start at a version, or with all objects that there are when it is None."""
        if since is not None:
            watcher, changes = self._store.watch(self._resource, since)
            self.version = self._store.version
            return watcher, iter([line for c in changes if (line := self._line(c))])
        watcher, _ = self._store.watch(self._resource, self._store.version)
        self.version = self._store.version
        found = self._store.all(self._resource, self._namespace)
        lines = [self._told("ADDED", o) for o in found if self._matches(o)]
        if initial:
            lines.append(self._bookmark(initial=True))
        return watcher, iter(lines)

    async def stream(
        self, request: web.BaseRequest, watcher: Watcher, first: Iterator[bytes], seconds: float
    ) -> web.StreamResponse:
        """Send until the time is over, the client goes or the store is closed."""
        wire = _wire(request)
        loop = asyncio.get_running_loop()
        end = loop.time() + min(seconds or _LONGEST, _LONGEST)
        expiry = loop.time() + self.expires if self.expires else float("inf")
        try:
            # The client must learn that the watch stands before the first event comes.
            await wire.open(request, lambda: watcher.queue.put_nowait(None))
            await wire.send(first)
            while True:
                wait = min(end, expiry) - loop.time()
                if wait <= 0:
                    break
                lines, open_ = await self._next(watcher, min(wait, self.bookmarks or wait))
                if lines:
                    await wire.send(lines)
                elif self.bookmarks and open_:
                    await wire.send([self._bookmark()])
                if not open_:
                    break
            if loop.time() >= expiry:
                gone = Problem(410, "Expired", f"too old resource version: {self.version}")
                await wire.send([_failed(gone)])
            elif self.bookmarks:
                await wire.send([self._bookmark()])
            await wire.close()
        except ConnectionError:
            pass  # the client has had enough, which is how most watches end
        finally:
            self._store.unwatch(watcher)
        return wire.response

    async def _next(self, watcher: Watcher, seconds: float) -> tuple[list[bytes], bool]:
        """Lines of what has happened, at least one unless the time is over; and "goes on"."""
        lines: list[bytes] = []
        try:
            async with asyncio.timeout(seconds):
                while not lines:
                    change = await watcher.queue.get()
                    if change is None:
                        return lines, False
                    lines += filter(None, [self._line(change)])
        except TimeoutError:
            return lines, True
        while not watcher.queue.empty():
            change = watcher.queue.get_nowait()
            if change is None:
                return lines, False
            lines += filter(None, [self._line(change)])
        return lines, True


async def refuse(request: web.BaseRequest, problem: Problem) -> web.StreamResponse:
    """The stream of a watch that cannot start at its version."""
    wire = _wire(request)
    await wire.open(request, lambda: None)
    await wire.send([_failed(problem)])
    await wire.close()
    return wire.response


def _failed(problem: Problem) -> bytes:
    return encode({"type": "ERROR", "object": problem.status()}) + b"\n"


class _Body:
    """Lines go out as one long body."""

    def __init__(self) -> None:
        self.response = web.StreamResponse(headers={"Content-Type": "application/json"})

    async def open(self, request: web.BaseRequest, gone: Callable[[], None]) -> None:
        await self.response.prepare(request)

    async def send(self, lines: Iterable[bytes]) -> None:
        await self.response.write(b"".join(lines))

    async def close(self) -> None:
        await self.response.write_eof()


class _Socket:
    """Each line is a message of a websocket: so clients for Java ask first."""

    def __init__(self) -> None:
        self.response = web.WebSocketResponse()
        self._reader: asyncio.Task[None] | None = None  # kept: the loop itself forgets a task

    async def open(self, request: web.BaseRequest, gone: Callable[[], None]) -> None:
        await self.response.prepare(request)
        self._reader = asyncio.create_task(self._read(gone))

    async def _read(self, gone: Callable[[], None]) -> None:
        """Answer the client's pings, and tell when it closes: else it has nothing to say."""
        async for _ in self.response:
            pass
        gone()

    async def send(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            await self.response.send_str(line.decode())

    async def close(self) -> None:
        await self.response.close()


def _wire(request: web.BaseRequest) -> _Body | _Socket:
    wanted = request.headers.get("Upgrade", "").lower() == "websocket"
    return _Socket() if wanted else _Body()
