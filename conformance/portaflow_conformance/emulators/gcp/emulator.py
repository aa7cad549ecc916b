"""The local GCP as a stand-in: what it starts, which hosts it answers for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, ClassVar

from ..environment import routing
from ..place import Emulator, Place
from ..proxy import Proxy
from . import billing
from .crossing import Crossing
from .driver import GCS
from .gcs import Gcs
from .iam import Credentials, Metadata
from .permissions import HOSTS, Permissions
from .rest import Rest
from .rpc import Rpc, Service
from .tokens import Tokens
from .wire import HttpServer, Request, Response

if TYPE_CHECKING:  # costs a second and 50 MB: not before a call needs it
    from .dataproc import Dataproc

PROJECT = "portaflow-local"
REGION = "us-central1"
_HTTP = (
    *("storage.googleapis.com", "*.storage.googleapis.com", "www.googleapis.com"),
    *("oauth2.googleapis.com", "accounts.google.com"),
    *("iamcredentials.googleapis.com", "sts.googleapis.com"),
    *(billing.HOST, *HOSTS),
)
_RPC = (
    *("dataproc.googleapis.com", "*-dataproc.googleapis.com"),
    *("container.googleapis.com", "secretmanager.googleapis.com"),
)


class GcpEmulator(Emulator):
    name: ClassVar[str] = "gcp"
    connector = GCS

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._undo = ExitStack()
        self._http = self._grpc = 0
        self._loading = threading.Lock()
        self._dataproc: Dataproc | None = None

    def start(self) -> None:
        place = self.place
        self.tokens = Tokens(place.folder, PROJECT)
        self.gcs = Gcs(place.folder / "gcs", place.control, self.tokens)
        for bucket in place.buckets:
            self.gcs.objects.ensure_bucket(bucket)
        pem = place.authority.issue("*.googleapis.com", *_HTTP)
        crossing = Crossing(lambda: self._grpc)
        served = HttpServer(self._answer, pem, crossing)
        served.start()
        self._undo.callback(served.stop)
        self._undo.callback(self.gcs.closing.set)
        self._http = served.port
        metadata = HttpServer(Metadata(place.control, self.tokens, PROJECT, REGION))
        metadata.start()
        self._undo.callback(metadata.stop)
        self._metadata = f"127.0.0.1:{metadata.port}"
        self._credentials = Credentials(place.control, self.tokens)
        self._permissions = Permissions(place.control, self.tokens)
        self._billing = billing.Billing(place.control, self.tokens)
        # What a job calls goes by a way of its own: it runs on this machine, and must not
        # reach a real cloud from it.
        proxy = Proxy(place.control, self._reached_by_jobs)
        proxy.start()
        self._undo.callback(proxy.stop)
        self._jobs_env = {**routing(place.folder, place.authority, proxy.port), **self.env()}
        self._undo.callback(self._stop_dataproc)

        def abort(port: int) -> bool:
            peer = crossing.peer(port)
            return place.abort(peer) or proxy.abort(peer)

        rpc = Rpc(replace(place, abort=abort), self.tokens, pem, self._services())
        self._undo.callback(rpc.stop)
        self._grpc = rpc.port
        self._rest = Rest(rpc)

    def _answer(self, request: Request) -> Response:
        """Answer what came by HTTP, for whichever host."""
        if request.host == "iamcredentials.googleapis.com":
            return self._credentials(request)
        if request.host in HOSTS:
            return self._permissions(request)
        if request.host == billing.HOST:
            return self._billing(request)
        rest = any(fnmatchcase(request.host, pattern) for pattern in _RPC)
        return self._rest(request) if rest else self.gcs(request)

    def _services(self) -> Mapping[str, Callable[[], Service]]:
        dataproc = "google.cloud.dataproc.v1"
        return {
            f"{dataproc}.ClusterController": lambda: self._loaded().clusters.service(),
            f"{dataproc}.JobController": lambda: self._loaded().jobs.service(),
            f"{dataproc}.BatchController": lambda: self._loaded().batches.service(),
            f"{dataproc}.AutoscalingPolicyService": lambda: self._loaded().policies.service(),
            "google.longrunning.Operations": lambda: self._loaded().operations.service(),
            "google.storage.v2.Storage": self._storage,
            "google.container.v1.ClusterManager": self._container,
            "google.cloud.secretmanager.v1.SecretManagerService": _secrets,
        }

    def _loaded(self) -> Dataproc:
        with self._loading:
            if self._dataproc is None:
                from .dataproc import Dataproc
                from .driver import Shop

                folder = self.place.folder / "drivers"
                shop = Shop(folder, self.gcs.objects, self._jobs_env, self.tokens.key_file, PROJECT)
                self._dataproc = Dataproc(self.place, shop)
            return self._dataproc

    def _stop_dataproc(self) -> None:
        if self._dataproc is not None:
            self._dataproc.stop()

    def _storage(self) -> Service:
        from .gcs_grpc import GrpcApi

        return GrpcApi(self.gcs.objects, self.gcs.uploads, PROJECT).service()

    def _container(self) -> Service:
        from .container import Container

        return Container(self.place, self.tokens, PROJECT, REGION).service()

    def _reached_by_jobs(self) -> Mapping[str, int]:
        routes: dict[str, int] = {}
        for other in self.place.others.values():
            routes |= other.routes()
        return {**routes, **self.routes()}

    def routes(self) -> Mapping[str, int]:
        return dict.fromkeys((*_HTTP, *_RPC), self._http)

    def env(self) -> Mapping[str, str]:
        key = str(self.tokens.key_file)
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": key,
            "GOOGLE_SERVICE_ACCOUNT": key,  # obstore's word for it
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "CLOUDSDK_CORE_PROJECT": PROJECT,
            "CLOUDSDK_COMPUTE_REGION": REGION,
            "GCE_METADATA_HOST": self._metadata,
            "GCE_METADATA_IP": self._metadata,  # Python's word for where to look for one
            "NO_GCE_CHECK": "true",  # who has no key is not to be taken for a machine
        }

    def stop(self) -> None:
        self._undo.close()


def _secrets() -> Service:
    from .secretmanager import SecretManager

    return SecretManager().service()
