"""The websocket of an exec or attach: several streams in one, as Kubernetes numbers them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from aiohttp import WSMsgType, web

from .asked import Asked
from .problems import Json
from .process import Process

_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255


class Channel:
    """One client's conversation with a process. `output` takes what the process writes."""

    def __init__(self, asked: Asked) -> None:
        tty = asked.flag("tty")
        self._wanted = {"stdout": asked.flag("stdout"), "stderr": asked.flag("stderr") and not tty}
        self._reads = asked.flag("stdin")
        self._output: asyncio.Queue[bytes] = asyncio.Queue()
        self._socket = web.WebSocketResponse(protocols=_PROTOCOLS, max_msg_size=0)

    def output(self, stream: str, data: bytes) -> None:
        if self._wanted[stream]:
            self._output.put_nowait(bytes([_STDOUT if stream == "stdout" else _STDERR]) + data)

    async def refuse(
        self, request: web.BaseRequest, command: list[str], error: str
    ) -> web.StreamResponse:
        """Tell that a command could not be started."""
        await self._socket.prepare(request)
        await self._tell(_exec_failed(command, error))
        return self._socket

    async def converse(
        self, request: web.BaseRequest, process: Process, *, kill: bool
    ) -> web.StreamResponse:
        """Until the process has ended or the client has gone; `kill`: then it ends, too."""
        await self._socket.prepare(request)
        reader = asyncio.ensure_future(self._input(process))
        try:
            await self._send(process, reader)
            if process.ended.done():
                await self._tell(_exit_status(process.ended.result() if kill else 0))
        except ConnectionError:
            pass  # the client has gone
        finally:
            if kill:
                process.kill()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
        return self._socket

    async def _send(self, process: Process, reader: asyncio.Future[None]) -> None:
        """Send all that comes until the process has ended, or nobody listens any more."""
        while not (process.ended.done() and self._output.empty()):
            getting = asyncio.ensure_future(self._output.get())
            any_: set[asyncio.Future[Any]] = {getting, process.ended, reader}
            await asyncio.wait(any_, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                await self._socket.send_bytes(getting.result())
                continue
            getting.cancel()
            if reader.done():
                return

    async def _input(self, process: Process) -> None:
        async for message in self._socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                continue
            data = message.data if isinstance(message.data, bytes) else message.data.encode()
            number, rest = (data[0], data[1:]) if data else (-1, b"")
            if number == _STDIN and rest and self._reads:
                process.feed(rest)
            elif number == _CLOSE and self._reads:
                process.feed(b"")
            elif number == _RESIZE:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    size = json.loads(rest)
                    process.resize(int(size["Width"]), int(size["Height"]))

    async def _tell(self, status: Json) -> None:
        await self._socket.send_bytes(bytes([_ERROR]) + json.dumps(status).encode())
        await self._socket.close()


def _exit_status(code: int) -> Json:
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }  # fmt: skip


def _exec_failed(command: list[str], error: str) -> Json:
    text = f'error executing command in container: exec failed: "{command[0]}": {error}'
    return {
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": f"Internal error occurred: {text}",
        "details": {"causes": [{"message": text}]},
    }  # fmt: skip
