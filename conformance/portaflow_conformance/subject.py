"""What is checked: the backends of a target, used as an engine uses them."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol, TypeVar
from uuid import uuid4

from portaflow.backend import (
    Backend,
    Capability,
    ContainerSpec,
    Handle,
    Kind,
    LogChunk,
    Request,
    Spec,
    State,
    Status,
    Support,
)
from portaflow.errors import BackendError, NotFoundError, PortaflowError
from portaflow.plugins import Backends, Registry
from portaflow.target import Binding, Target

Role = Literal["store", "container", "compute"]
ROLES: tuple[Role, ...] = ("store", "container", "compute")
T = TypeVar("T")

MARK = "PORTAFLOW_CONFORMANCE"
"""Environment variable that everything started here carries, for an observer to look for."""

_FORGETFUL = 15.0  # seconds in which a provider may not yet know what it has started


class NotRun(Exception):
    """A check could not be made, and why. It is not a pass: the report becomes partial."""


def expect(truth: object, otherwise: str) -> None:
    """Fail the check with what was found. Not `assert`, which `python -O` removes."""
    if not truth:
        raise AssertionError(otherwise)


class Elsewhere(Protocol):
    """Does something as another process would, see elsewhere.py."""

    def __call__(self, verb: str, **what: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a check must be told of the place."""

    image: str = "busybox"  # has a POSIX shell and the usual small programs
    secret: str = "conformance"  # a secret's name
    shortest_ttl: int = 5  # seconds: the shortest time-to-live that the provider enforces
    patience: Mapping[Kind, float] = field(
        default_factory=lambda: {"container": 180.0, "job": 600.0, "cluster": 1200.0}
    )  # seconds that something may take before the check fails


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret's name, the variable with its value, and whether a person has set that."""

    name: str
    variable: str
    value: str = field(repr=False)
    known: bool


