"""One host, two protocols: storage.googleapis.com is spoken to by HTTP and by gRPC.

A client of gRPC says in the first message of TLS that it speaks HTTP/2 and nothing else; who
speaks HTTP offers HTTP/1.1, too, or says nothing. So a connection is told by its first bytes,
before TLS begins, and what belongs to the server of gRPC is carried there as it comes.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

_ONLY_H2 = b"\x00\x10\x00\x05\x00\x03\x02h2"  # the extension ALPN of a ClientHello, whole
_RECORD = 5  # bytes before a record of TLS: its type, version and length
_CHUNK = 2**18


class Crossing:
    """Carries connections to the server at `port()`."""

    def __init__(self, port: Callable[[], int]) -> None:
        self._port = port
        self._peers: dict[int, int] = {}

    def peer(self, port: int) -> int:
        """The port of the client, for that which the other server sees as its peer's."""
        return self._peers.get(port, port)

    def carried(self, here: socket.socket, patience: float) -> bool:
        """Carry a connection until it ends, if it is for gRPC; it is untouched if not."""
        if _ONLY_H2 not in _hello(here, patience):
            return False
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port())) as there:
            name = there.getsockname()[1]
            self._peers[name] = here.getpeername()[1]
            back = threading.Thread(target=_pipe, args=(there, here), daemon=True)
            back.start()
            _pipe(here, there)
            back.join()
            del self._peers[name]
        return True


def _hello(connection: socket.socket, patience: float) -> bytes:
    """The first record that a client of TLS sends, left where it is."""
    connection.settimeout(None)  # else nothing waits for all of it
    wait = struct.pack("ll", int(patience), 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, wait)
    look = socket.MSG_PEEK | socket.MSG_WAITALL
    try:
        head = connection.recv(_RECORD, look)
        if len(head) < _RECORD:
            return b""
        return connection.recv(_RECORD + int.from_bytes(head[3:]), look)
    except OSError:
        return b""
    finally:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bytes(len(wait)))


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    """Give on what comes; the end of one side, or its break, is the end of the other."""
    try:
        while data := source.recv(_CHUNK):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
