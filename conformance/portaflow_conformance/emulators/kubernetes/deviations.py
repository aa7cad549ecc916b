"""Where the local Kubernetes is known to differ from a cluster."""

from __future__ import annotations

from ..place import Deviation


def _here(area: str, cloud: str, here: str) -> Deviation:
    return Deviation(f"Kubernetes {area}", cloud, here)


DEVIATIONS: tuple[Deviation, ...] = (
    _here("images", "images come from a registry", "every name is this machine, but .invalid ones"),
    _here("network", "each pod has its own address", "all pods share 127.0.0.1"),
    _here("limits", "memory is limited by a cgroup", "memory is looked at every 50 ms, CPU is not"),
    _here("security", "security contexts are applied", "they are accepted and not applied"),
    _here("probes", "probes and lifecycle hooks run", "a pod with one is refused with 422"),
    _here("exec", "SPDY, websockets and terminals", "websockets alone, no terminal, no attach"),
    _here("bodies", "JSON, YAML and protobuf", "JSON; 415 for the others (`kubectl create job`)"),
    _here("placement", "affinity, tolerations, spread, priority", "kept, but nodeSelector decides"),
    _here(
        "walls",
        "containers are walled off, whoever runs the node",
        "as another user than root maybe not: then no volumes, and a process may leave its pod",
    ),
    _here("apply", "server-side apply", "415 for application/apply-patch+yaml"),
    _here("fields", "unknown fields are refused or dropped", "they are kept"),
    _here("jobs", "pods carry a tracking finalizer", "they do not; the controller remembers them"),
)
