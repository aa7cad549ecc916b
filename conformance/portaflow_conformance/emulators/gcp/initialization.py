"""Initialization actions of Dataproc's clusters: scripts that run before a cluster does."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..running import Running
from .driver import Shop
from .items import GcsError

_USUAL = 600.0  # seconds that an action may take


class Initialization:
    """Runs the actions of a cluster one after the other, as its first master does.

    `look` is called again and again until it tells how it ended. Time is the control's: an
    action is late after a jump of the clock, too.
    """

    def __init__(self, shop: Shop, cluster: Any, now: Callable[[], float]) -> None:
        self._shop, self._now = shop, now
        self._actions = list(cluster.config.initialization_actions)
        self._folder = shop.folder / f"cluster-{cluster.cluster_uuid}"
        place = f"{cluster.cluster_uuid}/{cluster.config.master_config.instance_names[0]}"
        base = f"gs://{cluster.config.config_bucket}/google-cloud-dataproc-metainfo/{place}"
        self._base = f"{base}/dataproc-initialization-script-"
        self._number = 0
        self._running: Running | None = None
        self._ends = 0.0

    def look(self) -> str | None:
        """None while it goes on, "" when all went well, else what went wrong."""
        while self._number < len(self._actions):
            try:
                problem = self._step()
            except (GcsError, OSError) as error:
                problem = f"failed ({error})"
            if problem is None:
                return None
            if problem:
                self.stop()
                action = self._actions[self._number].executable_file
                where = f"{self._base}{self._number}_output"
                said = f"Initialization action {problem}. Failed action '{action}'"
                return f"{said}, see output in: {where}"
            self._running = None
            self._number += 1
        self.stop()
        return ""

    def _step(self) -> str | None:
        action = self._actions[self._number]
        output = self._folder / f"output-{self._number}"
        if self._running is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            script = self._folder / f"dataproc-initialization-script-{self._number}"
            self._shop.fetch(action.executable_file, script)
            script.chmod(0o700)
            timeout = action.execution_timeout.ToTimedelta().total_seconds()
            self._ends = self._now() + (timeout or _USUAL)
            # Its Python has Google's libraries, as that of Dataproc's machines has.
            path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
            self._running = Running(
                [str(script)],
                self._folder,
                env={"PATH": path, "HOME": str(self._folder), **self._shop.env},
                stdout=output,
                stderr=output,
            )
        code = self._running.poll()
        late = code is None and self._now() >= self._ends
        if code is None and not late:
            return None
        if late:
            self._running.stop(grace=0)
        self._shop.keep(f"{self._base}{self._number}_output", output.read_bytes())
        return "timed out" if late else "failed" if code else ""

    def stop(self) -> None:
        """End what runs; idempotent."""
        if self._running is not None:
            self._running.stop(grace=0)
        shutil.rmtree(self._folder, ignore_errors=True)
