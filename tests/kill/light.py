"""A compute backend without Spark: clusters and jobs are real processes that outlive the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from portaflow_local.process import ProcessDriver

from portaflow.backend import ClusterSpec, ComputeCluster, Handle, JobSpec, Request
from portaflow.errors import NotFoundError


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
