"""A server with a thread for each connection, on a free port of 127.0.0.1."""

from __future__ import annotations

import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_LINGER = 2.0  # seconds for a client to read the answer to what it has not sent to its end
_JOIN = 2.0
_HERE: dict[int, ThreadServer] = {}


class ThreadServer(ABC):
    """`port` is open from `start` to `stop`."""

    def __init__(self, name: str) -> None:
        self.port = 0
        self._name = name
        self._open: dict[threading.Thread, Callable[[], None]] = {}
        self._changing = threading.Lock()
        self._stopped = False

    @abstractmethod
    def serve(self, connection: socket.socket) -> None:
        """Serve one client, and close its connection. An OSError ends it."""

    def start(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = int(self._listening.getsockname()[1])
        _HERE[self.port] = self
        threading.Thread(target=self._accept, name=self._name, daemon=True).start()

    def take(self, connection: socket.socket) -> None:
        """Serve a client that somebody else has accepted."""
        connection.setblocking(True)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = f"{self._name}-{connection.fileno()}"
        threading.Thread(target=self._serve, args=(connection,), name=name, daemon=True).start()

    def stop(self) -> None:
        """Close the port and all connections; idempotent."""
        _HERE.pop(self.port, None)
        with self._changing:
            self._stopped = True
            left = list(self._open.items())
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._listening.close()
        for _, end in left:
            end()
        for thread, _ in left:
            thread.join(_JOIN)

    @contextmanager
    def ends(self, end: Callable[[], None]) -> Iterator[None]:
        """While it is entered, `end` is what lets this thread's client see the end of us all."""
        thread = threading.current_thread()
        with self._changing:
            if self._stopped:
                raise ConnectionAbortedError("the server was stopped")
            self._open[thread] = end
        try:
            yield
        finally:
            with self._changing:
                del self._open[thread]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.take(self._listening.accept()[0])

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            self.serve(connection)


def server_at(port: int) -> ThreadServer | None:
    """The server of this process that has a port: a connection can be handed to it as it is."""
    return _HERE.get(port)


def linger(connection: socket.socket) -> None:
    """Say that no more comes, and wait until the client has heard: a close with something unread
    would be a reset, and take away what the client has not read yet."""
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_WR)
        connection.settimeout(_LINGER)
        while socket.socket.recv(connection, 2**16):
            pass
