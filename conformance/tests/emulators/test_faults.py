"""What a reset leaves of a connection of TLS."""

from __future__ import annotations

import os
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("trustme")

from portaflow_conformance.emulators.authority import Authority
from portaflow_conformance.emulators.faults import abort_socket


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
