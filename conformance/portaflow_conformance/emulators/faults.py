"""What an ordered fault does to one call, whatever server the call came in by.

    fault = control.called("aws:emr.RunJobFlow", principal, Name=name)
    return struck(fault, apply, refuse)         # awaited(...) where the server is asyncio

`apply` does the call. `refuse(fault)` builds the provider's own error, for "throttle", "error"
and "deny" (its status is 403). A reset raises `Reset`, after a while where a call is held; the
server then breaks the connection with
`abort_socket`, `abort_transport` or `place.abort(port of the peer)`, so that the client gets no
answer and cannot know whether the call was applied. The other effects (hang, fail, die, hide,
...) are about what a call begins: they are the stand-in's own to honour, and `apply` runs.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from .control import Fault

Answer = TypeVar("Answer")

LOST = ("reset-after", "hold")  # the effects that take an answer away
_PAUSE = 0.005  # seconds
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Reset(ConnectionResetError):
    """Break the connection without an answer. `applied`: the call has had its effect."""

    def __init__(self, applied: bool) -> None:
        super().__init__(f"a fault on order: reset {'after' if applied else 'before'} the effect")
        self.applied = applied


def struck(
    fault: Fault | None, apply: Callable[[], Answer], refuse: Callable[[Fault], Answer]
) -> Answer:
    """Return the answer to a call that `fault` strikes, if there is one. May raise Reset."""
    refused = _begins(fault)
    if fault is not None and fault.effect == "latency":
        time.sleep(fault.seconds)
    if refused and fault is not None:
        return refuse(fault)
    try:
        return apply()
    finally:  # an error is an answer, too
        for pause in _held(fault):
            time.sleep(pause)
        _ends(fault)


async def awaited(
    fault: Fault | None,
    apply: Callable[[], Awaitable[Answer]],
    refuse: Callable[[Fault], Answer],
) -> Answer:
    """`struck` for a server that is asyncio: `apply` is a coroutine function."""
    refused = _begins(fault)
    if fault is not None and fault.effect == "latency":
        await asyncio.sleep(fault.seconds)
    if refused and fault is not None:
        return refuse(fault)
    try:
        return await apply()
    finally:
        for pause in _held(fault):
            await asyncio.sleep(pause)
        _ends(fault)


def _begins(fault: Fault | None) -> bool:
    """Whether the provider refuses the call; a reset before its effect is raised."""
    if fault is not None and fault.effect == "reset-before":
        raise Reset(applied=False)
    return fault is not None and fault.effect in ("throttle", "error", "deny")


def _held(fault: Fault | None) -> Iterator[float]:
    """Pauses, for as long as the answer to a call that was applied is held back."""
    if fault is not None and fault.effect == "hold":
        fault.held, until = True, time.monotonic() + fault.seconds
        while fault.held and time.monotonic() < until:
            yield _PAUSE
        fault.held = False


def _ends(fault: Fault | None) -> None:
    if fault is not None and fault.effect in LOST:
        raise Reset(applied=True)


def abort_socket(connection: socket.socket) -> None:
    """Reset a connection (RST, no FIN), TLS or not: `handler.connection` of http.server,
    `environ["werkzeug.socket"]` of werkzeug.

    The server's own code must not write to it afterwards, or must bear that this fails.
    """
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    with suppress(OSError):
        # TLS lets go of the descriptor, or a later read would take it from the file that gets its
        # number next. Nothing is sent by that.
        connection.shutdown(socket.SHUT_RD)
    with suppress(OSError):
        # A file made from the socket (rfile, wfile) would keep it open past close().
        socket.close(connection.detach())


def abort_transport(transport: Any) -> None:
    """Reset a connection of asyncio: `request.transport` of aiohttp."""
    connection = transport.get_extra_info("socket")
    if connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
