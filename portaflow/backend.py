"""The interfaces a backend implements. A backend author reads this file and no other.

A *driver* starts, watches and stops one kind of remote thing: a cluster, a job on a
cluster, a container. A *backend* groups drivers under a name that a target can ask for.
A *spec* says neutrally what is wanted, a *request* says it in the provider's words, a
*handle* names what came back.

The laws (`pytest -p portaflow_conformance --target NAME` checks them):

1. `request` is pure: no clock, no network, no randomness; equal arguments, equal result.
2. `start` makes one provider call and returns as soon as the provider knows the thing.
3. `find` returns what `start` made under a name, from any process, for as long as the
   provider remembers the thing, ended or not.
4. `poll` never invents: what the provider does not know is a NotFoundError, and a status
   call that fails raises: it is not a failed job.
5. `stop` asks and does not wait; it is idempotent in every phase and silent when the
   thing is gone.
6. Starting one name twice yields one thing, or ConflictError when the request differs.
7. Every remote thing carries a time-to-live that the provider enforces, and the owner.
8. Errors are `portaflow.errors`, chained from the SDK's; `retryable` says whether asking
   again can help.
9. No secret in a request, a handle, an error, a status or a repr. A log is the command's own:
   what it writes stays as it is, but is shown with `***` for each secret's value that the
   backend knows.

What a backend need not do, because the core does: retries, backoff, deadlines, polling
cadence, naming, templates, staging, commit. A driver never sleeps.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, TypeVar

from .errors import NotFoundError

API_VERSION = "1.0"
"""MAJOR.MINOR of this file. A backend states the one it was written for."""

Request = Mapping[str, Any]
"""What will be sent to the provider, in the provider's own words. JSON, no secrets."""

Kind = Literal["cluster", "job", "container"]
"""The kinds of things that drivers start."""


class State(enum.Enum):
    """Where a remote thing is in its life. There is no "unknown": raise instead."""

    PENDING = "pending"  # accepted, not usable yet
    RUNNING = "running"  # a cluster is ready; a job or container is at work
    SUCCEEDED = "succeeded"  # a job or container ended well
    FAILED = "failed"  # ended badly; `reason` says why
    STOPPED = "stopped"  # ended because it was asked to, or its time-to-live was over

    @property
    def final(self) -> bool:
        """Whether the thing has ended: it does nothing any more and costs nothing."""
        return self in (State.SUCCEEDED, State.FAILED, State.STOPPED)


class Cause(enum.Enum):
    """Who is to blame for an end that is not a success. USER spends the user's retries."""

    USER = "user"
    INFRA = "infra"
    CAPACITY = "capacity"
    PREEMPTED = "preempted"
    DENIED = "denied"
    THROTTLED = "throttled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the provider says of one thing now.

    `reason` is for people and names the cause; `exit_code` is the process's own
    (128 + n when signal n ended it), None where the provider has none.
    """

    state: State
    reason: str = ""
    exit_code: int | None = None
    cause: Cause | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """Names one remote thing well enough to poll and stop it from any process. JSON."""

    name: str  # ours, from the plan
    id: str  # the provider's
    parent: str = ""  # the provider's id of the cluster that a job runs on
    url: str = ""  # where a person can look at it
    version: int = 1

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "id": self.id,
            "parent": self.parent,
            "url": self.url,
            "version": self.version,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Handle:
        return cls(**value)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """A piece of a log. `cursor` asks for what follows; `end` says nothing ever will.

    The bytes are exactly what was written, in order, but for secrets (law 9); a chunk may be
    empty. Pieces join without a gap or a repeat when each cursor is used for the next call,
    from any process.
    """

    data: bytes
    cursor: str
    end: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large one container or one cluster node is. Each cloud picks what fits."""

    cpu: float = 1.0  # cores
    memory: float = 2.0  # GiB
    gpu: int = 0  # devices
    disk: float = 10.0  # GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What every remote thing carries. The core fills it in; see law 7."""

    owner: str = ""  # label-safe: at most 40 of [a-z0-9-]; the run the thing belongs to
    ttl: int = 86400  # seconds after which the provider ends the thing, come what may
    grace: int = 10  # seconds between the polite and the hard end of a stop
    overrides: Mapping[str, Any] = field(default_factory=dict)  # merged in by the core


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSpec(Spec):
    """A Spark cluster."""

    workers: tuple[int, int] = (1, 1)  # at least, at most; equal when fixed
    size: Size = Size()  # of a worker
    spot: bool = False
    spark_version: str = ""  # MAJOR.MINOR; "" is the backend's default
    conf: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec(Spec):
    """A Spark job. URIs are in the store's own scheme."""

    main: str = ""  # URI of a Python file or a jar
    main_class: str = ""  # for a jar
    args: tuple[str, ...] = ()
    py_files: tuple[str, ...] = ()  # URIs of .py, .zip or .whl
    jars: tuple[str, ...] = ()  # URIs
    packages: tuple[str, ...] = ()  # Maven coordinates
    conf: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)  # of driver and executors
    secrets: Mapping[str, str] = field(default_factory=dict)  # variable -> secret's name
    size: Size = Size()  # of an executor; a serverless backend sizes the job by it
    files: Mapping[str, str] = field(default_factory=dict)  # of Driver.files: name -> URI


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerSpec(Spec):
    """A container that runs to completion. `command` replaces the image's entrypoint."""

    image: str = ""  # a reference, as the target gives it
    context: str = ""  # folder with the Dockerfile and requirements.txt; "" when unknown
    digest: str = ""  # sha256 of the context's files; "" when unknown
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)  # verbatim, nothing is expanded
    secrets: Mapping[str, str] = field(default_factory=dict)  # variable -> secret's name
    mounts: tuple[str, ...] = ()  # host folders seen at the same path (ObjectStore.mounts)
    size: Size = Size()


