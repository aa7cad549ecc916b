"""One process of a container, watched by the event loop: its output, its end, its memory."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

_CHUNK = 2**16
_DRAIN = 2.0  # seconds that output may still come in after the end
_LOOK = 0.05  # seconds between two looks at the memory
_FEW = 4  # processes that may have a full share of the processors each
_NICE = "10"
_PAGE = os.sysconf("SC_PAGE_SIZE")

Sink = Callable[[str, bytes], None]  # "stdout" or "stderr", what was written


class Process:
    """Starts at once. `sink` gets the output; `ended` is done with the exit code.

    All is in the thread of the event loop: no thread for each process, and no wait that blocks.
    """

    _running: ClassVar[int] = 0

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        folder: Path,
        sink: Sink,
        isolated: bool,
        stdin: bool = False,
        terminal: bool = False,
        memory: int | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._isolated = isolated
        self._sink = sink
        self._memory = memory
        self.oom = False
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._terminal = -1
        given = subprocess.PIPE if stdin else subprocess.DEVNULL
        output, other = subprocess.PIPE, -1
        if terminal:
            self._terminal, other = os.openpty()
            given = output = other
        try:
            self._process = subprocess.Popen(
                command, env=dict(env), cwd=folder, stdin=given, stdout=output, stderr=output,
                bufsize=0, start_new_session=True,
            )  # fmt: skip
        except OSError:
            if terminal:
                os.close(self._terminal)
                os.close(other)
            raise
        # A session has a processor's share of its own (autogroup): a hundred containers would
        # leave a hundredth to the server that they are clients of. A few need not be last.
        Process._running += 1
        if Process._running > _FEW:
            with suppress(OSError):
                Path(f"/proc/{self._process.pid}/autogroup").write_text(_NICE)
        self._fed = bytearray()
        self._fed_all = self._feeding = False
        self._input = self._terminal if terminal else -1
        if self._process.stdin is not None:
            self._input = self._process.stdin.fileno()
            os.set_blocking(self._input, False)
        self._open: dict[int, str] = {}
        if terminal:
            os.close(other)
            self._open[self._terminal] = "stdout"
        for name, file in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            if file is not None:
                self._open[file.fileno()] = name
        for fd in self._open:
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, self._read, fd)
        self._exit = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._exit, self._exited)
        self._code: int | None = None
        self._drain: asyncio.TimerHandle | None = None

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # of a terminal that nobody has open any more
        if data:
            self._sink(self._open[fd], data)
            return
        self._loop.remove_reader(fd)
        del self._open[fd]
        self._settle()

    def _exited(self) -> None:
        self._loop.remove_reader(self._exit)
        os.close(self._exit)
        Process._running -= 1
        code = self._process.wait()
        self._code = code if code >= 0 else 128 - code
        # What it left behind; in a namespace of its own nothing can be left.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._drain = self._loop.call_later(_DRAIN, self._settle, True)
        self._settle()

    def _settle(self, late: bool = False) -> None:
        """Tell the end once the process has ended and all its output has been read."""
        if self._code is None or (self._open and not late) or self.ended.done():
            return
        if self._drain is not None:
            self._drain.cancel()
        for fd in self._open:
            self._loop.remove_reader(fd)
        self._open.clear()
        self._stop_feeding()
        for file in (self._process.stdout, self._process.stderr, self._process.stdin):
            if file is not None:
                with suppress(OSError):
                    file.close()
        self._input = -1
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        self.ended.set_result(self._code)

    @property
    def pid(self) -> int:
        return self._process.pid

    def first(self) -> int | None:
        """The process that is the container's first; None before it is there or after."""
        if not self._isolated:
            return self._process.pid if self._code is None else None
        children = _children(self._process.pid)
        return children[0] if children else None

    async def inside(self) -> int | None:
        """`first`, waited for: a container that was just started is still being set up."""
        while self._code is None:
            if (pid := self.first()) is not None and (not self._isolated or _walled(pid)):
                return pid
            await asyncio.sleep(0.005)
        return None

    def signal(self, number: int) -> None:
        pid = self.first()
        with suppress(ProcessLookupError):
            if not self._isolated and pid is not None:
                os.killpg(pid, number)
            elif pid is not None:
                os.kill(pid, number)
            elif number == signal.SIGKILL and self._code is None:
                self._process.kill()

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def feed(self, data: bytes) -> None:
        """Write to its standard input, in the background; empty data closes it at the end."""
        if self._input < 0:
            return
        self._fed += data
        self._fed_all = self._fed_all or not data
        if not self._feeding:
            self._feeding = True
            self._loop.add_writer(self._input, self._feed)

    def _feed(self) -> None:
        try:
            sent = os.write(self._input, self._fed[:_CHUNK]) if self._fed else 0
        except BlockingIOError:
            return
        except OSError:  # nobody reads
            self._fed.clear()
            self._fed_all = True
        else:
            del self._fed[:sent]
        if not self._fed:
            self._stop_feeding()
            if self._fed_all and self._process.stdin is not None:
                self._process.stdin.close()
                self._input = -1

    def _stop_feeding(self) -> None:
        if self._feeding:
            self._loop.remove_writer(self._input)
            self._feeding = False

    def resize(self, width: int, height: int) -> None:
        """Tell its terminal, if it has one, how large the client's is."""
        if self._terminal >= 0:
            size = struct.pack("HHHH", height, width, 0, 0)
            with suppress(OSError):
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, size)

    async def conclude(self) -> str:
        """After the end: return why it has never been started, or nothing."""
        return ""

    async def limit(self) -> None:
        """Kill it when it and its children use more memory than they may."""
        memory = self._memory
        while self._code is None and memory is not None:
            await asyncio.sleep(_LOOK)
            pid = self.first()
            if pid is None:
                continue
            tree = _tree(pid)
            # Pages that a fork shares are counted twice by the quick look.
            if sum(map(_resident, tree)) > memory and sum(map(_proportional, tree)) > memory:
                self.oom = True
                self.kill()
                return


def _walled(pid: int) -> bool:
    """Whether a process has its own root already: before, it is the one that sets it up."""
    try:
        return os.stat(f"/proc/{pid}/root/").st_dev != os.stat("/").st_dev
    except OSError:
        return False


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in os.listdir(f"/proc/{one}/task"):
                text = Path(f"/proc/{one}/task/{task}/children").read_text()
                found += [int(word) for word in text.split()]
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _proportional(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return 0
    return 0
