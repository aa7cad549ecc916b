"""A real S3 on loopback: SeaweedFS, in the clear, for Spark and for what clients see."""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from ..running import Running

_PATIENCE = 60.0  # a loaded machine; mostly it is there in less than a second


class Seaweed:
    """`port` speaks plain HTTP; `domains` are the hosts before which a bucket may stand.

    `removes` is told of the sockets that weed makes in /tmp, whatever options and TMPDIR say, and
    leaves there.
    """

    def __init__(
        self,
        folder: Path,
        domains: Iterable[str],
        key: str,
        secret: str,
        removes: Callable[[Path], None],
    ) -> None:
        (folder / "data").mkdir(parents=True)
        config = folder / "s3.json"
        credentials = [{"accessKey": key, "secretKey": secret}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "portaflow", "credentials": credentials, "actions": actions}
        config.write_text(json.dumps({"identities": [identity]}), "utf-8")
        names = ("master", "volume", "filer", "s3", "admin")
        free = iter(_free(2 * len(names)))
        ports: list[str] = []
        for name in names:
            own, grpc = next(free), next(free)
            ports += [f"-{name}.port={own}", f"-{name}.port.grpc={grpc}"]
            removes(Path(f"/tmp/seaweedfs-{name}-grpc-{grpc}.sock"))
            if name == "s3":
                self.port = own
        self._log = folder / "weed.log"
        command = [
            *(str(Path(sys.executable).with_name("weed")), "mini", f"-dir={folder / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", *ports),
            *("-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-s3.domainName={','.join(domains)}", f"-s3.config={config}"),
            *("-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"),
            # Else they are in /tmp, too. A whole path may be too long for a socket.
            *("-s3.localSocket=s3.sock", "-filer.localSocket=filer.sock"),
        ]
        env = {"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "GOGC": "50"}
        self._running = Running(command, folder, env=env, stdout=self._log, stderr=self._log)

    def wait(self) -> None:
        """Return when it answers."""
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            if self._running.poll() is not None or time.monotonic() > end:
                said = self._log.read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"SeaweedFS did not start; see what it said:\n{said}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> None:
        self._running.stop()


def _free(count: int) -> list[int]:
    """Ports below those that the system gives out: another server would get one before weed."""
    found: list[int] = []
    with ExitStack() as held:
        while len(found) < count:
            port = random.randrange(15_000, 32_000)
            one = held.enter_context(socket.socket())
            with suppress(OSError):  # taken
                one.bind(("127.0.0.1", port))
                found.append(port)
    return found
