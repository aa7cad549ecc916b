"""The TLS server for S3: each call is logged and struck, then streamed to and from the store.

Bodies pass as they are, so that signatures, ranges and checksums are between the client and
the store; memory does not depend on their size.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from pathlib import Path

from ..control import Fault
from ..faults import LOST, abort_socket, struck
from ..place import Place
from ..threads import ThreadServer, linger
from . import s3calls, s3regions
from .keys import Keys
from .rest import RefusedError
from .s3calls import S3Call
from .s3sign import resigned
from .s3tunnel import Head, Tunnel

_NEW = ("PutObject", "CopyObject", "CompleteMultipartUpload")
_LISTS = ("ListObjectsV2", "ListObjects")
_PLACES = ("CreateBucket", "DeleteBucket", "GetBucketLocation", "HeadBucket")

_HANDSHAKE = 30.0  # seconds


class S3Front(ThreadServer):
    """`port` speaks TLS with the certificate given; `store` is the port of the store."""

    def __init__(self, place: Place, pem: Path, store: int, keys: Keys) -> None:
        super().__init__("s3")
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(pem)
        self._place, self._store, self._keys = place, store, keys
        self.regions = s3regions.Regions()
        self._lock = threading.Lock()
        self._hidden: dict[tuple[str, str], float] = {}

    def serve(self, connection: socket.socket) -> None:
        connection.settimeout(_HANDSHAKE)
        with self._tls.wrap_socket(connection, server_side=True) as client:
            client.settimeout(None)
            tunnel = Tunnel(self._store, client)
            with self.ends(tunnel.end):
                try:
                    while not tunnel.closes and (head := tunnel.head()) is not None:
                        self._call(tunnel, head)
                    linger(client)
                except (OSError, EOFError, ValueError):  # gone, reset on order, or no HTTP
                    abort_socket(client)
                finally:
                    tunnel.close()

    def _call(self, tunnel: Tunnel, head: Head) -> None:
        verb, target, _ = head.first.split(" ", 2)
        call = S3Call.read(verb, target, head.headers)
        params = {k: v for k, v in call.params.items() if k not in ("operation", "principal")}
        fault = self._place.control.called(f"aws:s3.{call.operation}", call.principal, **params)
        effect = fault.effect if fault else ""

        def apply() -> bytes:
            if refused := self._misplaced(tunnel, head, call, verb):
                return refused
            if effect == "hide" and call.operation in _NEW and fault is not None:
                with self._lock:
                    self._hidden[call.bucket, call.key] = time.monotonic() + fault.seconds
            if call.operation in _LISTS and self._late(call.bucket):
                tunnel.send(head, lambda listing: self._behind(call.bucket, listing))
            elif call.operation in _PLACES:
                self._place_of(tunnel, head, call, silent=effect in LOST)
            else:
                tunnel.send(head, silent=effect in LOST)
            return b""

        def refuse(fault: Fault) -> bytes:
            if fault.effect == "throttle":
                return s3calls.error(503, "SlowDown", "Please reduce your request rate.", verb)
            if fault.effect == "deny":
                return s3calls.error(403, "AccessDenied", "Access Denied", verb)
            return s3calls.error(fault.status, "InternalError", "a fault on order", verb)

        try:
            if self._keys.given(call.principal):
                head = resigned(head, self._keys)
        except RefusedError as error:
            answer = s3calls.error(error.status, error.code, error.message, verb)
        else:
            answer = struck(fault, apply, refuse)
        if answer:
            tunnel.refuse(head, answer)

    def _misplaced(self, tunnel: Tunnel, head: Head, call: S3Call, verb: str) -> bytes:
        """The answer to what should have gone to another region."""
        if call.operation == "CreateBucket":
            return s3regions.refused(call, s3regions.wanted(tunnel.body(head)), verb)
        return self.regions.elsewhere(call, verb)

    def _place_of(self, tunnel: Tunnel, head: Head, call: S3Call, *, silent: bool) -> None:
        """Do a call that places a bucket, or tells of its place."""
        region = s3regions.wanted(tunnel.body(head))
        home = self.regions.home(call.bucket) or s3regions.FIRST
        if call.operation == "GetBucketLocation":
            tunnel.send(head, lambda _: s3regions.location(home), silent=silent)
        elif call.operation == "HeadBucket":
            tunnel.send(head, more=s3calls.region_header(home), silent=silent)
        elif tunnel.send(head, silent=silent) >= 300:
            return
        elif call.operation == "CreateBucket":
            self.regions.made(call.bucket, region)
        else:
            self.regions.gone(call.bucket)

    def _late(self, bucket: str) -> bool:
        now = time.monotonic()
        with self._lock:
            self._hidden = {name: until for name, until in self._hidden.items() if until > now}
            return any(name[0] == bucket for name in self._hidden)

    def _behind(self, bucket: str, listing: bytes) -> bytes:
        return s3calls.without(listing, lambda key: (bucket, key) in self._hidden)
