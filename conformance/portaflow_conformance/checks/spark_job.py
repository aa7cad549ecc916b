"""L1, Spark: a job gets what it was given, and how it ended is what is told."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from portaflow.backend import Capability, Handle, State, Status
from portaflow.errors import NotFoundError

from ..jobs import ARGS, CONF, ENV, cluster, jar, job, job_spec, staged
from ..subject import Subject, expect


def job_success(subject: Subject) -> None:
    """A job that ends well has succeeded, and its log is there."""
    handle, _ = _probe(subject)
    seen = subject.wait("job", handle)
    expect(seen.state is State.SUCCEEDED, f"a job that ended well is told as {seen}")
    log = subject.log("job", handle)
    expect(b"probe is done" in log, f"what the driver printed is not in its log: {log[-300:]!r}")


def job_args_verbatim(subject: Subject) -> None:
    """Arguments arrive as they are: nothing is dropped, split, or taken for a template."""
    seen = _probe(subject)[1]["args"]
    expect(len(seen) == len(ARGS), f"{len(ARGS)} arguments were sent, {len(seen)} arrived: {seen}")
    for a, b in zip(ARGS, seen, strict=True):
        expect(a == b, f"the argument {a!r} has arrived as {b!r}")


def conf_values_spaces_commas(subject: Subject) -> None:
    """Settings with spaces, commas and quotes arrive as they are."""
    seen = _probe(subject)[1]["conf"]
    for key, value in CONF.items():
        expect(seen.get(key) == value, f"{key}={value!r} has arrived as {seen.get(key)!r}")


def env_reaches_driver_executors(subject: Subject) -> None:
    """Variables are there, in the driver and in the executors."""
    for place in ("driver", "executor"):
        seen = _probe(subject)[1][place]["env"]
        for key, value in ENV.items():
            there = seen.get(key)
            expect(there == value, f"{key}={value!r} is {there!r} in the {place}")


def dependencies_shipped(subject: Subject) -> None:
    """py_files can be imported in driver and executors; jars are on the class path."""
    found = _probe(subject)[1]
    for place in ("driver", "executor"):
        expect(found[place]["dependency"] == "shipped", f"py_files do not reach the {place}")
    expect(found["jar"], "jars are not on the class path")


def jar_job(subject: Subject) -> None:
    """A job whose main is a jar runs the class that it names."""
    with subject.declared("compute", Capability.JAR):
        main = staged(subject, "main.jar", jar())
        spec = job_spec(subject, "act.py")
        handle = subject.start(
            "job", replace(spec, main=main, main_class="org.apache.hadoop.util.VersionInfo"),
            parent=cluster(subject),
        )  # fmt: skip
        subject.wait("job", handle, State.SUCCEEDED)
        log = subject.log("job", handle)
        expect(b"Hadoop" in log, f"the class prints its version; the log is {log[-300:]!r}")


def job_failure_every_deploy_mode(subject: Subject) -> None:
    """A job fails when its driver raises, and when it exits with a code; with a reason."""
    for how, handle in _failed(subject).items():
        seen = subject.wait("job", handle)
        expect(seen.state is State.FAILED, f"a driver that ends with {how} is told as {seen}")
        expect(seen.reason, f"a driver that ends with {how} has failed without a reason")
        expect(seen.exit_code != 0, f"a driver that ends with {how} has exit code 0")


def driver_logs_on_failure(subject: Subject) -> None:
    """Why a driver raised is in its log."""
    handle = _failed(subject)["raise"]
    subject.wait("job", handle, State.FAILED)
    log = subject.log("job", handle)
    expect(b"conformance-cause" in log, f"why the job failed is not in its log: {log[-300:]!r}")


def cancel_idempotent(subject: Subject) -> None:
    """A stop is silent while a job runs, when it has ended, and when there is none."""
    handle = _cancelled(subject)
    driver = subject.fresh().driver("job")
    driver.stop(handle)
    seen = subject.wait("job", handle)
    expect(seen.state.final, f"stopped three times, a job is {seen}")
    driver.stop(Handle(name=subject.name(), id="no-such-id", parent=handle.parent))


def cancelled_not_success(subject: Subject) -> None:
    """A job that was stopped is stopped: no success, and no failure of its own."""
    seen = subject.wait("job", _cancelled(subject))
    expect(seen.state is State.STOPPED, f"a job that was stopped is told as {seen}")


def job_timeout_cancels(subject: Subject) -> None:
    """The provider ends a job that outlives its time, though nobody asks it to."""
    ttl = subject.options.shortest_ttl
    handle = job(subject, "act.py", "stay", "300", ttl=ttl)
    seen = subject.wait("job", handle, timeout=ttl + subject.soon("job"))
    expect(
        seen.state in (State.STOPPED, State.FAILED), f"a job whose time is over is told as {seen}"
    )


def reattach_running_job(subject: Subject) -> None:
    """A job whose starter was killed is found, runs on, and comes to its own end."""
    parent, name = cluster(subject), subject.name()
    driver = subject.here.driver("job")
    spec = job_spec(subject, "act.py", "stay", "3")
    request = driver.request(name, spec, parent.name if parent else "")
    subject.elsewhere(
        "start", kind="job", request=request, kill_at="started",
        parent=parent.to_json() if parent else None,
    )  # fmt: skip
    found = subject.fresh().driver("job").find(name, parent)
    expect(found is not None, "what another process has started is not found")
    assert found is not None
    subject.watch("job", found)
    listed = [h.name for h in driver.owned(subject.owner)]
    expect(name in listed, f"a running job is not among its owner's: {listed}")
    again = driver.start(request, parent)
    expect(again.id == found.id, "starting what is there has made another one")
    subject.wait("job", found, State.SUCCEEDED)
    expect(subject.log("job", found).count(b"stayed") == 1, "it did not run exactly once")


def poll_never_invents(subject: Subject) -> None:
    """What the provider does not know is not found; what it knows is told beside it."""
    known = _probe(subject)[0]
    unknown = Handle(name=subject.name(), id="no-such-id", parent=known.parent)
    driver = subject.fresh().driver("job")
    answer = driver.poll([unknown, known])
    seen, beside = answer[unknown.name], answer[known.name]
    expect(isinstance(seen, NotFoundError), f"a job that never was is told as {seen!r}")
    expect(isinstance(beside, Status), f"beside an unknown one a success is {beside!r}")
    expect(driver.find(unknown.name, cluster(subject)) is None, "a job that never was is found")
    for kind in subject.kinds():
        if kind == "cluster":
            told = subject.here.driver(kind).poll([unknown])[unknown.name]
            expect(isinstance(told, NotFoundError), f"a cluster that never was is {told!r}")


def concurrent_jobs(subject: Subject) -> None:
    """Two jobs on one cluster run at the same time."""
    handles = [job(subject, "act.py", "stay", "120") for _ in range(2)]
    first = _first_acting(subject, handles)
    other = next(h for h in handles if h is not first)
    if subject.supports("compute", Capability.CONCURRENT_JOBS):
        subject.until_logged("job", other, b"acting")
        seen = [subject.status("job", h) for h in handles]
        running = [s for s in seen if isinstance(s, Status) and s.state is State.RUNNING]
        expect(len(running) == 2, f"two jobs at once are told as {seen}")
        return
    waits = subject.status("job", other)
    expect(
        isinstance(waits, Status) and waits.state is State.PENDING,
        f"several jobs at once are not declared, but beside one the other is {waits!r}",
    )


# -- parts


def _first_acting(subject: Subject, handles: Sequence[Handle]) -> Handle:
    """Whichever job is at work first: a backend that queues them need not keep the order."""
    driver = subject.here.driver("job")
    deadline = time.monotonic() + subject.options.patience["job"]
    while time.monotonic() < deadline:
        for handle in handles:
            if b"acting" in driver.logs(handle).data:
                return handle
        time.sleep(0.05)
    raise AssertionError("of two jobs none has begun")


def _probe(subject: Subject) -> tuple[Handle, Any]:
    """The job that reports what it sees, and its report; one start for many checks."""

    def make() -> tuple[Handle, Any]:
        output = subject.prefix() + "/seen"
        handle = job(
            subject, "probe.py", output, *ARGS, conf=CONF, env=ENV,
            py_files=(staged(subject, "conformance_dependency.py"),),
            jars=(staged(subject, "dependency.jar", jar()),),
        )  # fmt: skip
        status = subject.wait("job", handle)
        files = [p for p in subject.fs.find(output) if "/part-" in str(p)]
        if not files:
            tail = subject.log("job", handle)[-1500:].decode(errors="replace")
            raise AssertionError(f"the probe has written nothing: {status}\n{tail}")
        return handle, json.loads(b"".join(subject.fs.cat_file(p) for p in sorted(files)))

    return subject.shared("probe", make)


def _failed(subject: Subject) -> dict[str, Handle]:
    def make() -> dict[str, Handle]:
        handles = {how: job(subject, "act.py", how) for how in ("raise", "exit")}
        for handle in handles.values():
            subject.wait("job", handle)
        return handles

    return subject.shared("failed", make)


def _cancelled(subject: Subject) -> Handle:
    """A job that was stopped, twice, while it ran."""

    def make() -> Handle:
        handle = job(subject, "act.py", "stay", "300")
        subject.until_logged("job", handle, b"acting")
        driver = subject.here.driver("job")
        driver.stop(handle)
        driver.stop(handle)
        subject.wait("job", handle)
        return handle

    return subject.shared("cancelled", make)
