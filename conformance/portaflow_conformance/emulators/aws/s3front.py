"""The TLS server for S3: each call is logged and struck, then streamed to and from the store.

Bodies pass as they are, so that signatures, ranges and checksums are between the client and
the store; memory does not depend on their size.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path

from ..control import Fault
from ..faults import Reset, abort_transport, awaited
from ..place import Place
from ..serving import Reader, StreamServer, Writer
from . import s3calls
from .s3calls import S3Call
from .s3tunnel import CHUNK, Head, Tunnel

_NEW = ("PutObject", "CopyObject", "CompleteMultipartUpload")
_LISTS = ("ListObjectsV2", "ListObjects")


class S3Front(StreamServer):
    """`port` speaks TLS with the certificate given; `store` is the port of the store."""

    def __init__(self, place: Place, pem: Path, store: int) -> None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        super().__init__("s3", CHUNK, tls)
        self._place, self._store = place, store
        self._hidden: dict[tuple[str, str], float] = {}

    async def serve(self, reader: Reader, writer: Writer) -> None:
        tunnel = Tunnel(self._store, reader, writer)
        try:
            while not (tunnel.closes or reader.at_eof()):
                await self._call(tunnel, await Head.read(reader))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                abort_transport(writer.transport)
        except (OSError, EOFError, asyncio.LimitOverrunError, ValueError):
            abort_transport(writer.transport)  # one side is gone, or speaks no HTTP
        finally:
            tunnel.close()

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
