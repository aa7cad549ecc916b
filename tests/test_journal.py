"""The journal: one writer, no gaps, and nothing that somebody else wrote is believed."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from portaflow_local.folder import FolderFileSystem

from portaflow.errors import NotFoundError, RunError, UnavailableError
from portaflow.journal import Journal
from portaflow.state import Event, Phase


@pytest.fixture
def fs(tmp_path: Path) -> FolderFileSystem:
    return FolderFileSystem(root=str(tmp_path))


@pytest.fixture
def home(tmp_path: Path) -> str:
    return f"file://{tmp_path}/p/r"


def event(action: str = "a", **rest: Any) -> Event:
    return Event(action=action, phase=Phase.DONE, time=1.0, **rest)


def begun(fs: Any, home: str, *events: Event) -> Journal:
    journal = Journal(fs, home)
    journal.begin({"run": "r"})
    for one in events:
        journal.append([one])
    return journal


def record(home: str, number: int) -> Path:
    return Path(home.removeprefix("file://")) / "_journal" / f"{number:08d}.json"


# -- what is written is read


def test_what_is_written_is_read_in_order(fs: Any, home: str) -> None:
    events = [event(f"t{n}") for n in range(12)]
    begun(fs, home, *events)
    there = Journal(fs, home)
    assert there.read() == events
    assert there.header == {"run": "r"}


def test_the_latest_header_counts(fs: Any, home: str) -> None:
    begun(fs, home, event())
    taken = Journal(fs, home)
    taken.read()
    taken.begin({"run": "r", "more": 1})
    there = Journal(fs, home)
    assert there.read() == [event()]
    assert there.header == {"run": "r", "more": 1}


def test_news_are_what_came_since(fs: Any, home: str) -> None:
    writer = begun(fs, home, event("a"))
    reader = Journal(fs, home)
    assert reader.read() == [event("a")]
    assert reader.news() == []
    writer.append([event("b"), event("c")])
    assert reader.news() == [event("b"), event("c")]
    assert reader.news() == []


@pytest.mark.parametrize("value", ["\ud800", "\x00", "😀", {"k": ["ü", None, 1.5]}, "x" * 10**6])
def test_any_value_of_a_task_can_be_recorded(fs: Any, home: str, value: Any) -> None:
    """Half a surrogate is no UTF-8; it must not end the engine."""
    begun(fs, home, event(value=value, reason="\udcff"))
    assert Journal(fs, home).read() == [event(value=value, reason="\udcff")]


def test_a_run_that_is_not_there_is_not_found(fs: Any, home: str) -> None:
    with pytest.raises(NotFoundError, match="there is no run at"):
        Journal(fs, home).read()


# -- one writer


def test_a_run_begins_once(fs: Any, home: str) -> None:
    begun(fs, home)
    with pytest.raises(RunError, match="another engine works on the run"):
        begun(fs, home)


def test_of_two_engines_one_goes_on_and_the_other_learns_it(fs: Any, home: str) -> None:
    first = begun(fs, home, event("a"))
    second = Journal(fs, home)
    second.read()
    second.begin(second.header)
    with pytest.raises(RunError, match="another engine works on the run"):
        first.append([event("b")])
    second.append([event("c")])
    assert Journal(fs, home).read() == [event("a"), event("c")]


def test_of_many_writers_of_one_record_exactly_one_wins(fs: Any, home: str) -> None:
    begun(fs, home)
    writers = [Journal(fs, home) for _ in range(8)]
    for writer in writers:
        writer.read()
    barrier, won = threading.Barrier(len(writers)), list[str]()

    def write(writer: Journal) -> None:
        barrier.wait()
        try:
            writer.append([event(writer.engine)])
        except RunError:
            return
        won.append(writer.engine)

    threads = [threading.Thread(target=write, args=(w,)) for w in writers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert [e.action for e in Journal(fs, home).read()] == won


class _LosesAnswers(FolderFileSystem):
    """Writes, and says that it has failed."""

    lost = 0

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        super().pipe_file(path, value, mode=mode, **kwargs)
        if "_journal" in path and not self.lost:
            self.lost += 1
            raise OSError("connection reset")


def test_a_record_whose_answer_was_lost_is_our_own(tmp_path: Path, home: str) -> None:
    fs = _LosesAnswers(root=str(tmp_path), skip_instance_cache=True)
    journal = Journal(fs, home)
    with pytest.raises(UnavailableError):
        journal.begin({"run": "r"})
    journal.begin({"run": "r"})
    journal.append([event("a")])
    assert Journal(fs, home).read() == [event("a")]


# -- what is there may be anything


def test_a_record_that_is_missing_is_told(fs: Any, home: str) -> None:
    begun(fs, home, event("a"), event("b"))
    record(home, 2).unlink()
    with pytest.raises(RunError, match="record 2 of the journal is missing"):
        Journal(fs, home).read()


HOSTILE = [
    b"", b"{", b"[]", b"null", b"3", b'"x"', b"\xff\xfe", b"\x00", b"{}", b'{"events": 3}',
    b'{"events": [3]}', b'{"events": [{}]}', b'{"events": null}', b'{"events": {"a": 1}}',
    b'{"events": [{"action": "a", "phase": "dancing", "time": 1}]}',
    b'{"events": [{"action": "a", "phase": "done", "time": 1, "extra": 1}]}',
    b'{"events": [{"action": "a", "phase": "done", "time": 1, "handle": {"x": 1}}]}',
    b'{"events": [{"action": "a", "phase": "done", "time": 1, "cause": "magic"}]}',
    b'{"events": [], "header": [1]}', b'{"events": [], "header": "x"}',
    b"[" * 100_000, b'{"events": ' + b"[" * 100_000, b"9" * 10_000, b"{" * 50_000,
]  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE, ids=range(len(HOSTILE)))
def test_a_record_that_is_none_is_told_with_its_place(fs: Any, home: str, data: bytes) -> None:
    begun(fs, home, event("a"))
    reader = Journal(fs, home)
    reader.read()
    record(home, 3).write_bytes(data)
    for read in (Journal(fs, home).read, reader.news):
        with pytest.raises(
            RunError, match=r"00000003\.json: is no record of a journal: "
        ) as caught:
            read()
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("data", HOSTILE[:9], ids=range(9))
def test_what_takes_the_place_of_our_record_is_not_ours(fs: Any, home: str, data: bytes) -> None:
    journal = begun(fs, home)
    record(home, 2).write_bytes(data)
    with pytest.raises(RunError):
        journal.append([event()])


def test_a_stranger_among_the_records_is_told(fs: Any, home: str) -> None:
    begun(fs, home)
    (record(home, 1).parent / "notes.json").write_text("{}")
    with pytest.raises(RunError, match=r"notes\.json"):
        Journal(fs, home).read()


# -- signs of life


def test_an_engine_is_alive_until_it_closes(fs: Any, home: str) -> None:
    journal = begun(fs, home)
    assert Journal(fs, home).alive()
    journal.close()
    assert not Journal(fs, home).alive()


@pytest.mark.parametrize(
    "change",
    [{"pid": 2**22 + 1}, {"time": 0.0, "host": "elsewhere"}, {"closed": True}, {"pid": "x"},
     {"time": "now"}, {"host": None}],
)  # fmt: skip
def test_who_gives_no_sign_of_life_is_not_alive(fs: Any, home: str, change: dict[str, Any]) -> None:
    begun(fs, home)
    path = Path(home.removeprefix("file://")) / "_lease.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert not Journal(fs, home).alive()


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000])
def test_a_lease_that_is_none_is_no_sign_of_life(fs: Any, home: str, data: bytes) -> None:
    begun(fs, home)
    (Path(home.removeprefix("file://")) / "_lease.json").write_bytes(data)
    assert not Journal(fs, home).alive()


def test_a_wish_to_stop_is_heard_once_and_forgotten(
    fs: Any, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portaflow.journal.HEARTBEAT", 0.01)
    journal, heard = begun(fs, home), threading.Event()
    times: list[float] = []

    def wish() -> None:
        times.append(time.monotonic())
        heard.set()

    journal.keep_alive(wish)
    assert not journal.asked_to_stop()
    Journal(fs, home).ask_to_stop()
    assert heard.wait(10)
    journal.close()
    assert len(times) == 1
    journal.forget_wish()
    assert not journal.asked_to_stop()
