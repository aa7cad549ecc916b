"""Probes and lifecycle hooks of one container: what is asked of it while it runs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol

from .problems import Json
from .process import Process, Sink

_SHOWN = 1024  # bytes of a failed command's output that are told


class Probed(Protocol):
    """What a container must be able to do for its probes."""

    spec: Json
    name: str

    async def beside(self, command: list[str], sink: Sink) -> Process | None: ...

    async def stop(self, grace: float) -> None: ...


class Health:
    """Starts anew with each run: `started` and `ready` are what the status tells."""

    def __init__(
        self, container: Probed, address: str, grace: float, changed: Callable[[], None],
        event: Callable[[str, str, str], None],
    ) -> None:  # fmt: skip
        self._container = container
        self._address = address
        self._grace = grace
        self._changed = changed
        self._event = event
        spec = container.spec
        self.started = spec.get("startupProbe") is None
        self.ready = self.started and spec.get("readinessProbe") is None

    async def watch(self) -> None:
        """Run the hook after the start, then the probes, until somebody cancels it."""
        if not await self._hooked():
            return
        spec = self._container.spec
        if (probe := spec.get("startupProbe")) is not None:
            await self._probe("Startup", probe, self._startup)
            self.ready = self.started and spec.get("readinessProbe") is None
            self._changed()
        others = (("Liveness", self._liveness), ("Readiness", self._readiness))
        await asyncio.gather(*(
            self._probe(kind, spec[f"{kind.lower()}Probe"], heed)
            for kind, heed in others if spec.get(f"{kind.lower()}Probe") is not None
        ))  # fmt: skip

    async def _hooked(self) -> bool:
        hook = (self._container.spec.get("lifecycle") or {}).get("postStart")
        if hook is None:
            return True
        if not (why := await self._handle(hook, None)):
            return True
        self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {why}")
        self._event("Normal", "Killing", "FailedPostStartHook")
        await self._container.stop(self._grace)
        return False

    async def before_stop(self, grace: float) -> float:
        """Run the hook before the end; return what it leaves of the grace."""
        hook = (self._container.spec.get("lifecycle") or {}).get("preStop")
        if hook is None:
            return grace
        clock = asyncio.get_running_loop().time
        start = clock()
        if why := await self._handle(hook, grace):
            self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {why}")
        return max(grace - (clock() - start), 2.0)  # a kubelet gives two seconds at least

    async def _startup(self, good: bool, probe: Json) -> bool:
        self.started = good
        return True if good else await self._kill("startup", probe)

    async def _liveness(self, good: bool, probe: Json) -> bool:
        return False if good else await self._kill("liveness", probe)

    async def _readiness(self, good: bool, probe: Json) -> bool:
        if good != self.ready:
            self.ready = good
            self._changed()
        return False

    async def _kill(self, kind: str, probe: Json) -> bool:
        told = f"Container {self._container.name} failed {kind} probe, will be restarted"
        self._event("Normal", "Killing", told)
        grace = probe.get("terminationGracePeriodSeconds")
        await self._container.stop(self._grace if grace is None else grace)
        return True

    async def _probe(
        self, kind: str, probe: Json, heed: Callable[[bool, Json], Awaitable[bool]]
    ) -> None:
        """Probe again and again; `heed` hears of it at the thresholds and says when it is over."""
        await asyncio.sleep(probe.get("initialDelaySeconds") or 0)
        good = bad = 0
        while True:
            if why := await self._handle(probe, probe["timeoutSeconds"]):
                good, bad = 0, bad + 1
                self._event("Warning", "Unhealthy", f"{kind} probe failed: {why}")
            else:
                good, bad = good + 1, 0
            reached = good >= probe["successThreshold"] or bad >= probe["failureThreshold"]
            if reached and await heed(good > 0, probe):
                return
            await asyncio.sleep(probe["periodSeconds"])

    async def _handle(self, handler: Json, seconds: float | None) -> str:
        """Do what a probe or hook says; return why it failed, or nothing."""
        try:
            async with asyncio.timeout(seconds):
                if (told := handler.get("exec")) is not None:
                    return await self._exec(told.get("command") or [])
                if (told := handler.get("httpGet")) is not None:
                    return await self._http(told)
                if (told := handler.get("tcpSocket")) is not None:
                    _, writer = await asyncio.open_connection(*self._where(told))
                    await _close(writer)
                if (told := handler.get("sleep")) is not None:
                    await asyncio.sleep(told["seconds"])
        except TimeoutError:
            return f"timed out after {seconds:g}s"
        except (OSError, ValueError, IndexError) as error:
            return str(error) or repr(error)
        return ""

    def _where(self, told: Json) -> tuple[str, int]:
        port = told["port"]
        for one in self._container.spec.get("ports") or []:
            if one.get("name") == port:
                port = one["containerPort"]
        return told.get("host") or self._address, int(port)

    async def _exec(self, command: list[str]) -> str:
        said = bytearray()
        process = await self._container.beside(command, lambda stream, data: said.extend(data))
        if process is None:
            return "the container does not run"
        try:
            code = await asyncio.shield(process.ended)
        finally:
            process.kill()
        return f"exit code {code}: {said[:_SHOWN].decode(errors='replace')}" if code else ""

    async def _http(self, told: Json) -> str:
        host, port = self._where(told)
        context = None
        if told.get("scheme") == "HTTPS":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.33", "Accept": "*/*"}
            headers |= {h["name"]: h["value"] for h in told.get("httpHeaders") or []}
            lines = [f"GET {told.get('path') or '/'} HTTP/1.1", "Connection: close"]
            lines += [f"{k}: {v}" for k, v in headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            await writer.drain()
            code = int((await reader.readline()).split()[1])
        finally:
            await _close(writer)
        return "" if 200 <= code < 400 else f"HTTP probe failed with statuscode: {code}"


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
