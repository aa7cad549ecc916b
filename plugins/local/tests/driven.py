"""What tests of containers do with a driver, whatever it runs them by."""

from __future__ import annotations

import subprocess
import time
from abc import ABC, abstractmethod
from typing import Any

from portaflow.backend import ContainerSpec, Driver, Handle, LogChunk, State, Status


class Driven(ABC):
    """A driver, and what came of what it was asked to run."""

    driver: Driver[ContainerSpec]
    patience = 20.0  # seconds for something to end
    pause = 0.005  # seconds between two looks

    @abstractmethod
    def start(self, *command: str, **more: Any) -> Handle:
        """Start a container of this test's."""

    def status(self, handle: Handle) -> Status:
        status = self.driver.poll([handle])[handle.name]
        assert isinstance(status, Status), status
        return status

    def wait(self, handle: Handle, seconds: float | None = None) -> Status:
        seconds = self.patience if seconds is None else seconds
        deadline = time.monotonic() + seconds
        while not (status := self.status(handle)).state.final:
            assert time.monotonic() < deadline, f"{status} after {seconds} s"
            time.sleep(self.pause)
        return status

    def log(self, handle: Handle) -> bytes:
        data, chunk = b"", LogChunk(data=b"", cursor="", end=False)
        while not chunk.end:
            chunk = self.driver.logs(handle, chunk.cursor)
            data += chunk.data
        return data

    def output(self, *command: str, **more: Any) -> bytes:
        handle = self.start(*command, **more)
        status = self.wait(handle)
        data = self.log(handle)
        assert status.state is State.SUCCEEDED, (status, data)
        return data


def kill_hard(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream:
            stream.close()
