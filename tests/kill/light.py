"""A plugin for tests: compute without Spark, and a store whose disk fills up on demand.

Clusters and jobs are real processes that outlive the engine.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from portaflow_local.folder import Folder, FolderFileSystem
from portaflow_local.process import ProcessDriver

from portaflow.backend import ClusterSpec, ComputeCluster, Handle, JobSpec, Request
from portaflow.errors import NotFoundError
from portaflow.hookspecs import BackendSpec, hookimpl


@hookimpl
def portaflow_backends() -> Iterable[BackendSpec]:
    return (
        BackendSpec("light", "compute", "light:Light"),
        BackendSpec("moody", "store", "light:Moody"),
    )


@dataclass(frozen=True, kw_only=True)
class Config:
    root: Path = Path("light")


class Clusters(ProcessDriver[ClusterSpec]):
    def request(self, name: str, spec: ClusterSpec, parent: str = "") -> Request:
        ledger = spec.conf.get("ledger") or "/dev/null"
        command = ["sh", "-c", 'echo "cluster begins" >>"$0"; exec sleep 600', ledger]
        return _request(name, spec, command, {})


class Jobs(ProcessDriver[JobSpec]):
    def __init__(self, root: Path, clusters: Clusters) -> None:
        super().__init__(root, "job")
        self._clusters = clusters

    def request(self, name: str, spec: JobSpec, parent: str = "") -> Request:
        command = ["sh", spec.main.removeprefix("file://"), *spec.args]
        return _request(name, spec, command, spec.env) | {"cluster": parent}

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        if parent is None or parent.name not in {h.name for h in self._clusters.owned()}:
            raise NotFoundError(f"cluster {request['cluster']!r} is not there")
        return super().start(request, parent)


def _request(
    name: str, spec: ClusterSpec | JobSpec, command: list[str], env: Mapping[str, str]
) -> dict[str, object]:
    return {
        "name": name, "owner": spec.owner, "ttl": spec.ttl, "grace": spec.grace,
        "command": command, "env": dict(env), "secrets": {},
    }  # fmt: skip


class Light(ComputeCluster):
    name = "light"
    Config = Config

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._clusters = Clusters(config.root, "cluster")
        self._jobs = Jobs(config.root, self._clusters)

    @property
    def clusters(self) -> Clusters:
        return self._clusters

    @property
    def jobs(self) -> Jobs:
        return self._jobs


class MoodyFileSystem(FolderFileSystem):
    """Writes nothing whose path holds the text of the file ROOT.full or ROOT.refuses."""

    def _key(self, path: str) -> str:
        key = super()._key(path)
        for number, mood in ((errno.ENOSPC, "full"), (errno.EACCES, "refuses")):
            mark = Path(f"{self.root}.{mood}")
            if mark.exists() and mark.read_text().strip() in key:
                raise OSError(number, os.strerror(number), key)
        return key


class Moody(Folder):
    name = "moody"

    def filesystem(self) -> Any:
        return MoodyFileSystem(root=str(self.config.root))
