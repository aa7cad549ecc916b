"""Every check of container runs fails on a backend that breaks just that promise."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from portaflow_conformance.checks import implemented
from portaflow_conformance.manifest import MANIFEST
from portaflow_conformance.subject import NotRun, Subject
from portaflow_local.process import ContainerDriver, Processes

from portaflow.backend import (
    SUPPORTED,
    Capability,
    Cause,
    ContainerSpec,
    Fit,
    Handle,
    LogChunk,
    Request,
    State,
    Status,
)
from portaflow.errors import ConflictError, NotFoundError

CHECKS = [c.id for c in MANIFEST if c.area == "container" and not c.planned]
VALUE = "PORTAFLOW_SECRET_CONFORMANCE"


def container(driver: type[ContainerDriver], *claims: Capability) -> type[Processes]:
    def containers(self: Processes) -> ContainerDriver:
        return driver(self.config.root, self.config.root / "cache")

    capabilities = {**Processes.capabilities, **dict.fromkeys(claims, SUPPORTED)}
    return type(
        "Broken", (Processes,), {"containers": property(containers), "capabilities": capabilities}
    )


def asking(change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> type[ContainerDriver]:
    """A driver that says something else to its provider: `change` takes the request."""

    class Asking(ContainerDriver):
        def request(self, name: str, spec: ContainerSpec, parent: str = "") -> Request:
            request = dict(super().request(name, spec, parent))
            return {**request, **change(request)}

    return Asking


def telling(change: Callable[[Status], Status]) -> type[ContainerDriver]:
    """A driver that tells another status than its provider."""

    class Telling(ContainerDriver):
        def _status(self, name: str) -> Status | NotFoundError:
            status = super()._status(name)
            return change(status) if isinstance(status, Status) else status

    return Telling


def all_values(change: Callable[[str], str]) -> Callable[[dict[str, Any]], Mapping[str, Any]]:
    return lambda request: {"env": {k: change(v) for k, v in request["env"].items()}}


class NoEntrypoint(ContainerDriver):
    def request(self, name: str, spec: ContainerSpec, parent: str = "") -> Request:
        request = super().request(name, spec, parent)
        return {**request, "command": list(spec.command or spec.args)}


class ShortLogs(ContainerDriver):
    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        chunk = super().logs(handle, cursor)
        return LogChunk(data=chunk.data[:10_000], cursor=chunk.cursor, end=True)


class Repeats(ContainerDriver):
    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        chunk = super().logs(handle, cursor)
        again = str(max(int(chunk.cursor) - 1, 0))
        return LogChunk(data=chunk.data, cursor=again, end=chunk.end)


class ShortLines(ContainerDriver):
    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        chunk = super().logs(handle, cursor)
        lines = b"\n".join(line[:65536] for line in chunk.data.split(b"\n"))
        return LogChunk(data=lines, cursor=chunk.cursor, end=chunk.end)


class Silent(ContainerDriver):
    def fit(self, spec: ContainerSpec) -> Mapping[str, Fit]:
        return {}


class KillsAtOnce(ContainerDriver):
    def stop(self, handle: Handle) -> None:
        home = self.folder / handle.name
        (home / "stopping").touch()
        os.killpg(int((home / "lock").read_bytes()), signal.SIGKILL)


class StopsOnlyWhatIs(ContainerDriver):
    def stop(self, handle: Handle) -> None:
        if handle.name not in [h.name for h in self.owned()]:
            raise NotFoundError(f"{handle.name} is not there")
        super().stop(handle)


class Waits(ContainerDriver):
    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        handle = super().start(request, parent)
        while not getattr(self._status(handle.name), "state", State.PENDING).final:
            pass
        return handle


class Forgets(ContainerDriver):
    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        return super().find(name) if name in self._children else None


class FindsByPrefix(ContainerDriver):
    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        found = next(iter(sorted(self.folder.glob(f"{name}*"))), None)
        return self._handle(found.name) if found else None


class Invents(ContainerDriver):
    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        failed = Status(state=State.FAILED, cause=Cause.INFRA)
        answer = super().poll(handles)
        return {n: failed if isinstance(s, NotFoundError) else s for n, s in answer.items()}


class ManyIds(ContainerDriver):
    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        handle = super().start(request, parent)
        return Handle(name=handle.name, id=uuid4().hex)


class TakesAnything(ContainerDriver):
    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        try:
            return super().start(request, parent)
        except ConflictError:
            return self._handle(request["name"])


class EverybodysOwn(ContainerDriver):
    def owned(self, owner: str = "") -> Iterable[Handle]:
        return super().owned()


class ListsTheDead(ContainerDriver):
    def owned(self, owner: str = "") -> Iterable[Handle]:
        return [self._handle(home.name) for home in self.folder.glob("*")]


class OneFolder(ContainerDriver):
    def launch(self, request: Request, home: Path, parent: Handle | None) -> Any:
        there = ["sh", "-c", 'cd "$0" && exec "$@"', str(self.folder)]
        return super().launch({**request, "command": [*there, *request["command"]]}, home, parent)


class StopsInNameOnly(ContainerDriver):
    """Tells that what was stopped has ended, and lists it no more; it runs on."""

    stopped: set[str] = set()

    def stop(self, handle: Handle) -> None:
        self.stopped.add(handle.name)

    def _status(self, name: str) -> Status | NotFoundError:
        return Status(state=State.STOPPED) if name in self.stopped else super()._status(name)

    def owned(self, owner: str = "") -> Iterable[Handle]:
        return (h for h in super().owned(owner) if h.name not in self.stopped)


def _one_code(status: Status) -> Status:
    if status.state is not State.FAILED:
        return status
    return Status(state=State.FAILED, exit_code=1, cause=Cause.USER, reason="failed")


def _signal_is_a_stop(status: Status) -> Status:
    return Status(state=State.STOPPED) if (status.exit_code or 0) > 128 else status


def _shows_secret(status: Status) -> Status:
    return Status(
        state=status.state,
        reason=f"env: {os.environ.get(VALUE, '')}",
        exit_code=status.exit_code,
        cause=status.cause,
    )


def _prints_another_user(request: dict[str, Any]) -> Mapping[str, Any]:
    return {"command": ["sh", "-c", "echo 12345"]}


BROKEN: dict[str, tuple[type[Processes], str]] = {
    "exit_codes": (container(telling(_one_code)), "exit 42 is told as exit code 1"),
    "signal_death_reported": (container(telling(_signal_is_a_stop)), "killed is told as"),
    "args_verbatim": (
        container(asking(lambda r: {"command": [c for c in r["command"] if c]})),
        "were sent .argument., .* have arrived",
    ),
    "entrypoint_args_matrix": (container(NoEntrypoint), "command and args are not joined"),
    "env_verbatim": (container(asking(all_values(str.strip))), "has arrived as"),
    "env_no_expansion": (
        container(asking(all_values(lambda v: v.replace("$(HOME)", "/root")))),
        r"'\$\(HOME\)' has arrived as '/root'",
    ),
    "secret_delivered_by_reference": (
        container(asking(lambda r: {"secrets": {}})), "the secret did not arrive",
    ),
    "secret_absent_from_logs_errors": (
        container(telling(_shows_secret)), "the secret's value is in the status",
    ),
    "logs_complete_fast_exit": (container(ShortLogs), "2000 lines were printed"),
    "logs_cursors_join": (container(Repeats), "the pieces join to"),
    "log_odd_lines": (container(ShortLines), "a line of 1 MiB has become one of 65536"),
    "image_missing_fast_typed": (container(Silent), "what becomes of one"),
    "unschedulable_times_out": (container(Silent), "of 100,000 cores is"),
    "oom_typed": (container(ContainerDriver, Capability.LIMITS), "512 MiB in 64 MiB of memory"),
    "resources_honoured": (container(Silent), "what becomes of a size"),
    "timeout_kills": (container(asking(lambda r: {"ttl": 9999})), "is not at an end after"),
    "cancel_term_then_kill": (container(KillsAtOnce), "ignores SIGTERM was killed after"),
    "cancel_any_phase_idempotent": (container(StopsOnlyWhatIs), "is not there"),
    "start_returns_at_once": (container(Waits), "for a command that takes 6"),
    "adopt_after_crash": (container(Forgets), "another process has started is not found"),
    "adopt_ignores_old_attempts": (container(FindsByPrefix), "never started, but"),
    "poll_never_invents": (container(Invents), "what was never started is told as"),
    "submit_same_id_race": (container(ManyIds), "one name has 8 ids"),
    "start_conflict_typed": (container(TakesAnything), "that is taken is accepted"),
    "ownership_visible": (container(EverybodysOwn), "owned.'.*x'. lists"),
    "long_names_unique": (
        container(asking(lambda r: {"name": r["name"][:39]})), "have become one thing",
    ),
    "parallel_20_isolated": (container(OneFolder), "of twenty at once has printed"),
    "finished_objects_removed": (container(ListsTheDead), "are listed as alive"),
    "non_root_by_default": (container(asking(_prints_another_user)), "runs as user 12345"),
}  # fmt: skip


def test_there_is_a_broken_backend_for_every_check() -> None:
    assert {f"container.{name}" for name in BROKEN} == set(CHECKS)


@pytest.mark.parametrize("name", BROKEN)
def test_a_check_fails_on_a_backend_that_breaks_its_promise(
    name: str, make: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VALUE, "the value of a secret")
    broken, says = BROKEN[name]
    patience = 4.0 if name in ("timeout_kills", "finished_objects_removed") else 30.0
    subject = make(container=broken, patience=patience)
    with pytest.raises((AssertionError, NotFoundError, ConflictError), match=says):
        implemented()[f"container.{name}"](subject)


@pytest.mark.parametrize("id", CHECKS)
def test_a_check_passes_on_processes(
    id: str, make: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VALUE, "the value of a secret")
    subject = make(container=Processes)
    implemented()[id](subject)
    subject.clean()
    implemented()["end-to-end.leak_audit_zero"](subject)


def test_the_audit_sees_a_process_that_its_backend_denies(make: Callable[..., Subject]) -> None:
    subject = make(container=container(StopsInNameOnly), patience=2.0)
    subject.until_logged("container", subject.sh("echo on; while :; do sleep 1; done"), b"on")
    with pytest.raises(AssertionError, match=r"left behind: process \d+ "):
        implemented()["end-to-end.leak_audit_zero"](subject)


def test_a_provider_without_the_secret_is_not_run_until_somebody_says_its_value(
    make: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoSecrets(ContainerDriver):
        def start(self, request: Request, parent: Handle | None = None) -> Handle:
            raise NotFoundError("no such secret") if request["secrets"] else AssertionError

    monkeypatch.delenv(VALUE, raising=False)
    check = implemented()["container.secret_delivered_by_reference"]
    try:
        with pytest.raises(NotRun, match=f"environment variable {VALUE}"):
            check(make(container=container(NoSecrets)))
    finally:
        monkeypatch.setenv(VALUE, "x")
    with pytest.raises(AssertionError, match="'conformance' is not found"):
        check(make(container=container(NoSecrets)))
