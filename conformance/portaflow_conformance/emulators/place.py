"""What every stand-in is given, and what it gives back.

A stand-in is an `Emulator`: it starts servers on 127.0.0.1, tells which hosts of its cloud they
answer for, and what environment an unmodified client needs. It records every call and asks
before each whether a fault was ordered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from .control import Control
from .spark import Connector

if TYPE_CHECKING:  # needs what the extra brings, and who has not got it is to be told so
    from .authority import Authority


def _no_tunnel(port: int) -> bool:
    return False


def _left(path: Path) -> None:
    """Nobody is there who would remove it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stand-in lives.

    `folder` is its own and is removed at the end; `authority` signs certificates that clients
    trust; `control` holds the faults, the log of calls and the clock; `pace` stretches the time
    that states take (0 is at once, 1 is about two seconds for a cluster). `others` are the
    stand-ins that run beside it, by name: all are there, though maybe not started, when it
    starts. `abort(port)` resets the tunnel whose end a server sees as its peer's port, and
    tells whether there is one: for servers that cannot reset a connection themselves (gRPC).
    `removes(path)` names what is made outside of the folder, before it is: it goes at the end, too.
    `images` are the container images that are folders with a Dockerfile, by name. `buckets` are
    there from the start, in each store.
    """

    folder: Path
    authority: Authority
    control: Control
    pace: float = 0.1
    others: Mapping[str, Emulator] = field(default_factory=dict)
    abort: Callable[[int], bool] = _no_tunnel
    removes: Callable[[Path], None] = _left
    images: Mapping[str, Path] = field(default_factory=dict)
    buckets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where a stand-in is known to differ from its cloud; the docs list them all.

    `key` names its test, `test_deviation_<key>`, which fails when the deviation disappears.
    """

    area: str  # "EMR", "S3", "Dataproc", "Jobs"
    cloud: str  # what the cloud does
    here: str  # what the stand-in does
    key: str  # "s3_order", of all stand-ins only here


class Emulator(ABC):
    """One cloud. `__init__` does nothing that needs undoing.

    `start` and `stop` are called in one thread that lives as long as the stand-in does. Other
    threads come and go, so a child that is to die with "its parent" by PR_SET_PDEATHSIG must
    not be started in one: the kernel means the thread.
    """

    name: ClassVar[str]
    connector: ClassVar[Connector | None] = None  # by which Spark reads this cloud's objects

    def __init__(self, place: Place) -> None:
        self.place = place

    @abstractmethod
    def start(self) -> None:
        """Start all servers; return when they answer."""

    @abstractmethod
    def routes(self) -> Mapping[str, int]:
        """Host pattern (`*.amazonaws.com`, as fnmatch) -> local port that speaks TLS.

        The pattern with the most literal characters wins.
        """

    @abstractmethod
    def env(self) -> Mapping[str, str]:
        """What clients of this cloud need besides the routing: throw-away credentials, region."""

    @abstractmethod
    def stop(self) -> None:
        """End every server, process and job; idempotent."""
