"""A log is what was written: nothing is lost and nothing comes twice, whatever happens."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.emulators.kubernetes import KubernetesEmulator
from portaflow_conformance.emulators.place import Place
from portaflow_kubernetes.logs import Lines

from portaflow.backend import LogChunk, State
from portaflow.errors import NotFoundError, UnavailableError

from .field import PATIENCE, Field

SEQUENCE = "i=0; while [ $i -lt {n} ]; do echo line-$i; i=$((i+1)); done"
SLOWLY = (
    'exec python3 -uc "$@"',
    "import sys, time\n"
    "for i in range(int(sys.argv[1])): print(f'line-{i}'); time.sleep(float(sys.argv[2]))",
)
T1, T2, T3 = (f"2026-01-02T03:04:0{n}.000000005Z".encode() for n in (5, 6, 7))


class Rotating(KubernetesEmulator):
    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.log_size = 48 * 1024


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    """Pods whose logs rotate early: after 1,000 lines of these tests."""
    with emulate(Rotating, pace=0.02) as running:
        yield running


def numbers(log: bytes) -> list[int]:
    return [int(line.removeprefix(b"line-")) for line in log.splitlines()]


def test_a_log_that_rotates_while_it_is_read_is_whole(field: Field) -> None:
    # It waits for nobody: its log rotates several times, between two reads as well.
    handle = field.start(*SLOWLY, "4000", "0.001")
    assert numbers(field.log(handle)) == list(range(4000))
    assert numbers(field.log(handle, field.with_config().containers))[0] > 0  # it has rotated


def test_a_stream_that_breaks_is_taken_up_where_it_broke(field: Field) -> None:
    handle = field.start(*SLOWLY, "300", "0.01")
    data, cursor, end, reads = b"", "", False, 0
    deadline = time.monotonic() + PATIENCE
    while not end:
        assert time.monotonic() < deadline
        reads += 1
        if reads % 3 == 0:  # now and then by a driver that has nothing open
            field.driver = field.with_config().containers
        chunk = field.driver.logs(handle, cursor)
        data, cursor, end = data + chunk.data, chunk.cursor, chunk.end
    assert numbers(data) == list(range(300))


def test_a_call_that_fails_can_be_made_again(field: Field) -> None:
    handle = field.start(SEQUENCE.format(n=10))
    field.wait(handle, State.SUCCEEDED)
    for effect in ("throttle", "error", "reset-before"):
        field.control.order(Fault(effect=effect, operation="kubernetes:pods/log.get"))
        with pytest.raises(UnavailableError):
            field.driver.logs(handle)
    assert numbers(field.log(handle)) == list(range(10))


def test_silence_ends_a_stream_and_not_the_log(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portaflow_kubernetes.jobs.SILENCE", 0.3)
    handle = field.start("echo before; sleep 2; echo after")
    before = field.control.count("kubernetes:pods/log.get")
    assert field.log(handle) == b"before\nafter\n"
    assert field.control.count("kubernetes:pods/log.get") - before > 3


def test_what_is_read_by_calls_in_a_row_takes_one_stream(field: Field) -> None:
    handle = field.start("for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done")
    field.wait(handle, State.RUNNING)
    before = field.control.count("kubernetes:pods/log.get")
    assert field.log(handle) == b"1\n2\n3\n4\n5\n6\n7\n8\n"
    assert field.control.count("kubernetes:pods/log.get") - before <= 3


def test_there_is_no_log_before_the_command_runs_and_none_of_what_is_unknown(field: Field) -> None:
    handle = field.start("exit 0", image="nowhere.invalid/no:1")
    assert field.driver.logs(handle) == LogChunk(data=b"", cursor="", end=False)
    field.wait(handle)
    assert field.log(handle) == b""
    with pytest.raises(NotFoundError):
        field.driver.logs(type(handle)(name=field.name(), id="x"))


# -- the reading of times, without a cluster


def test_lines_of_one_time_are_told_apart_by_how_many_were_read() -> None:
    lines = [T1 + b" before\n", *(T2 + b" %d\n" % n for n in range(4)), T3 + b" 4\n"]
    sent = b"".join(lines)
    for cut in range(len(sent) + 1):
        for size in (1, 3, 1000):
            first = Lines("")
            seen = first.feed(sent[:cut])
            again = Lines(first.cursor)
            seen += b"".join(again.feed(sent[i : i + size]) for i in range(0, len(sent), size))
            assert seen + again.close() == b"before\n0\n1\n2\n3\n4\n", (cut, size)


def test_blocks_may_be_cut_anywhere() -> None:
    sent = T1 + b" a b\n" + T1 + b" \n" + T2 + b" long" + b"x" * 50 + b"\n" + T3 + b" no end"
    whole = Lines("")
    want = whole.feed(sent)
    assert want == b"a b\n\nlong" + b"x" * 50 + b"\nno end"
    for size in (1, 2, 7, 40):
        lines = Lines("")
        got = b"".join(lines.feed(sent[i : i + size]) for i in range(0, len(sent), size))
        assert (got, lines.cursor) == (want, whole.cursor)


def test_what_was_read_and_has_rotated_away_hides_nothing_new() -> None:
    first = Lines("")
    first.feed(T1 + b" old\n" + T1 + b" older\n")
    again = Lines(first.cursor)
    assert again.feed(T1 + b" other line\n" + T2 + b" new\n") == b"other line\nnew\n"
    later = Lines(first.cursor)
    assert later.feed(T3 + b" new\n") == b"new\n"
    nothing = Lines(first.cursor)
    assert (nothing.feed(b""), nothing.close(), nothing.cursor) == (b"", b"", first.cursor)


def test_times_of_another_zone_are_compared_as_times() -> None:
    first = Lines("")
    first.feed(b"2026-01-02T03:04:05.5+02:00 a\n")
    assert first.since == "2026-01-02T03:04:05+02:00"
    again = Lines(first.cursor)
    sent = b"2026-01-02T03:04:05.4+02:00 0\n2026-01-02T03:04:05.5+02:00 a\n"
    assert again.feed(sent + b"2026-01-02T01:04:05.6Z b\n") == b"b\n"
