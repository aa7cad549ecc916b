"""What streams from a pod: its logs, its containers' own streams, and those of commands beside."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from datetime import datetime

from aiohttp import web

from . import podspec, problems
from .asked import Asked
from .channels import Channel
from .container import Container
from .kubelet import Kubelet
from .logs import View
from .problems import Json, Problem

Stream = Callable[[web.BaseRequest, Asked, Json], Awaitable[web.StreamResponse]]


class Streams:
    """Serves the subresources log and exec."""

    def __init__(self, kubelet: Kubelet) -> None:
        self._kubelet = kubelet

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

    # -- exec and attach

    async def exec(self, request: web.BaseRequest, asked: Asked, pod: Json) -> web.StreamResponse:
        command = request.query.getall("command", [])
        if not command:
            raise problems.bad_request("you must specify at least 1 command for the container")
        container = self._running(request, asked, pod, "exec into")
        channel = Channel(asked)
        try:
            beside = await container.beside(
                command, channel.output, stdin=asked.flag("stdin"), terminal=asked.flag("tty")
            )
        except OSError as error:
            return await channel.refuse(request, command, str(error))
        if beside is None:
            raise _not_found(container.name)
        return await channel.converse(request, beside, kill=True)

    async def attach(self, request: web.BaseRequest, asked: Asked, pod: Json) -> web.StreamResponse:
        container = self._running(request, asked, pod, "attach to")
        process = container.process
        if process is None:
            raise _not_found(container.name)
        channel = Channel(asked)
        container.attached.append(channel.output)
        try:
            return await channel.converse(request, process, kill=False)
        finally:
            container.attached.remove(channel.output)
            if asked.flag("stdin") and container.spec.get("stdinOnce"):
                process.feed(b"")

    def _running(self, request: web.BaseRequest, asked: Asked, pod: Json, verb: str) -> Container:
        """The container that is meant, when it can be spoken to."""
        phase = pod["status"].get("phase")
        if phase in ("Succeeded", "Failed"):
            raise problems.bad_request(
                f"cannot {verb} a container in a completed pod; current phase is {phase}"
            )
        if request.headers.get("Upgrade", "").lower() != "websocket":
            raise problems.bad_request(
                "unable to upgrade: not implemented by this stand-in: other than by websocket "
                "(kubectl has it from 1.31 on)"
            )
        name = _chosen(pod, asked.query.get("container", ""))
        container = self._container(pod, name)
        if container is None or container.process is None:
            raise _not_found(name)
        return container


def _not_found(name: str) -> Problem:
    text = f'unable to upgrade connection: container not found ("{name}")'
    return Problem(500, "InternalError", text, {})


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
