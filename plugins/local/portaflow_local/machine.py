"""What a daemon's machine has to give, and as whom a container runs there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from portaflow.backend import Finding
from portaflow.errors import BackendError, RejectedError

from . import daemon

_NOBODY = 65534  # user and group of that name on nearly every system
_SMALLER = "give the task a smaller size in its target: [targets.NAME.tasks.TASK] size = {...}"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the daemon says of itself; none of it changes while it runs."""

    cores: float  # 0 when it does not say
    memory: int  # bytes; 0 when it does not say
    podman: bool
    rootless: bool  # root in a container is whoever runs the daemon, and nobody more

    @classmethod
    def of(cls, api: Any) -> Machine:
        """Ask the daemon: one call, and a slow one."""
        with daemon.told("the daemon's machine"):
            return cls.said(api.info())

    @classmethod
    def said(cls, info: Mapping[str, Any]) -> Machine:
        options = info.get("SecurityOptions") or ()
        return cls(
            cores=info.get("NCPU") or 0,
            memory=info.get("MemTotal") or 0,
            podman="BuildahVersion" in info,
            rootless=any(str(o).startswith("name=rootless") for o in options),
        )

    def check(self, host: Mapping[str, Any]) -> None:
        """Raise RejectedError for what a container's HostConfig asks for in vain.

        Both daemons take a limit that is more than there is, and run the container smaller;
        Podman ignores devices that are asked for in Docker's words.
        """
        cores = host.get("CpuQuota", 0) / (host.get("CpuPeriod") or 1)
        if self.cores and cores > self.cores:
            raise RejectedError(
                f"{cores:g} cores: the daemon's machine has {self.cores:g}; {_SMALLER}"
            )
        memory = host.get("Memory", 0)
        if self.memory and memory > self.memory:
            raise RejectedError(
                f"{memory / 2**30:g} GiB of memory: the daemon's machine has "
                f"{self.memory / 2**30:.1f}; {_SMALLER}"
            )
        if self.podman and host.get("DeviceRequests"):
            raise RejectedError(
                "a gpu: Podman ignores it when asked through Docker's API; use Docker"
            )

    def user(self, folders: Sequence[Any]) -> tuple[str, list[str]]:
        """As whom a container runs when neither the target nor its image says it; more groups.

        It is you: what it writes to the store's folder is then yours, and it can do there
        what you can. Only when you are root for the daemon is the difference worth making: a
        container that is given no folder is nobody. One that is given yours stays root, since
        nobody but root can write to what root has made; a target's `user` says otherwise.
        With a daemon without root you are root in a container and there alone.
        """
        if self.rootless or os.getuid() == 0:
            user = 0 if folders else _NOBODY
            return f"{user}:{user}", []
        return f"{os.getuid()}:{os.getgid()}", [str(group) for group in os.getgroups()]


def look(configured: str, user: str) -> Iterable[Finding]:
    """What `doctor` finds at the daemon of a config."""
    what = "Docker or Podman daemon"
    try:
        at = daemon.url(configured)
        api = daemon.connect(at)
    except BackendError as error:
        text, _, fix = str(error).rpartition("; ")
        yield Finding(what=what, ok=False, detail=text, fix=fix)
        return
    try:
        with daemon.told(what):
            info, version = api.info(), api.version()
    except BackendError as error:
        yield Finding(what=what, ok=False, detail=str(error), fix=daemon.START_ONE)
        return
    finally:
        api.close()
    product = (version.get("Components") or [{"Name": "Docker"}])[0]["Name"]
    yield Finding(what=what, ok=True, detail=f"{product} {version['Version']} at {at}")
    missing = [k for k in ("MemoryLimit", "CpuCfsQuota") if info.get(k) is False]
    yield Finding(
        what="limits of containers",
        ok=not missing,
        detail=f"the daemon has no {' and '.join(missing)}" if missing else "enforced",
        fix="boot with cgroup v2 and let it delegate cpu and memory" if missing else "",
    )
    mine, _ = Machine.said(info).user(["a folder"])
    rest = ", and nobody where there is no folder" if mine == "0:0" else ""
    yield Finding(
        what="user of containers",
        ok=True,
        detail=user or f"the image's own, else {mine}{rest}",
    )
