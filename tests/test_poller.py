"""The poller: one call for all, slower in trouble, and a fault ends a watch, never the run."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from portaflow import poller as module
from portaflow.backend import Driver, Handle, LogChunk, Request, Spec, State, Status
from portaflow.errors import BackendError, DeniedError, NotFoundError, PluginError, UnavailableError
from portaflow.poller import Poller

Answer = Callable[[str], Any]
"""What a driver says of a name; it may raise."""


class Telling(Driver[Spec]):
    """Polls as told, and counts the calls."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.calls: list[list[str]] = []

    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        names = [h.name for h in handles]
        self.calls.append(names)
        return {name: self.answer(name) for name in names}

    def request(self, name: str, spec: Spec, parent: str = "") -> Request:
        raise AssertionError

    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        raise AssertionError

    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        raise AssertionError

    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        raise AssertionError

    def stop(self, handle: Handle) -> None:
        raise AssertionError

    def owned(self, owner: str = "") -> Iterable[Handle]:
        raise AssertionError


def handle(name: str) -> Handle:
    return Handle(name=name, id=name)


RUNNING, DONE = Status(state=State.RUNNING), Status(state=State.SUCCEEDED)


@pytest.fixture
def troubles() -> list[tuple[Exception, float]]:
    return []


@pytest.fixture
def poller(troubles: list[tuple[Exception, float]]) -> Iterator[Poller]:
    made = Poller(lambda error, seconds: troubles.append((error, seconds)))
    yield made
    made.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("poll Telling")]


