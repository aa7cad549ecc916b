"""The way into the local clouds: a proxy that knows their hosts, and refuses all others.

Clients ask an HTTPS proxy for a tunnel by the name of the host, before they resolve it. So a
name leads to a local port without a word in the client's configuration, regional endpoints
included, and nothing that goes by the proxy can reach a real cloud by mistake.

Only CONNECT to port 443 is served. Plain HTTP is refused for every host, known ones too: no
cloud is spoken to in the clear.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import cast

from .control import Control
from .faults import abort_transport
from .serving import Reader, StreamServer, Writer
from .threads import ThreadServer, server_at

_CHUNK = 2**18  # bytes read at once
_HEAD = 30.0  # seconds a client may take to say where it wants to go
_LINGER = 5.0  # seconds for one direction of a tunnel to end after the other has
_TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REQUEST = re.compile(rb"([A-Z]+) (?:[a-z]+://)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d+))?")

Streams = tuple[Reader, Writer]


class Proxy(StreamServer):
    """Tunnels to the ports that `routes()` names, on 127.0.0.1."""

    def __init__(self, control: Control, routes: Callable[[], Mapping[str, int]]) -> None:
        super().__init__("proxy", 2 * _CHUNK)
        self._control = control
        self._routes = routes
        self._tunnels: dict[int, tuple[Writer, Writer]] = {}

    def abort(self, port: int) -> bool:
        """Reset the tunnel whose end a server sees as its peer's `port`; is there one?"""
        tunnel = self._tunnels.get(port)
        if tunnel is None:
            return False
        self._loop.call_soon_threadsafe(_reset, *tunnel)
        return True

    async def serve(self, reader: Reader, writer: Writer) -> None:
        try:
            async with asyncio.timeout(_HEAD):
                head = await reader.readuntil(b"\r\n\r\n")
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        asked = _REQUEST.match(head)
        if not asked:
            await _refuse(writer, 400, "that is no request to a proxy")
            return
        verb, host, port = (part.decode() if part else "" for part in asked.groups())
        if verb != "CONNECT" or port != "443":
            self._control.note("proxy:Refused", host=host, port=int(port or 80))
            why = f"portaflow emulate refuses {host}:{port or 80}: only https to port 443 is served"
            await _refuse(writer, 403, why)
            return
        local = route(host, self._routes())
        if local is None:
            self._control.note("proxy:Refused", host=host, port=443)
            await _refuse(writer, 403, f"portaflow emulate refuses {host}: no stand-in has it")
            return
        if server := server_at(local):
            await _hand_over(server, reader, writer)
            return
        try:
            there = await self._connected(local)
        except OSError:
            await _refuse(writer, 502, f"the stand-in for {host} does not answer")
            return
        writer.write(_TUNNEL)
        await self._tunnel((reader, writer), there)

    async def _connected(self, port: int) -> Streams:
        """A connection to a stand-in, with a port of our side that names this tunnel alone.

        The kernel gives one port to several connections if they lead to different servers.
        """
        while True:
            there = await asyncio.open_connection("127.0.0.1", port, limit=2 * _CHUNK)
            if _port(there) not in self._tunnels:
                return there
            there[1].close()

    async def _tunnel(self, here: Streams, there: Streams) -> None:
        port = _port(there)
        self._tunnels[port] = (here[1], there[1])
        ways = [
            asyncio.ensure_future(_pipe(here[0], there[1])),
            asyncio.ensure_future(_pipe(there[0], here[1])),
        ]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if not any(way.exception() for way in done):
                done, _ = await asyncio.wait(ways, timeout=_LINGER)
            if any(way.exception() for way in done):
                _reset(here[1], there[1])  # a reset on one side is one on the other, too
        except asyncio.CancelledError:
            _reset(here[1], there[1])
            raise
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            del self._tunnels[port]
            there[1].close()


def route(host: str, routes: Mapping[str, int]) -> int | None:
    """The port for a host: of the patterns that match, that with the most literal characters."""
    name = host.lower().rstrip(".")
    found = [pattern for pattern in routes if fnmatchcase(name, pattern.lower())]
    if not found:
        return None
    return routes[max(found, key=lambda pattern: len(re.sub(r"\[[^]]*\]|[*?]", "", pattern)))]


def _port(streams: Streams) -> int:
    port: int = streams[1].get_extra_info("sockname")[1]
    return port


async def _hand_over(server: ThreadServer, reader: Reader, writer: Writer) -> None:
    """Give the connection itself to a server of this process: no byte passes here any more."""
    transport = cast(asyncio.Transport, writer.transport)
    transport.pause_reading()
    reader.feed_eof()
    if await reader.read():
        await _refuse(writer, 400, "wait for the tunnel before you use it")
        return
    connection = socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno()))
    try:
        connection.sendall(_TUNNEL)
    except OSError:
        connection.close()
        raise
    server.take(connection)


async def _pipe(reader: Reader, writer: Writer) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):  # the other side may have closed at the same time
        writer.write_eof()


async def _refuse(writer: Writer, status: int, why: str) -> None:
    """Say it in the reason phrase too: that is all that most clients show."""
    body = f"{why}\n".encode()
    head = (
        f"HTTP/1.1 {status} {why}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()


def _reset(*writers: Writer) -> None:
    for writer in writers:
        abort_transport(writer.transport)
