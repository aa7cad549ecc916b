"""Where the local Kubernetes is known to differ from a cluster."""

from __future__ import annotations

from ..place import Deviation


def _here(area: str, cloud: str, here: str) -> Deviation:
    return Deviation(f"Kubernetes {area}", cloud, here, key=f"kubernetes_{area.replace(' ', '_')}")


DEVIATIONS: tuple[Deviation, ...] = (
    _here(
        "images",
        "images come from a registry",
        "every name is this machine, but .invalid ones; real ones by Podman alone",
    ),
    _here(
        "accounts",
        "a namespace has the account default alone",
        "the namespace default has spark, too, whose pods may make pods",
    ),
    _here(
        "spark",
        "the Spark project's image has its own version, and no connector to a store",
        "apache/spark has the Spark that is installed, and reads the stores that run beside",
    ),
    _here("network", "each pod has its own address", "all pods share 127.0.0.1"),
    _here("names", "Services have names in DNS", "in /etc/hosts of pods that start after them"),
    _here(
        "limits",
        "memory and CPU are limited by cgroups",
        "memory is looked at every 50 ms, CPU is not; by Podman memory has a cgroup",
    ),
    _here(
        "security",
        "seccomp, AppArmor and SELinux apply, and few capabilities are there from the start",
        "users, groups, read-only roots, escalation and dropped capabilities alone; users when "
        "root has started it",
    ),
    _here("probes", "probes speak gRPC, too", "a pod with such a probe is refused with 422"),
    _here("exec", "SPDY and websockets", "websockets alone: kubectl has them from 1.31 on"),
    _here("bodies", "answers in JSON, protobuf and CBOR", "takes JSON, YAML, protobuf; JSON back"),
    _here("placement", "affinity, tolerations, spread, priority", "kept, but nodeSelector decides"),
    _here(
        "walls",
        "containers are walled off, whoever runs the node",
        "started by a user who may make no namespaces: no volumes, and a process may leave its pod",
    ),
    _here("claims", "persistent volumes and their claims", "a claim gets 403, a pod with one 422"),
    _here("sidecars", "init containers that go on", "a pod with one is refused with 422"),
    _here("kinds", "Deployments, CronJobs and many more", "404 that names the kind"),
    _here("openapi", "describes all its kinds", "what apply needs; nothing for `kubectl explain`"),
    _here("jobs", "pods carry a tracking finalizer", "they do not; the controller remembers them"),
)