def until(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to this in time"
        time.sleep(0.001)


def test_one_call_of_a_round_is_for_all_that_is_watched(poller: Poller) -> None:
    driver, told = Telling(lambda name: RUNNING), queue.SimpleQueue[Any]()
    names = [f"n{i}" for i in range(100)]
    for name in names:
        poller.watch(driver, handle(name), told.put)
    until(lambda: names in driver.calls)
    assert [told.get(timeout=10) for _ in names] == [RUNNING] * 100
    driver.answer = lambda name: DONE
    before = len(driver.calls)
    assert [told.get(timeout=10) for _ in names] == [DONE] * 100
    assert len(driver.calls) - before <= 2


def test_each_change_is_told_once_and_nothing_after_the_end(poller: Poller) -> None:
    seen: list[Any] = []
    states = iter([Status(state=State.PENDING)] * 3 + [RUNNING] * 3 + [DONE] * 99)
    driver = Telling(lambda name: next(states))
    poller.watch(driver, handle("a"), seen.append)
    until(lambda: DONE in seen)
    calls = len(driver.calls)
    poller.watch(Telling(lambda name: DONE), handle("b"), seen.append)
    until(lambda: len(seen) == 4)
    assert seen == [Status(state=State.PENDING), RUNNING, DONE, DONE]
    assert len(driver.calls) == calls == 7


def test_what_is_forgotten_is_not_told(poller: Poller) -> None:
    seen: list[Any] = []
    driver = Telling(lambda name: RUNNING)
    poller.watch(driver, handle("a"), seen.append)
    until(lambda: seen)
    poller.forget(driver, "a")
    driver.answer = lambda name: DONE
    calls = len(driver.calls)
    poller.watch(driver, handle("b"), lambda status: None)
    until(lambda: len(driver.calls) > calls + 1 or driver.calls[-1] == ["b"])
    assert seen == [RUNNING]


def test_trouble_slows_the_rounds_down_and_fails_nothing(
    poller: Poller, troubles: list[tuple[Exception, float]]
) -> None:
    error, seen = UnavailableError("throttled"), list[Any]()

    def throttled(name: str) -> Any:
        raise error

    driver = Telling(throttled)
    began = time.monotonic()
    poller.watch(driver, handle("a"), seen.append)
    until(lambda: len(troubles) == 2)
    assert time.monotonic() - began >= 1.0
    assert troubles == [(error, 1.0), (error, 2.0)]
    assert len(driver.calls) == 2
    assert seen == []


@pytest.mark.parametrize("error", [UnavailableError("x"), DeniedError("x"), BackendError("x")])
def test_a_call_that_failed_is_not_a_job_that_failed(
    poller: Poller, troubles: list[tuple[Exception, float]], error: BackendError
) -> None:
    answers: list[Any] = [error, DONE]
    seen: list[Any] = []

    def answer(name: str) -> Any:
        if isinstance(one := answers.pop(0), Exception):
            raise one
        return one

    poller.watch(Telling(answer), handle("a"), seen.append)
    until(lambda: seen)
    assert seen == [DONE]
    assert troubles == [(error, 1.0)]


def watched(cost: float, *ages: float) -> module._Group:
    group = module._Group(Telling(lambda name: RUNNING), cost=cost)
    for age in ages:
        since = time.monotonic() - age
        group.watches[str(age)] = module._Watch(handle("a"), lambda seen: None, since, 15.0)
    return group


def test_the_pause_grows_to_a_limit_and_ends_with_the_trouble() -> None:
    poller, group, pauses = Poller(), watched(0.0, 0.0), list[float]()
    for group.troubles in range(1, 12):
        pauses.append(poller._interval(group))
    assert pauses[:4] == [1.0, 2.0, 4.0, 8.0]
    assert pauses[-1] == module._LONGEST_TROUBLE
    group.troubles = 0
    assert poller._interval(group) < 0.05


def test_a_dear_call_is_made_less_often_and_an_old_thing_looked_at_less() -> None:
    poller = Poller()
    assert poller._interval(watched(0.1, 0.0)) == pytest.approx(2.0)
    assert poller._interval(watched(0.0, 10.0)) == pytest.approx(0.5, abs=0.05)
    assert poller._interval(watched(0.0, 10.0, 0.0)) < 0.05
    assert poller._interval(watched(0.0, 1e6)) == module._LONGEST


GARBAGE: list[Any] = [
    None, "running", State.RUNNING, Status(state="running"), KeyError("a"), SystemExit(1),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize("answer", GARBAGE, ids=repr)
def test_a_plugin_that_breaks_the_interface_is_given_up(
    poller: Poller,
    troubles: list[tuple[Exception, float]],
    monkeypatch: pytest.MonkeyPatch,
    answer: Any,
) -> None:
    monkeypatch.setattr(module, "_LONGEST_TROUBLE", 0.01)
    seen: list[Any] = []

    def broken(name: str) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    driver = Telling(broken)
    poller.watch(driver, handle("a"), seen.append)
    until(lambda: seen)
    assert isinstance(seen[0], PluginError)
    assert str(seen[0]).startswith("Telling.poll: ")
    assert len(driver.calls) == len(troubles) == module._BROKEN


def test_a_thing_that_is_missing_from_the_first_is_told_after_the_grace(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider may list late what it has started."""
    monkeypatch.setattr(module, "_GRACE", 0.3)
    monkeypatch.setattr(module, "_SURE", 0.05)
    missing, seen = NotFoundError("gone"), list[Any]()
    began = time.monotonic()
    poller.watch(Telling(lambda name: missing), handle("a"), seen.append)
    until(lambda: seen)
    assert seen == [missing]
    assert 0.3 <= time.monotonic() - began < 10


def test_a_thing_that_was_there_and_is_missing_is_soon_gone(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE", 1000.0)
    monkeypatch.setattr(module, "_SURE", 0.05)
    missing, seen = NotFoundError("gone"), list[Any]()
    driver = Telling(lambda name: RUNNING)
    poller.watch(driver, handle("a"), seen.append)
    until(lambda: seen)
    driver.answer = lambda name: missing
    until(lambda: len(seen) == 2)
    assert seen == [RUNNING, missing]


def test_a_listing_with_a_gap_loses_nothing(poller: Poller) -> None:
    answers = iter([RUNNING, NotFoundError("hidden"), RUNNING] + [DONE] * 9)
    seen: list[Any] = []
    poller.watch(Telling(lambda name: next(answers)), handle("a"), seen.append)
    until(lambda: DONE in seen)
    assert seen == [RUNNING, DONE]


def test_a_denial_ends_what_has_just_begun_and_nothing_that_may_have_run_for_hours(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that goes on with a run under other credentials must not end its work."""
    monkeypatch.setattr(module, "_DENIED", 0.05)
    denied, seen = DeniedError("you may not list jobs"), dict[str, Any]()

    def answer(name: str) -> Status:
        raise denied

    driver = Telling(answer)
    poller.watch(driver, handle("old"), lambda told: seen.setdefault("old", told), age=3600.0)
    poller.watch(driver, handle("new"), lambda told: seen.setdefault("new", told))
    until(lambda: "new" in seen)
    driver.answer = lambda name: RUNNING
    until(lambda: "old" in seen)
    assert seen == {"new": denied, "old": RUNNING}


def test_drivers_are_polled_apart(poller: Poller) -> None:
    """One that hangs does not keep another one waiting."""
    let_go, seen = threading.Event(), list[Any]()

    def hangs(name: str) -> Any:
        let_go.wait(30)
        return DONE

    poller.watch(Telling(hangs), handle("a"), lambda status: None)
    poller.watch(Telling(lambda name: DONE), handle("b"), seen.append)
    until(lambda: seen)
    let_go.set()


def test_an_outage_is_no_fault_of_the_plugin(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_TROUBLE", 0.01)
    answers: list[Any] = [UnavailableError("x")] * 5 + [KeyError("x")] * 2 + [DONE]
    seen: list[Any] = []

    def answer(name: str) -> Any:
        if isinstance(one := answers.pop(0), Exception):
            raise one
        return one

    poller.watch(Telling(answer), handle("a"), seen.append)
    until(lambda: seen)
    assert seen == [DONE]


def test_a_round_that_works_wipes_the_faults_before_it(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LONGEST_TROUBLE", 0.01)
    fault = KeyError("x")
    answers: list[Any] = [fault, fault, RUNNING, fault, fault, DONE]
    seen: list[Any] = []

    def answer(name: str) -> Any:
        if isinstance(one := answers.pop(0), Exception):
            raise one
        return one

    poller.watch(Telling(answer), handle("a"), seen.append)
    until(lambda: len(seen) == 2)
    assert seen == [RUNNING, DONE]