SpecT = TypeVar("SpecT", bound=Spec)


class Verdict(enum.Enum):
    """What a backend does with one field of a spec. `plan` shows all but HONOURED."""

    HONOURED = "honoured"
    APPROXIMATED = "approximated"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Fit:
    """One verdict and, unless the field is honoured, why."""

    verdict: Verdict
    reason: str = ""


class Capability(enum.Enum):
    """What a backend may or may not be able to do. A closed list."""

    # compute
    JAR = "jar"  # jobs whose main is a jar
    PACKAGES = "packages"  # Maven coordinates resolved for a job
    AUTOSCALE = "autoscale"  # workers as a range
    SPOT = "spot"
    CONCURRENT_JOBS = "concurrent-jobs"  # several jobs on one cluster at once
    # container
    IMAGES = "images"  # runs real images
    LIMITS = "limits"  # cpu and memory of a Size are enforced
    GPU = "gpu"
    SECRETS = "secrets"  # secrets delivered by reference
    # store
    CREATE_IF_ABSENT = "create-if-absent"  # `pipe_file(..., mode="create")` is atomic
    KEY_AND_PREFIX = "key-and-prefix"  # `a` and `a/b` are both objects
    CASE_SENSITIVE = "case-sensitive"
    METADATA = "metadata"
    PRESIGN = "presign"
    VERSIONS = "versions"


@dataclass(frozen=True, slots=True)
class Support:
    """Whether a capability is there; if not, why, or which issue would bring it."""

    supported: bool
    reason: str = ""
    issue: str = ""