class Subject:
    """A target under test. Checks start things through it, so that all can be cleaned up."""

    def __init__(
        self,
        target: Target,
        registry: Registry,
        elsewhere: Elsewhere,
        options: Options | None = None,
    ) -> None:
        self.target, self.registry, self.elsewhere = target, registry, elsewhere
        self.options = options or Options()
        self.token = uuid4().hex[:8]
        self.owner = f"pf-conformance-{self.token}"
        self.here = self.fresh()
        self._count = 0
        self._started: list[tuple[Kind, Handle]] = []
        self._kept: list[tuple[Kind, Handle]] = []
        self._shared: dict[str, Any] = {}
        self._sharing = False
        self._seen: set[str] = set()  # ids of what the provider has told of

    # -- backends

    def fresh(self) -> Backends:
        """Backends as another process would open them: nothing is remembered."""
        return Backends(self.target, self.registry)

    def binding(self, role: Role) -> Binding | None:
        bound: Binding | None = getattr(self.target, role)
        return bound

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles for which the target names a backend."""
        return tuple(r for r in ROLES if self.binding(r))

    def backend(self, role: Role) -> Backend:
        found: Backend = getattr(self.here, role)
        return found

    def supports(self, role: Role, capability: Capability) -> bool:
        return self.backend(role).capabilities.get(capability, Support(False)).supported

    @contextmanager
    def declared(
        self, role: Role, capability: Capability, *, silently: bool = False
    ) -> Iterator[None]:
        """Run the block, which must pass when the capability is declared, else be refused.

        `silently`: where nothing can be refused, a wrong result is what must be seen.
        """
        if self.supports(role, capability):
            yield
            return
        try:
            yield
        except NotRun:
            raise
        except AssertionError:
            if not silently:
                raise
        except (OSError, NotImplementedError, ValueError, PortaflowError):
            return
        else:
            raise AssertionError(f"{capability.value!r} works but is not declared")

    def kinds(self) -> list[Kind]:
        """The kinds of things that the target can start."""
        kinds: list[Kind] = ["container"] if self.target.container else []
        if self.target.compute:
            kinds += ["cluster"] if self.here.compute.clusters else []
            kinds += ["job"]
        return kinds

    # -- names and keys: none is used twice

    def name(self) -> str:
        self._count += 1
        return f"pf-cf-{self.token}-{self._count}"

    def prefix(self) -> str:
        """A URI under which nothing is yet."""
        self._count += 1
        return self.here.store.url(f"conformance/{self.token}/{self._count}")

    @cached_property
    def fs(self) -> Any:
        return self.here.store.filesystem()

    def other_fs(self) -> Any:
        """A filesystem that shares no cache with `fs`."""
        type(self.fs).clear_instance_cache()
        return self.fresh().store.filesystem()

    # -- things

    def start(
        self, kind: Kind, spec: Spec, *, name: str = "", parent: Handle | None = None
    ) -> Handle:
        driver = self.here.driver(kind)
        request = driver.request(name or self.name(), spec, parent.name if parent else "")
        return self.submit(kind, request, parent)

    def submit(
        self,
        kind: Kind,
        request: Request,
        parent: Handle | None = None,
        via: Backends | None = None,
    ) -> Handle:
        driver = (via or self.here).driver(kind)
        sent = json.loads(json.dumps(request))  # what a journal would have kept of it
        return self.watch(kind, driver.start(sent, parent))

    def watch(self, kind: Kind, handle: Handle) -> Handle:
        """Remember that a thing is to be cleaned up."""
        (self._kept if self._sharing else self._started).append((kind, handle))
        return handle

    def status(self, kind: Kind, handle: Handle) -> Status | NotFoundError:
        return self.here.driver(kind).poll([handle])[handle.name]

    def wait(self, kind: Kind, handle: Handle, *states: State, timeout: float = 0) -> Status:
        """Poll until the thing is in one of `states`, or has ended when none is given.

        Fails when it ends otherwise, or not in time. A cluster that was there and is not any more
        has been stopped: some providers forget what they have deleted.
        """
        began = time.monotonic()
        limit = timeout or self.options.patience[kind]
        last: Status | BackendError | None = None
        while (passed := time.monotonic() - began) < limit:
            try:
                last = self.status(kind, handle)
            except BackendError as error:
                if not error.retryable:
                    raise
                last = error
            if isinstance(last, Status):
                self._seen.add(handle.id)
            elif kind == "cluster" and handle.id in self._seen and isinstance(last, NotFoundError):
                last = Status(state=State.STOPPED, reason=f"it is gone: {last}")
            if isinstance(last, NotFoundError) and passed > _FORGETFUL:
                break
            if isinstance(last, Status) and (last.state in states or last.state.final):
                wanted = " or ".join(s.value for s in states)
                expect(
                    not states or last.state in states,
                    f"{kind} {handle.name} is {last}; it should be {wanted}",
                )
                return last
            time.sleep(min(0.02 + passed / 20, 5.0))
        wanted = " or ".join(s.value for s in states) or "at an end"
        raise AssertionError(
            f"{kind} {handle.name} is not {wanted} after {time.monotonic() - began:.0f} s: {last!r}"
        )

    def soon(self, kind: Kind, at_most: float = 60.0) -> float:
        """Seconds in which something has happened that needs no start of its own."""
        return min(at_most, self.options.patience[kind])

    def log(self, kind: Kind, handle: Handle) -> bytes:
        """The whole log of a thing that has ended."""
        return b"".join(c.data for c in self.chunks(kind, handle))

    def chunks(
        self, kind: Kind, handle: Handle, place: Callable[[], Backends] | None = None
    ) -> Iterator[LogChunk]:
        """The log piece by piece until its end; `place` gives the backends for each call."""
        began, cursor = time.monotonic(), ""
        while time.monotonic() - began < self.options.patience[kind]:
            chunk = (place() if place else self.here).driver(kind).logs(handle, cursor)
            yield chunk
            cursor = chunk.cursor
            if chunk.end:
                return
            if not chunk.data:
                time.sleep(0.05)
        raise AssertionError(f"the log of {kind} {handle.name} has no end")

    def until_logged(self, kind: Kind, handle: Handle, text: bytes) -> None:
        """Wait until a thing has logged `text`."""
        seen = b""
        for chunk in self.chunks(kind, handle):
            seen += chunk.data
            if text in seen:
                return
        raise AssertionError(f"{kind} {handle.name} has logged {seen[-500:]!r}, but not {text!r}")

    # -- containers

    def container(self, script: str, *args: str, **fields: Any) -> ContainerSpec:
        """A container that runs a line of POSIX shell."""
        defaults: dict[str, Any] = {"image": self.options.image, "owner": self.owner, "ttl": 900}
        env = {MARK: self.owner, **fields.pop("env", {})}
        command = ("sh", "-c", script, "sh")
        return ContainerSpec(**{**defaults, **fields}, command=command, args=args, env=env)

    def sh(self, script: str, *args: str, name: str = "", **fields: Any) -> Handle:
        return self.start("container", self.container(script, *args, **fields), name=name)

    def output(self, script: str, *args: str, **fields: Any) -> bytes:
        """What a container prints that must end well."""
        handle = self.sh(script, *args, **fields)
        self.wait("container", handle, State.SUCCEEDED)
        return self.log("container", handle)

    @cached_property
    def secret(self) -> Secret:
        """The suite's secret: its value is in the environment, or made up and put there.

        A backend that takes secrets from this machine finds it there. For another one,
        make the secret at the provider and say its value in the variable.
        """
        name = self.options.secret
        variable = f"PORTAFLOW_SECRET_{re.sub(r'[^A-Z0-9]', '_', name.upper())}"
        known = variable in os.environ
        value = os.environ.setdefault(variable, f"made-up-{uuid4().hex}")
        return Secret(name, variable, value, known)

    # -- shared and cleaned up

    def shared(self, key: str, make: Callable[[], T]) -> T:
        """What several checks look at, made once; what made it fail fails each of them."""
        if key not in self._shared:
            before, self._sharing = self._sharing, True
            try:
                self._shared[key] = make()
            except (AssertionError, PortaflowError, NotRun) as error:
                self._shared[key] = error
            finally:
                self._sharing = before
        made = self._shared[key]
        if isinstance(made, Exception):
            raise made
        return made  # type: ignore[no-any-return]

    def clean(self) -> None:
        """Stop what the last check has started. What does not stop is the audit's to find."""
        started, self._started = self._started, []
        self._end(started)

    def close(self) -> None:
        """Stop everything, and remove what was written to the store."""
        self.clean()
        kept, self._kept = self._kept, []
        self._end(kept)
        self._shared.clear()
        root = self.here.store.url(f"conformance/{self.token}")
        with suppress(OSError):
            self.fs.rm(root, recursive=True)

    def _end(self, things: Sequence[tuple[Kind, Handle]]) -> None:
        for kind, handle in reversed(things):
            with suppress(PortaflowError):
                self.here.driver(kind).stop(handle)
        for kind, handle in things:
            with suppress(PortaflowError, AssertionError):
                if not isinstance(self.status(kind, handle), NotFoundError):
                    self.wait(kind, handle, timeout=self.soon(kind))
