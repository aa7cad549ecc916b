"""Faults that hold a call or are about one, and what a reset leaves of a connection of TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("trustme")

from portaflow_conformance.emulators.authority import Authority
from portaflow_conformance.emulators.control import Control, Effect, Fault
from portaflow_conformance.emulators.faults import Reset, abort_socket, awaited, struck


def test_a_fault_strikes_the_calls_that_it_is_about() -> None:
    control = Control()
    fault = control.order(Fault(effect="error", about='*"name": "b-[12]"*', times=-1))
    names = ("a", "b-1", "b-3", "b-2")
    struck_by = [control.called("x:y.Make", job={"name": name}) for name in names]
    assert [one is fault for one in struck_by] == [False, True, False, True]


def _threads(control: Control, done: list[str]) -> None:
    try:
        struck(control.called("x:y.Make"), lambda: done.append("applied"), lambda f: None)
    except Reset as reset:
        done.append(f"reset, applied={reset.applied}")


def _asyncio(control: Control, done: list[str]) -> None:
    async def apply() -> None:
        done.append("applied")

    async def call() -> None:
        try:
            await awaited(control.called("x:y.Make"), apply, lambda f: None)
        except Reset as reset:
            done.append(f"reset, applied={reset.applied}")

    asyncio.run(call())


@pytest.mark.parametrize("server", [_threads, _asyncio])
def test_a_call_that_is_held_was_applied_and_waits_until_faults_are_forgotten(
    server: Callable[[Control, list[str]], None],
) -> None:
    control, done = Control(), list[str]()
    fault = control.order(Fault(effect="hold", seconds=60))
    client = threading.Thread(target=server, args=(control, done))
    client.start()
    deadline = time.monotonic() + 20
    while not fault.held and time.monotonic() < deadline:
        time.sleep(0.002)
    assert fault.held
    assert done == ["applied"]
    control.clear()
    client.join(20)
    assert done == ["applied", "reset, applied=True"]


@pytest.mark.parametrize("effect", ["hold", "reset-after"])
def test_an_error_that_a_call_is_answered_with_is_lost_like_an_answer(effect: Effect) -> None:
    control = Control()
    control.order(Fault(effect=effect, times=2))

    def apply() -> None:
        raise LookupError("404")

    async def applied() -> None:
        apply()

    with pytest.raises(Reset):
        struck(control.called("x:y.Get"), apply, lambda f: None)
    with pytest.raises(Reset):
        asyncio.run(awaited(control.called("x:y.Get"), applied, lambda f: None))
    with pytest.raises(LookupError):
        struck(control.called("x:y.Get"), apply, lambda f: None)


def test_a_call_is_not_held_for_longer_than_was_ordered() -> None:
    control, done = Control(), list[str]()
    control.order(Fault(effect="hold", seconds=0.01))
    _threads(control, done)
    assert done == ["applied", "reset, applied=True"]


def test_who_reads_on_after_a_reset_takes_nothing_from_the_next_file(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(authority.issue("localhost"))
    here, there = socket.socketpair()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    theirs: list[socket.socket] = []
    greeting = threading.Thread(target=lambda: theirs.append(client.wrap_socket(there)))
    greeting.start()
    connection = server.wrap_socket(here, server_side=True)
    greeting.join()
    file, number = connection.makefile("rb"), connection.fileno()
    abort_socket(connection)
    read, write = os.pipe()
    if read != number:
        os.dup2(read, number)  # as a file that is opened next may get it
        os.close(read)
    os.write(write, b"1\n2\n3\n4\n")
    with suppress(OSError):
        file.read(5)
    assert os.read(number, 100) == b"1\n2\n3\n4\n"
    for one in (write, number):
        os.close(one)
    theirs[0].close()
