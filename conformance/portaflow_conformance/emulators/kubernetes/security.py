"""What a container's security context makes of its process: user, groups, capabilities."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .problems import Json


class Unsafe(Exception):
    """A container would run as root though it must not."""


@dataclass(frozen=True, slots=True)
class Security:
    """`user` None is that of the image, which is root."""

    user: int | None = None
    group: int | None = None
    groups: tuple[int, ...] = ()
    read_only: bool = False  # the root file system
    escalates: bool = True  # whether it may gain privileges
    dropped: tuple[str, ...] = ()

    @classmethod
    def of(cls, pod: Json, container: Json, image_user: int = 0) -> Security:
        """Raises Unsafe."""
        shared: Mapping[str, Any] = pod["spec"].get("securityContext") or {}
        own: Mapping[str, Any] = {**shared, **(container.get("securityContext") or {})}
        user = own.get("runAsUser")
        if own.get("runAsNonRoot") and (image_user if user is None else user) == 0:
            meta = pod["metadata"]
            who = (
                f'(pod: "{meta["name"]}_{meta["namespace"]}({meta["uid"]})", '
                f"container: {container['name']})"
            )
            if user == 0:
                raise Unsafe(f"container's runAsUser breaks non-root policy {who}")
            raise Unsafe(f"container has runAsNonRoot and image will run as root {who}")
        groups = [*(shared.get("supplementalGroups") or [])]
        if shared.get("fsGroup") is not None:
            groups.append(shared["fsGroup"])
        return cls(
            user=user if user is not None else (image_user or None),
            group=own.get("runAsGroup"),
            groups=tuple(groups),
            read_only=bool(own.get("readOnlyRootFilesystem")),
            escalates=own.get("allowPrivilegeEscalation") is not False,
            dropped=tuple((own.get("capabilities") or {}).get("drop") or ()),
        )

    def words(self, *, may_change: bool) -> list[str]:
        """The command before a command; `may_change`: whether users can be changed here."""
        options: list[str] = []
        changes = self.user is not None or self.group is not None or self.groups
        if may_change and changes:
            user = self.user or 0
            group = self.group if self.group is not None else 0
            groups = ",".join(map(str, self.groups))
            options += ["--reuid", str(user), "--regid", str(group)]
            options += ["--groups", groups] if groups else ["--clear-groups"]
        if not self.escalates:
            options.append("--no-new-privs")
        if may_change and self.dropped:
            drop = ",".join(f"-{c.lower().removeprefix('cap_')}" for c in self.dropped)
            options += [f"--inh-caps={drop}", f"--bounding-set={drop}"]
        return [shutil.which("setpriv") or "setpriv", *options, "--"] if options else []


def share(folder: Path, group: int) -> None:
    """Give a volume to a group, as `fsGroup` asks for."""
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, -1, group)
        path.chmod(path.stat().st_mode | (0o2070 if path.is_dir() else 0o060))
