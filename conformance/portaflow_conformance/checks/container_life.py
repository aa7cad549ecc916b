"""L1, container: one name is one thing, from start to end and from any process."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from portaflow.backend import Handle, State, Status
from portaflow.errors import ConflictError, NotFoundError

from ..subject import Subject, expect

_WAIT = "while :; do sleep 0.2; done"
_GRACE = 3  # seconds


def timeout_kills(subject: Subject) -> None:
    """The provider ends what outlives its time, though nobody asks it to."""
    ttl = subject.options.shortest_ttl
    handle = subject.sh(f"trap '' TERM; {_WAIT}", ttl=ttl, grace=1)
    began = time.monotonic()
    seen = subject.wait("container", handle, timeout=ttl + subject.soon("container"))
    expect(seen.state is not State.SUCCEEDED, f"what outlived its time is told as {seen}")
    expect(time.monotonic() - began > ttl / 2, f"it ended long before its {ttl} s were over")


def cancel_term_then_kill(subject: Subject) -> None:
    """A stop asks with SIGTERM, and kills what does not listen after its grace."""
    polite = subject.sh(f"trap 'echo goodbye; exit 0' TERM; echo ready; {_WAIT}", grace=30)
    stubborn = subject.sh(f"trap '' TERM; echo ready; {_WAIT}", grace=_GRACE)
    driver = subject.here.driver("container")
    for handle in (polite, stubborn):
        subject.until_logged("container", handle, b"ready")
        driver.stop(handle)
    asked = time.monotonic()
    for handle in (polite, stubborn):
        seen = subject.wait("container", handle, timeout=_GRACE + subject.soon("container"))
        expect(seen.state is State.STOPPED, f"what was stopped is told as {seen}")
    took = time.monotonic() - asked
    expect(took > _GRACE - 1, f"what ignores SIGTERM was killed after {took:.1f} s of {_GRACE}")
    log = subject.log("container", polite)
    expect(b"goodbye" in log, "a command that handles SIGTERM was not given the time to")


def cancel_any_phase_idempotent(subject: Subject) -> None:
    """A stop is silent before, during and after; it does not change how a thing ended."""
    driver = subject.here.driver("container")
    young = subject.sh(_WAIT, grace=1)
    driver.stop(young)  # perhaps it is not there yet
    driver.stop(young)
    seen = subject.wait("container", young)
    expect(seen.state is State.STOPPED, f"stopped at once, it is told as {seen}")
    driver.stop(young)
    done = subject.sh("exit 0")
    subject.wait("container", done, State.SUCCEEDED)
    driver.stop(done)
    seen = subject.wait("container", done)
    expect(seen.state is State.SUCCEEDED, f"a stop after a success has made it {seen}")
    driver.stop(Handle(name=subject.name(), id="no-such-id"))


def start_returns_at_once(subject: Subject) -> None:
    """`start` does not wait for the command."""
    began = time.monotonic()
    handle = subject.sh("sleep 6", grace=1)
    took = time.monotonic() - began
    expect(took < 5, f"start took {took:.0f} s for a command that takes 6")
    seen = subject.status("container", handle)
    if isinstance(seen, Status):
        expect(not seen.state.final, f"a command of 6 s is {seen} when start returns")
    subject.here.driver("container").stop(handle)


def adopt_after_crash(subject: Subject) -> None:
    """What a process started that was killed is found, and comes to its own end."""
    name, driver = subject.name(), subject.here.driver("container")
    spec = subject.container("sleep 2; echo finished; exit 7")
    request = driver.request(name, spec)
    subject.elsewhere("start", kind="container", request=request, parent=None, kill_at="started")
    handle = driver.find(name)
    expect(handle is not None, "what another process has started is not found")
    assert handle is not None
    subject.watch("container", handle)
    seen = subject.wait("container", handle)
    expect(seen.exit_code == 7, f"its starter was killed, and what should exit 7 is {seen}")
    expect(b"finished" in subject.log("container", handle), "its log is not whole")
    again = subject.submit("container", request)
    expect(again.id == handle.id, "starting what is there has made another one")


def adopt_ignores_old_attempts(subject: Subject) -> None:
    """A name is looked up whole: the first attempt is not the second, nor the tenth."""
    driver, stem = subject.here.driver("container"), subject.name()
    first = subject.sh("exit 1", name=f"{stem}-1")
    subject.wait("container", first)
    for other in (f"{stem}-2", f"{stem}-11", stem):
        found = driver.find(other)
        expect(found is None, f"{other!r} was never started, but {found} is found")
    second = subject.sh("exit 0", name=f"{stem}-2")
    subject.wait("container", second, State.SUCCEEDED)
    for name, code in ((f"{stem}-1", 1), (f"{stem}-2", 0)):
        found = subject.fresh().driver("container").find(name)
        expect(found is not None, f"{name!r} has ended and is not found any more")
        assert found is not None
        seen = subject.wait("container", found)
        expect(seen.exit_code == code, f"{name!r} ended with {code}, and is told as {seen}")


def poll_never_invents(subject: Subject) -> None:
    """What the provider does not know is not found; what it knows is told beside it."""
    driver = subject.here.driver("container")
    known = subject.sh("exit 0")
    unknown = Handle(name=subject.name(), id="no-such-id")
    subject.wait("container", known, State.SUCCEEDED)
    answer = driver.poll([unknown, known])
    expect(set(answer) == {unknown.name, known.name}, f"two were asked for, {set(answer)} told")
    seen = answer[unknown.name]
    expect(isinstance(seen, NotFoundError), f"what was never started is told as {seen!r}")
    beside = answer[known.name]
    expect(isinstance(beside, Status), f"beside an unknown one a success is {beside!r}")
    expect(driver.poll([]) == {}, "nothing was asked for, but something is told")
    expect(driver.find(unknown.name) is None, "what was never started is found")
    try:
        driver.logs(unknown)
    except NotFoundError:
        return
    raise AssertionError("what was never started has a log")


def submit_same_id_race(subject: Subject) -> None:
    """Eight that start one name at one moment start one thing."""
    name = subject.name()
    request = subject.here.driver("container").request(name, subject.container("echo ran; sleep 1"))
    places = [subject.fresh() for _ in range(8)]
    gate = threading.Barrier(len(places))

    def start(n: int) -> Handle:
        gate.wait()
        return subject.submit("container", request, via=places[n])

    with ThreadPoolExecutor(len(places)) as pool:
        handles = list(pool.map(start, range(len(places))))
    expect(len({h.id for h in handles}) == 1, f"one name has {len({h.id for h in handles})} ids")
    subject.wait("container", handles[0], State.SUCCEEDED)
    log = subject.log("container", handles[0])
    expect(log.count(b"ran") == 1, f"started once by name, it ran {log.count(b'ran')} times")


def start_conflict_typed(subject: Subject) -> None:
    """A name that is taken by another request is a ConflictError, alive or ended."""
    name, driver = subject.name(), subject.here.driver("container")
    first = driver.request(name, subject.container("exit 0"))
    other = driver.request(name, subject.container("exit 1"))
    handle = subject.submit("container", first)
    for _ in range(2):
        same = subject.submit("container", json.loads(json.dumps(first)))
        expect(same.id == handle.id, "the same request has started a second thing")
        try:
            subject.submit("container", other, via=subject.fresh())
        except ConflictError:
            subject.wait("container", handle, State.SUCCEEDED)
            continue
        raise AssertionError("another request under a name that is taken is accepted")


def ownership_visible(subject: Subject) -> None:
    """What is alive is listed with its owner, with any, and with nobody else."""
    driver = subject.fresh().driver("container")
    handle = subject.sh(_WAIT, grace=1)
    subject.wait("container", handle, State.RUNNING)
    for owner, there in ((subject.owner, True), ("", True), (subject.owner + "x", False)):
        names = [h.name for h in driver.owned(owner)]
        expect((handle.name in names) is there, f"owned({owner!r}) lists {names}")
    listed = next(h for h in driver.owned(subject.owner) if h.name == handle.name)
    driver.stop(listed)
    subject.wait("container", handle, State.STOPPED)


def long_names_unique(subject: Subject) -> None:
    """Names of forty characters that differ in the last one are two things."""
    stem = subject.name()
    names = [stem + "-" + "x" * (38 - len(stem)) + end for end in "12"]
    try:
        handles = [subject.sh(f"echo {name}", name=name) for name in names]
    except ConflictError as error:
        raise AssertionError(f"two long names have become one thing: {error}") from error
    expect(handles[0].id != handles[1].id, "two long names have become one thing")
    for name, handle in zip(names, handles, strict=True):
        subject.wait("container", handle, State.SUCCEEDED)
        log = subject.log("container", handle).strip()
        expect(log == name.encode(), f"{name} has the log {log!r}")


def parallel_20_isolated(subject: Subject) -> None:
    """Twenty at once see their own environment, their own files and their own log."""
    script = "{ echo $N >mark; } 2>/dev/null || cd /tmp; echo $N >mark; sleep 1; cat mark; echo $N"
    handles = [subject.sh(script, env={"N": str(n)}) for n in range(20)]
    statuses = subject.here.driver("container").poll(handles)
    expect(len(statuses) == 20, f"twenty were asked for in one call, {len(statuses)} are told")
    for n, handle in enumerate(handles):
        subject.wait("container", handle, State.SUCCEEDED)
        log = subject.log("container", handle).split()
        expect(log == [b"%d" % n] * 2, f"number {n} of twenty at once has printed {log}")


def finished_objects_removed(subject: Subject) -> None:
    """What has ended is not alive any more, however it ended."""
    handles = [subject.sh("exit 0"), subject.sh("exit 1"), subject.sh(_WAIT, grace=1)]
    subject.here.driver("container").stop(handles[2])
    for handle in handles:
        subject.wait("container", handle)
    names = {h.name for h in handles}
    deadline = time.monotonic() + subject.soon("container")
    while time.monotonic() < deadline:
        alive = names & {h.name for h in subject.fresh().driver("container").owned(subject.owner)}
        if not alive:
            return
        time.sleep(0.2)
    raise AssertionError(f"{sorted(alive)} have ended, and are listed as alive")
