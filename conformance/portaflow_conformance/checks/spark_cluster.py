"""L1, Spark: one name is one cluster, and it ends when it should."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from portaflow.backend import Driver, Handle, State, Status
from portaflow.errors import BackendError, ConflictError, NotFoundError, RejectedError

from ..jobs import cluster, cluster_spec, job_spec
from ..subject import Subject, expect


def create_same_id_idempotent(subject: Subject) -> None:
    """Creating what is there returns it."""
    if (handle := cluster(subject)) is None:
        return
    request = _driver(subject).request(handle.name, cluster_spec(subject))
    again = subject.fresh().driver("cluster").start(request)
    expect(again.id == handle.id, f"created again, {handle.id} has become {again.id}")
    found = subject.fresh().driver("cluster").find(handle.name)
    expect(found is not None and found.id == handle.id, f"{handle.id} is found as {found}")


def create_spec_conflict_typed(subject: Subject) -> None:
    """Another cluster under a name that is taken is a ConflictError."""
    if (handle := cluster(subject)) is None:
        return
    other = cluster_spec(subject, ttl=7200, conf={"spark.another": "1"})
    try:
        _driver(subject).start(_driver(subject).request(handle.name, other))
    except ConflictError:
        return
    raise AssertionError("another cluster under a name that is taken is accepted")


def create_race_one_cluster(subject: Subject) -> None:
    """Six that create one name at one moment create one cluster."""
    if subject.here.compute.clusters is None:
        return
    handles = _raced(subject)
    ids = {h.id for h in handles}
    expect(len(ids) == 1, f"six that created one name have {len(ids)} clusters")
    alive = [h.id for h in _driver(subject).owned(subject.owner) if h.name == handles[0].name]
    expect(len(alive) == 1, f"one name is listed as {len(alive)} clusters")


def adopt_after_crash_mid_create(subject: Subject) -> None:
    """Whose creator is killed in the middle of its call is one cluster when it is made again."""
    if subject.here.compute.clusters is None:
        return
    driver = _driver(subject)
    for kill_at in ("asked", "started"):
        name = subject.name()
        request = driver.request(name, cluster_spec(subject))
        subject.elsewhere("start", kind="cluster", request=request, parent=None, kill_at=kill_at)
        found = driver.find(name)
        expect(found or kill_at == "asked", "what a killed process has created is not found")
        handle = found or driver.start(request)
        subject.watch("cluster", handle)
        subject.wait("cluster", handle, State.RUNNING)
        again = driver.start(request)
        expect(again.id == handle.id, f"{handle.id} was there, and {again.id} was made beside it")


def failed_create_leaves_nothing(subject: Subject) -> None:
    """What cannot be created is told, and nothing of it is left to pay for."""
    if subject.here.compute.clusters is None:
        return
    name, driver = subject.name(), _driver(subject)
    spec = cluster_spec(subject, spark_version="0.1")
    try:
        handle = subject.start("cluster", spec, name=name)
    except BackendError:
        found = driver.find(name)
        if found is not None:
            subject.watch("cluster", found)
            subject.wait("cluster", found, timeout=subject.soon("cluster"))
    else:
        seen = subject.wait("cluster", handle, State.RUNNING, State.FAILED, State.STOPPED)
        if seen.state is State.RUNNING:
            told = driver.fit(spec).get("spark_version")
            expect(told and told.reason, "Spark 0.1 is running, and fit() does not say otherwise")
            driver.stop(handle)
            subject.wait("cluster", handle)
        else:
            expect(seen.reason, "a cluster that could not be created fails without a reason")
    left = [h.name for h in driver.owned(subject.owner) if h.name == name]
    expect(not left, f"the cluster could not be created, and {left} is alive")


def deleted_during_create(subject: Subject) -> None:
    """Somebody else deletes what is being created: that is told, and not waited for."""
    if subject.here.compute.clusters is None:
        return
    handle = subject.start("cluster", cluster_spec(subject))
    subject.elsewhere("stop", kind="cluster", handle=handle.to_json())
    _gone(subject, handle)


def terminate_while_creating(subject: Subject) -> None:
    """A stop right after the start is a stop."""
    if subject.here.compute.clusters is None:
        return
    handle = subject.start("cluster", cluster_spec(subject))
    _driver(subject).stop(handle)
    _gone(subject, handle)


def server_side_ttl_set(subject: Subject) -> None:
    """The provider ends a cluster whose time is over, though nobody asks it to."""
    if subject.here.compute.clusters is None:
        return
    ttl = subject.options.shortest_ttl
    handle = subject.start("cluster", cluster_spec(subject, ttl=ttl))
    seen = subject.wait("cluster", handle, timeout=ttl + subject.soon("cluster"))
    expect(seen.state is State.STOPPED, f"a cluster whose time is over is told as {seen}")


def ownership_tags_set(subject: Subject) -> None:
    """A cluster is listed with its owner, with any, and with nobody else."""
    if (handle := cluster(subject)) is None:
        return
    for owner, there in ((subject.owner, True), ("", True), (subject.owner + "x", False)):
        names = [h.name for h in subject.fresh().driver("cluster").owned(owner)]
        expect((handle.name in names) is there, f"owned({owner!r}) lists {names}")


def terminate_idempotent(subject: Subject) -> None:
    """A stop of what is ended, or was never there, is silent and changes nothing."""
    if subject.here.compute.clusters is None:
        return
    handle, _ = _dead(subject)
    driver = subject.fresh().driver("cluster")
    driver.stop(handle)
    seen = subject.status("cluster", handle)
    told = isinstance(seen, NotFoundError) or seen.state is State.STOPPED
    expect(told, f"stopped twice, a cluster is told as {seen}")
    driver.stop(Handle(name=subject.name(), id="no-such-id"))


def logs_after_terminate(subject: Subject) -> None:
    """What a job has logged is read after its cluster is gone."""
    if subject.here.compute.clusters is None:
        return
    _, ran = _dead(subject)
    log = subject.log("job", ran)
    expect(b"acting" in log, f"after the cluster's end the job's log is {log[-300:]!r}")
    seen = subject.status("job", ran)
    expect(isinstance(seen, Status) and seen.state.final, f"the job has ended, and is {seen!r}")


def job_on_dead_cluster_typed(subject: Subject) -> None:
    """A job on a cluster that has ended is refused; it is not accepted and waited for."""
    if subject.here.compute.clusters is None:
        return
    handle, _ = _dead(subject)
    try:
        subject.start("job", job_spec(subject, "act.py", "stay", "0"), parent=handle)
    except (ConflictError, NotFoundError, RejectedError):
        return
    raise AssertionError("a job on a cluster that has ended is accepted")


# -- parts


def _driver(subject: Subject) -> Driver[Any]:
    return subject.here.driver("cluster")


def _gone(subject: Subject, handle: Handle) -> None:
    try:
        seen = subject.wait("cluster", handle)
    except AssertionError:
        if isinstance(subject.status("cluster", handle), NotFoundError):
            return
        raise
    expect(seen.state is State.STOPPED, f"what was stopped while it was made is told as {seen}")


def _raced(subject: Subject) -> Sequence[Handle]:
    """A cluster that six have created at one moment, as each of them got it."""

    def make() -> Sequence[Handle]:
        request = _driver(subject).request(subject.name(), cluster_spec(subject))
        places = [subject.fresh() for _ in range(6)]
        gate = threading.Barrier(len(places))

        def create(n: int) -> Handle:
            gate.wait()
            return subject.submit("cluster", request, via=places[n])

        with ThreadPoolExecutor(len(places)) as pool:
            handles = list(pool.map(create, range(len(places))))
        subject.wait("cluster", handles[0], State.RUNNING)
        return handles

    return subject.shared("raced", make)


def _dead(subject: Subject) -> tuple[Handle, Handle]:
    """A cluster that has ended, and a job that ran on it."""

    def make() -> tuple[Handle, Handle]:
        handle = _raced(subject)[0]
        ran = subject.start("job", job_spec(subject, "act.py", "stay", "0"), parent=handle)
        subject.wait("job", ran, State.SUCCEEDED)
        _driver(subject).stop(handle)
        _driver(subject).stop(handle)
        subject.wait("cluster", handle, State.STOPPED)
        return handle, ran

    return subject.shared("dead", make)