SUPPORTED = Support(True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that `portaflow doctor` looked at. `fix` is a command or a sentence."""

    what: str
    ok: bool
    detail: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What the provider bills by the hour for a request: machines, or cores and GiB.

    `type` is the provider's own word for it (m5.xlarge, n2-standard-4), so that a price can be
    looked up. `least`, `most`: how many; equal when fixed.
    """

    type: str
    least: float = 1
    most: float = 1
    spot: bool = False

    @property
    def key(self) -> str:
        """Under which a table of prices has it."""
        return f"{self.type} spot" if self.spot else self.type


class Driver(ABC, Generic[SpecT]):
    """Starts, watches and stops one kind of remote thing. Safe to call from any thread."""

    @abstractmethod
    def request(self, name: str, spec: SpecT, parent: str = "") -> Request:
        """Say `spec` in the provider's words. `parent` is the planned name of the cluster.

        Pure (law 1). The request holds `name`, the owner and the time-to-live.
        Raises RejectedError when the spec cannot be said.
        """

    def fit(self, spec: SpecT) -> Mapping[str, Fit]:
        """Say which fields of `spec` are not simply honoured. Pure."""
        return {}

    def files(self, spec: SpecT) -> Mapping[str, bytes]:
        """Files of the backend's own that a job needs in the store: name -> content. Pure.

        The core puts them there; where, `request` is told by the spec's `files`.
        """
        return {}

    def machines(self, request: Request) -> Sequence[Machines] | None:
        """Say what is billed while the thing lives: () for nothing, None when unknown. Pure."""
        return None

    def prices(self, machines: Collection[Machines]) -> Mapping[str, float]:
        """Ask what an hour of one of each costs: `Machines.key` -> US dollars, by the list.

        Only `portaflow prices` asks. What the provider does not tell is left out.
        """
        return {}

    @abstractmethod
    def find(self, name: str, parent: Handle | None = None) -> Handle | None:
        """Return what was started under `name`, or None when the provider knows nothing."""

    @abstractmethod
    def start(self, request: Request, parent: Handle | None = None) -> Handle:
        """Ask the provider to make the thing; one call, no waiting (laws 2 and 6)."""

    @abstractmethod
    def poll(self, handles: Sequence[Handle]) -> Mapping[str, Status | NotFoundError]:
        """Return the status of each handle by its name, with one list call for them all.

        A thing that the provider does not know is a NotFoundError *in* the answer; a call
        that fails raises, UnavailableError when it may work again later (law 4).
        """

    @abstractmethod
    def logs(self, handle: Handle, cursor: str = "") -> LogChunk:
        """Return what was logged after `cursor` ("" is the start), at most about 1 MiB."""

    @abstractmethod
    def stop(self, handle: Handle) -> None:
        """Ask the thing to end: politely, and hard after the spec's grace (law 5)."""

    @abstractmethod
    def owned(self, owner: str = "") -> Iterable[Handle]:
        """List what is alive and belongs to `owner`; "" means to any run of portaflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoConfig:
    """The Config of a backend that has no settings."""


class Backend(ABC):
    """One service of one provider, configured by a target. `__init__` does no I/O.

    `Config` is a frozen keyword-only dataclass: the core checks the target's settings
    against its annotations and refuses unknown ones, then hands over an instance.
    A capability that is not listed is unsupported, with no reason given.
    """

    name: ClassVar[str]
    api_version: ClassVar[str] = API_VERSION
    Config: ClassVar[type[Any]] = NoConfig
    capabilities: ClassVar[Mapping[Capability, Support]] = {}

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self) -> Iterable[Finding]:
        """Look at what this backend needs (credentials, programs, roles) at no cost."""
        return ()


class ComputeCluster(Backend):
    """Clusters that run Spark jobs: EMR, Dataproc, Spark on this machine.

    `cloud` says whose machines its jobs run on, "aws" or "gcp", where these read a store of
    that cloud by themselves, with credentials of their own; "" says nothing.
    """

    cloud: ClassVar[str] = ""

    @property
    @abstractmethod
    def clusters(self) -> Driver[ClusterSpec] | None:
        """None when the backend is serverless: its jobs have no parent."""

    @property
    @abstractmethod
    def jobs(self) -> Driver[JobSpec]: ...


class ContainerRun(Backend):
    """Containers run to completion: EKS, GKE, Docker, processes of this machine."""

    @property
    @abstractmethod
    def containers(self) -> Driver[ContainerSpec]: ...

    def check_image(self, reference: str) -> Finding | None:
        """Look for an image, as far as that costs nothing. None: there is nothing to look at."""
        return None


class ObjectStore(Backend):
    """A bucket, or a folder that behaves like one, seen through fsspec.

    The filesystem is synchronous, safe to use from threads, and says missing keys with
    FileNotFoundError and missing rights with PermissionError. A write is seen whole or
    not at all; `pipe_file(path, data, mode="create")` raises FileExistsError when the key
    exists, with exactly one winner of a race.
    """

    @abstractmethod
    def url(self, key: str) -> str:
        """Return the URI of `key`, in the scheme that jobs and containers read."""

    @abstractmethod
    def filesystem(self) -> Any:
        """Return an `fsspec.AbstractFileSystem` that takes the URIs of `url`."""

    def spark_conf(self, cloud: str = "") -> Mapping[str, str]:
        """Spark settings with which a job on machines of a cloud reads this store's URIs.

        Pure; no secrets, but where they are. Raises TargetError, which names the setting, when
        such a job would have no credentials.
        """
        return {}

    def container_env(self) -> Mapping[str, str]:
        """Environment with which a container reads this store's URIs. No secrets."""
        return {}

    def mounts(self) -> Sequence[str]:
        """Folders of this machine that a container must see at the same path."""
        return ()
