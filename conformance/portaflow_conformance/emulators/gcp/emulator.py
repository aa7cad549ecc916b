"""The local GCP as a stand-in: what it starts, which hosts it answers for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import ClassVar

from ..place import Emulator, Place
from .gcs import Gcs
from .tokens import Tokens
from .wire import HttpServer

PROJECT = "portaflow-local"
REGION = "us-central1"
_HTTP = (
    *("storage.googleapis.com", "*.storage.googleapis.com", "www.googleapis.com"),
    *("oauth2.googleapis.com", "accounts.google.com"),
    *("iamcredentials.googleapis.com", "sts.googleapis.com"),
)


class GcpEmulator(Emulator):
    name: ClassVar[str] = "gcp"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._undo = ExitStack()
        self._http = 0

    def start(self) -> None:
        place = self.place
        self.tokens = Tokens(place.folder, PROJECT)
        self.gcs = Gcs(place.folder / "gcs", place.control, self.tokens)
        pem = place.authority.issue(*_HTTP)
        served = HttpServer(self.gcs, pem)
        inside = HttpServer(self.gcs.inside)
        for server in (served, inside):
            server.start()
            self._undo.callback(server.stop)
        self._undo.callback(self.gcs.closing.set)
        self._http = served.port

    def routes(self) -> Mapping[str, int]:
        return dict.fromkeys(_HTTP, self._http)

    def env(self) -> Mapping[str, str]:
        key = str(self.tokens.key_file)
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": key,
            "GOOGLE_SERVICE_ACCOUNT": key,  # obstore's word for it
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "CLOUDSDK_CORE_PROJECT": PROJECT,
            "CLOUDSDK_COMPUTE_REGION": REGION,
            "NO_GCE_CHECK": "true",  # else clients look for a metadata server
        }

    def stop(self) -> None:
        self._undo.close()
