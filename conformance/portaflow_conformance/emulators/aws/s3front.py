"""The TLS server for S3: each call is logged and struck, then streamed to and from the store.

Bodies pass as they are, so that signatures, ranges and checksums are between the client and
the store; memory does not depend on their size.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from pathlib import Path

from ..control import Fault
from ..faults import Reset, abort_transport, awaited
from ..place import Place
from . import s3calls
from .s3calls import S3Call
from .s3tunnel import CHUNK, Head, Reader, Tunnel, Writer

_NEW = ("PutObject", "CopyObject", "CompleteMultipartUpload")
_LISTS = ("ListObjectsV2", "ListObjects")


class S3Front:
    """`port` speaks TLS with the certificate given; `store` is the port of the store."""

    def __init__(self, place: Place, pem: Path, store: int) -> None:
        self._place, self._store = place, store
        self._hidden: dict[tuple[str, str], float] = {}
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(pem)
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        # Connections take it over; asyncio sets it itself only where a socket says "TCP".
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = int(listening.getsockname()[1])
        self._thread = threading.Thread(target=self._run, args=(listening,), name="s3", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self, listening: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._client, sock=listening, limit=CHUNK, ssl=self._tls)
        )
        self._loop.run_forever()
        server.close()
        for task in self._open:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._open, return_exceptions=True))
        self._loop.run_until_complete(asyncio.sleep(0.01))  # transports close their sockets
        self._loop.close()

    async def _client(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        tunnel = Tunnel(self._store, reader, writer)
        try:
            while not (tunnel.closes or reader.at_eof()):
                await self._call(tunnel, await Head.read(reader))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                abort_transport(writer.transport)
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            abort_transport(writer.transport)  # one side is gone, or speaks no HTTP
        except asyncio.CancelledError:
            abort_transport(writer.transport)
        finally:
            self._open.discard(task)
            tunnel.close()
            writer.close()

    async def _call(self, tunnel: Tunnel, head: Head) -> None:
        verb, target, _ = head.first.split(" ", 2)
        call = S3Call.read(verb, target, head.headers)
        params = {k: v for k, v in call.params.items() if k not in ("operation", "principal")}
        fault = self._place.control.called(f"aws:s3.{call.operation}", call.principal, **params)
        effect = fault.effect if fault else ""

        async def apply() -> bytes:
            if effect == "hide" and call.operation in _NEW and fault is not None:
                self._hidden[call.bucket, call.key] = time.monotonic() + fault.seconds
            if call.operation in _LISTS and self._late(call.bucket):
                await tunnel.send(head, lambda listing: self._behind(call.bucket, listing))
            else:
                await tunnel.send(head, silent=effect == "reset-after")
            return b""

        def refuse(fault: Fault) -> bytes:
            if fault.effect == "throttle":
                return s3calls.error(503, "SlowDown", "Please reduce your request rate.", verb)
            return s3calls.error(fault.status, "InternalError", "a fault on order", verb)

        try:
            answer = await awaited(fault, apply, refuse)
        except Reset as reset:
            raise ConnectionResetError(str(reset)) from None
        if answer:
            await tunnel.refuse(head, answer)

    def _late(self, bucket: str) -> bool:
        now = time.monotonic()
        self._hidden = {name: until for name, until in self._hidden.items() if until > now}
        return any(name[0] == bucket for name in self._hidden)

    def _behind(self, bucket: str, listing: bytes) -> bytes:
        return s3calls.without(listing, lambda key: (bucket, key) in self._hidden)
