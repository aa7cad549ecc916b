"""What a pod has from its node: a way to the other stand-ins, and an identity there.

On a cloud a pod reaches buckets by the network, as whom its node or its account is. Here both
are an environment, and files that it names: the container sees them below a folder of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from ..environment import routing
from ..place import Place
from ..proxy import Proxy
from .sandbox import Mount

_WHERE = "/opt/portaflow"
_OURS = ("KUBECONFIG",)  # a pod has its account's token instead


class Network:
    """The way to the stand-ins that run beside this one; none when it runs alone."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._folder = place.folder / "network"
        self._proxy: Proxy | None = None
        self._env: dict[str, str] | None = None

    def start(self) -> None:
        self._folder.mkdir(mode=0o755)
        self._proxy = Proxy(self._place.control, self._routes)
        self._proxy.start()

    def stop(self) -> None:
        if self._proxy is not None:
            self._proxy.stop()

    def _routes(self) -> Mapping[str, int]:
        routes: dict[str, int] = {}
        for other in self._place.others.values():
            routes |= other.routes()
        return routes

    def mount(self) -> Mount:
        return Mount(self._folder, _WHERE, read_only=True)

    def env(self) -> Mapping[str, str]:
        """What a container is given; asked for first when all stand-ins have started."""
        if self._env is None:
            assert self._proxy is not None
            authority = self._place.authority
            env = routing(self._folder, authority, self._proxy.port)
            for other in self._place.others.values():
                env |= other.env()
            shown = [authority.bundle, authority.truststore, *self._files(env)]
            for number, file in enumerate(dict.fromkeys(shown)):
                copy = self._folder / f"{number}-{file.name}"
                shutil.copyfile(file, copy)
                copy.chmod(0o644)
                env = {k: v.replace(str(file), str(copy)) for k, v in env.items()}
            self._env = {
                k: v.replace(str(self._folder), _WHERE) for k, v in env.items() if k not in _OURS
            }
        return self._env

    def _files(self, env: Mapping[str, str]) -> list[Path]:
        """Files of other stand-ins that the environment names."""
        return [Path(v) for v in env.values() if v.startswith("/") and Path(v).is_file()]
