"""The stand-in for a Kubernetes cluster: API server, one node, controllers, in one thread."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import ssl
import sys
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from portaflow.errors import PluginError

from ..control import Fault
from ..place import Emulator, Place
from .access import Access, Authenticator
from .admission import Admission
from .api import Api
from .container import Machine
from .deletion import Deletion
from .events import Events
from .folders import FolderImage, WithFolders
from .images import Images
from .jobs import JobController
from .kubelet import Kubelet
from .network import Network
from .podman import Podman
from .problems import Json
from .resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS
from .roles import Roles
from .runtime import HostProcesses, Runtime
from .sandbox import Sandbox
from .server import Server
from .store import Change, Store
from .streams import Streams

Result = TypeVar("Result")

_ADDRESS = "127.0.0.1"
_NAMESPACES = ("default", "kube-system", "kube-public")
_LOG_SIZE = 10 * 2**20  # bytes after which a kubelet rotates a log
_SETUPS = max((os.cpu_count() or 1) - 1, 1)  # containers at a time: one processor is the server's
_PODS = "PORTAFLOW_EMULATE_PODS"
_STOP = 30.0  # seconds that all pods have to be gone


class KubernetesEmulator(Emulator):
    """`images` says which images there are and what they bring; `log_size` when logs rotate."""

    name = "kubernetes"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.images = Images()
        self.log_size = _LOG_SIZE
        self.access = Access(place.control.now)
        self._network = Network(place)
        self._folders: dict[str, FolderImage] = {}
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._disk = ThreadPoolExecutor(1, "kubernetes-disk")
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        return f"https://{_ADDRESS}:{self.port}"

    @property
    def kubeconfig(self) -> Path:
        """Contexts: "portaflow" may do all, "viewer" may read all but secrets."""
        return self.place.folder / "kubeconfig"

    def authenticate_by(self, ask: Authenticator) -> None:
        """Also take tokens that `ask` knows: those of EKS and GKE."""
        self.access.authenticators.append(ask)

    def routes(self) -> Mapping[str, int]:
        return {}  # clients get the address from the kubeconfig, or from EKS and GKE

    def env(self) -> Mapping[str, str]:
        return {"KUBECONFIG": str(self.kubeconfig)}

    def start(self) -> None:
        self._folders = {n: FolderImage.of(folder) for n, folder in self.place.images.items()}
        ready: list[BaseException | None] = []
        up = threading.Event()

        def serve() -> None:
            loop = asyncio.new_event_loop()
            try:
                loop.run_until_complete(self._open(loop))
            except BaseException as error:
                ready.append(error)
                up.set()
                loop.close()
                return
            self._loop = loop
            up.set()
            loop.run_forever()
            loop.close()

        self.place.folder.mkdir(parents=True, exist_ok=True)
        self._thread = threading.Thread(target=serve, name="kubernetes", daemon=True)
        self._thread.start()
        up.wait()
        if ready and ready[0] is not None:
            raise ready[0]
        self._write_kubeconfig()

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        place = self.place
        await loop.run_in_executor(self._disk, threading.get_ident)  # starts the thread
        self.store = store = Store(place.control.now)
        sandbox = Sandbox(_made(place.folder / "sandbox"))
        certificate = place.authority.issue(
            "kubernetes.default.svc", "kubernetes", "kubernetes.default", "localhost", _ADDRESS
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        deletion = Deletion(store)
        admission = Admission(store, mounts_tokens=sandbox.isolated)
        api = Api(store, self.access, deletion, admission)
        self.access.roles = roles = Roles(store)
        roles.furnish()
        events = Events(store)
        self._socket = _bound()
        self.port = self._socket.getsockname()[1]
        self._runtime = self._chosen(sandbox)
        machine = Machine(
            store, self._runtime, place.pace, self.log_size, _ADDRESS,
            asyncio.Semaphore(_SETUPS), self._disk, self._token,
            self.access.revoke, lambda reference: self.kubelet.pulled(reference),
        )  # fmt: skip
        self.kubelet = Kubelet(machine, place.control, events, _made(place.folder / "pods"))
        jobs = JobController(store, api.add, deletion, events, place.pace)
        store.listeners.append(self._furnish)
        for name in _NAMESPACES:
            api.add(NAMESPACES, "", {"metadata": {"name": name}})
        roles.furnish_spark(_NAMESPACES[0])
        self.kubelet.register()
        streams = Streams(self.kubelet)
        server = Server(
            api,
            place.control,
            {"log": streams.log, "exec": streams.exec, "attach": streams.attach},
            self._ordered,
        )
        self._background = loop.create_task(jobs.run())
        # A client that goes ends its request: a log that is followed would stay for ever.
        self._runner = web.ServerRunner(
            web.Server(server.handle, handler_cancellation=True, access_log=None)
        )
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket, ssl_context=context, backlog=1024).start()

    def _chosen(self, sandbox: Sandbox) -> Runtime:
        """What runs the pods, as the environment says."""
        given = os.environ.get(_PODS, "")
        if given == Podman.scheme:
            return Podman(self.place.folder, self._base_env())
        if given not in ("", HostProcesses.scheme):
            raise PluginError(
                f"{_PODS} is {given!r}; pods run by {HostProcesses.scheme!r} (as when it is not "
                f"set) or by {Podman.scheme!r}"
            )
        processes = HostProcesses(sandbox, self.images, self._base_env())
        beside = len(self.place.others) > 1 and processes.mounts
        if beside:
            self._network.start()
        network = self._network if beside else None
        connectors = [e.connector for e in self.place.others.values() if e.connector]
        folder = self.place.folder / "spark"
        return WithFolders(processes, self._folders, network, folder, connectors)

    def _base_env(self) -> dict[str, str]:
        here = str(Path(sys.executable).parent)
        return {
            "PATH": f"{here}:{os.environ.get('PATH', '/usr/local/bin:/usr/bin:/bin')}",
            "HOME": "/root" if os.getuid() == 0 else "/tmp",
            "LANG": "C.UTF-8",
            "KUBERNETES_SERVICE_HOST": _ADDRESS,
            "KUBERNETES_SERVICE_PORT": str(self.port),
            "KUBERNETES_SERVICE_PORT_HTTPS": str(self.port),
        }

    def _furnish(self, change: Change) -> None:
        """Put into a new namespace what every namespace has."""
        if change.resource is not NAMESPACES or change.type != "ADDED":
            return
        name = change.object["metadata"]["name"]
        account: Json = {
            "kind": "ServiceAccount", "apiVersion": "v1",
            "metadata": {"name": "default", "namespace": name},
        }  # fmt: skip
        self.store.add(SERVICE_ACCOUNTS, account)
        bundle: Json = {
            "kind": "ConfigMap", "apiVersion": "v1",
            "metadata": {"name": "kube-root-ca.crt", "namespace": name},
            "data": {"ca.crt": self.place.authority.bundle.read_text()},
        }  # fmt: skip
        self.store.add(CONFIG_MAPS, bundle)

    def _token(self, namespace: str, account: str, seconds: int) -> str:
        return self.access.for_account(namespace, account, seconds)[0]

    def _ordered(self, fault: Fault, uid: str) -> None:
        self.kubelet.faults[uid] = fault

    def _write_kubeconfig(self) -> None:
        users = {"portaflow": self.access.admin, "viewer": self.access.viewer}
        cluster = {"server": self.url, "certificate-authority": str(self.place.authority.bundle)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "portaflow", "cluster": cluster}],
            "users": [{"name": n, "user": {"token": t}} for n, t in users.items()],
            "contexts": [
                {"name": n, "context": {"cluster": "portaflow", "user": n, "namespace": "default"}}
                for n in users
            ],
            "current-context": "portaflow",
        }
        self.kubeconfig.touch(0o600)
        self.kubeconfig.write_text(json.dumps(config, indent=1), "utf-8")

    def evict(
        self, namespace: str, name: str, message: str = "The node was low on memory."
    ) -> None:
        """Evict a pod as a node under pressure does."""
        self._call(self.kubelet.evict(namespace, name, message))

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_STOP)

    def stop(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(self._close(), loop).result(_STOP)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            self._disk.shutdown()
            self._network.stop()
            if self._thread is not None:
                self._thread.join(_STOP)
            shutil.rmtree(self.place.folder, ignore_errors=True)

    async def _close(self) -> None:
        self._background.cancel()
        self.store.close()
        await self.kubelet.close()
        await self._runtime.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        assert self._runner.server is not None
        open_ = [handler.transport for handler in self._runner.server.connections]
        await self._runner.cleanup()
        for transport in filter(None, open_):
            transport.abort()  # a client need not answer for this to end
        for _ in range(5):
            await asyncio.sleep(0)  # let the transports close their sockets


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bound() -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((_ADDRESS, 0))
    return bound
