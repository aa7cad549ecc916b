"""A server of streams on a free port of 127.0.0.1, in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from abc import ABC, abstractmethod

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class StreamServer(ABC):
    """`port` is open from `start` to `stop`. `limit`: bytes that a reader keeps at once."""

    def __init__(self, name: str, limit: int) -> None:
        self.port = 0
        self._name, self._limit = name, limit
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.Task[None]] = set()
        self._thread: threading.Thread | None = None

    @abstractmethod
    async def serve(self, reader: Reader, writer: Writer) -> None:
        """Serve one client, whose connection is closed afterwards. An OSError ends it."""

    def start(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        # Connections take it over; asyncio sets it itself only where a socket says "TCP".
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = int(listening.getsockname()[1])
        self._thread = threading.Thread(
            target=self._run, args=(listening,), name=self._name, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections; idempotent."""
        if self._thread is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self, listening: socket.socket) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._client, sock=listening, limit=self._limit)
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
        try:
            await self.serve(reader, writer)
        except OSError:  # gone: nobody to tell
            pass
        except asyncio.CancelledError:  # the end of us all: what is still to be written is lost
            writer.transport.abort()
        finally:
            self._open.discard(task)
            writer.close()
