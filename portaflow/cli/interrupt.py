"""Signals that ask for the end, told to a thread that may take locks and print.

A handler in Python runs between two instructions of the main thread, which may hold the very
lock that stopping needs. So nothing is done in it: the interpreter writes the signal's number
to a pipe, and a thread reads that.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While this is entered, `told(signal, n)` hears of the n-th such signal, in a thread.

    A signal that was ignored when portaflow began (`nohup`) stays ignored.
    """

    def __init__(self, told: Callable[[signal.Signals, int], None]) -> None:
        self._told = told
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._write)  # ends the thread
        self._thread.join()
        os.close(self._read)

    def _listen(self) -> None:
        heard = 0
        while data := os.read(self._read, 1):
            if (number := data[0]) in self._before:
                heard += 1
                self._told(signal.Signals(number), heard)
