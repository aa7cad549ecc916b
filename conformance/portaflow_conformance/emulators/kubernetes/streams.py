"""What streams from a pod: its logs, and commands run beside it by websocket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from aiohttp import WSMsgType, web

from . import podspec, problems
from .asked import Asked
from .container import Container
from .kubelet import Kubelet
from .logs import View
from .problems import Json, Problem
from .process import Process
from .sandbox import Sandbox
from .store import Store

Stream = Callable[[web.BaseRequest, Asked, Json], Awaitable[web.StreamResponse]]

_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _ERROR, _CLOSE = 0, 1, 2, 3, 255


class Streams:
    """Serves the subresources log and exec."""

    def __init__(self, store: Store, kubelet: Kubelet, sandbox: Sandbox) -> None:
        self._store = store
        self._kubelet = kubelet
        self._sandbox = sandbox

    def served(self) -> dict[str, Stream]:
        """What serves each subresource."""
        return {"log": self.log, "exec": self.exec, "attach": self.attach}

    # -- logs

    async def log(self, request: web.BaseRequest, asked: Asked, pod: Json) -> web.StreamResponse:
        name = _chosen(pod, asked.query.get("container", ""))
        container = self._container(pod, name)
        logs = container.logs if container is not None else []
        if asked.flag("previous"):
            logs = container.before if container is not None else []
            if not logs:
                where = f'"{name}" in pod "{pod["metadata"]["name"]}"'
                raise problems.bad_request(f"previous terminated container {where} not found")
        if not logs:
            waiting = (container.state.get("waiting") or {}) if container is not None else {}
            raise problems.bad_request(
                f'container "{name}" in pod "{pod["metadata"]["name"]}" is waiting to start: '
                f"{waiting.get('reason', 'ContainerCreating')}"
            )
        view = self._view(asked)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async for data in view.of(logs[-1]):
                await response.write(data)
            await response.write_eof()
        return response

    def _container(self, pod: Json, name: str) -> Container | None:
        worker = self._kubelet.workers.get(pod["metadata"]["uid"])
        return worker.container(name) if worker is not None else None

    def _view(self, asked: Asked) -> View:
        since = 0.0
        if (seconds := asked.number("sinceSeconds")) is not None:
            if seconds < 1:
                raise _invalid_option("sinceSeconds", seconds, "must be greater than 0")
            since = datetime.now().timestamp() - seconds
        if given := asked.query.get("sinceTime"):
            if since:
                raise _invalid_option("", given, "at most one of `sinceTime` or `sinceSeconds`")
            try:
                since = datetime.fromisoformat(given).timestamp()
            except ValueError:
                raise problems.bad_request(f'parsing time "{given}": cannot parse') from None
        limit = asked.number("limitBytes")
        if limit is not None and limit < 1:
            raise _invalid_option("limitBytes", limit, "must be greater than 0")
        return View(
            follow=asked.flag("follow"), timestamps=asked.flag("timestamps"), since=since,
            tail=asked.number("tailLines"), limit=limit, stream=asked.query.get("stream") or "All",
        )  # fmt: skip

    async def attach(self, request: web.BaseRequest, asked: Asked, pod: Json) -> web.StreamResponse:
        raise problems.bad_request("x")

    # -- exec

    async def exec(self, request: web.BaseRequest, asked: Asked, pod: Json) -> web.StreamResponse:
        command = request.query.getall("command", [])
        if not command:
            raise problems.bad_request("you must specify at least 1 command for the container")
        phase = pod["status"].get("phase")
        if phase in ("Succeeded", "Failed"):
            raise problems.bad_request(
                f"cannot exec into a container in a completed pod; current phase is {phase}"
            )
        if asked.flag("tty"):
            raise problems.bad_request("not implemented by this stand-in: exec with a terminal")
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise problems.bad_request(
                "unable to upgrade: not implemented by this stand-in: exec other than by websocket"
            )
        name = _chosen(pod, asked.query.get("container", ""))
        container = self._container(pod, name)
        process = container.process if container is not None else None
        pid = await process.inside() if process is not None else None
        if container is None or pid is None:
            text = f'unable to upgrade connection: container not found ("{name}")'
            raise Problem(500, "InternalError", text, {})
        socket = web.WebSocketResponse(protocols=_PROTOCOLS, max_msg_size=0)
        await socket.prepare(request)
        await self._exec(socket, asked, container, pid, command)
        return socket

    async def _exec(
        self, socket: web.WebSocketResponse, asked: Asked, container: Container, pid: int,
        command: list[str],
    ) -> None:  # fmt: skip
        output: asyncio.Queue[bytes] = asyncio.Queue()
        wanted = {"stdout": asked.flag("stdout"), "stderr": asked.flag("stderr")}

        def sink(stream: str, data: bytes) -> None:
            if wanted[stream]:
                output.put_nowait(bytes([_STDOUT if stream == "stdout" else _STDERR]) + data)

        try:
            process = Process(
                self._sandbox.inside(pid, command), env=container.env, folder=container.home,
                sink=sink, isolated=False, stdin=asked.flag("stdin"),
            )  # fmt: skip
        except OSError as error:
            await self._tell(socket, _exec_failed(command, str(error)))
            return
        reader = asyncio.ensure_future(self._input(socket, process))
        try:
            await self._output(socket, process, output)
            code = process.ended.result()
            await self._tell(socket, _exit_status(code))
        except ConnectionError:
            pass  # the client has gone
        finally:
            process.kill()
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader

    async def _output(
        self, socket: web.WebSocketResponse, process: Process, output: asyncio.Queue[bytes]
    ) -> None:
        """Send all that comes until the process has ended."""
        while not (process.ended.done() and output.empty()):
            getting = asyncio.ensure_future(output.get())
            either: set[asyncio.Future[Any]] = {getting, process.ended}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                await socket.send_bytes(getting.result())
            else:
                getting.cancel()

    async def _input(self, socket: web.WebSocketResponse, process: Process) -> None:
        async for message in socket:
            if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                continue
            data = message.data if isinstance(message.data, bytes) else message.data.encode()
            if data[:1] == bytes([_STDIN]) and len(data) > 1:
                process.feed(data[1:])
            elif data[:1] == bytes([_CLOSE]):
                process.feed(b"")
        process.kill()  # the client has gone

    async def _tell(self, socket: web.WebSocketResponse, status: Json) -> None:
        await socket.send_bytes(bytes([_ERROR]) + json.dumps(status).encode())
        await socket.close()


def _chosen(pod: Json, name: str) -> str:
    """The container that is meant."""
    mains = [c["name"] for c in pod["spec"]["containers"]]
    inits = [c["name"] for c in pod["spec"].get("initContainers") or []]
    where = pod["metadata"]["name"]
    if not name:
        if len(mains) == 1:
            return str(mains[0])
        extra = f" or one of the init containers: [{' '.join(inits)}]" if inits else ""
        raise problems.bad_request(
            f"a container name must be specified for pod {where}, choose one of: "
            f"[{' '.join(mains)}]{extra}"
        )
    if name not in [c["name"] for c in podspec.containers(pod["spec"])]:
        raise problems.bad_request(f"container {name} is not valid for pod {where}")
    return name


def _invalid_option(field: str, value: object, detail: str) -> Problem:
    causes = problems.Causes()
    causes.invalid(field, value, detail)
    text = f'PodLogOptions "" is invalid: {field}: Invalid value: {value}: {detail}'
    return Problem(422, "Invalid", text, {"kind": "PodLogOptions", "causes": list(causes)})


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
