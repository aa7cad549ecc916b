"""What every stand-in is given, and what it gives back.

A stand-in is an `Emulator`: it starts servers on 127.0.0.1, tells which hosts of its cloud they
answer for, and what environment an unmodified client needs. It records every call and asks
before each whether a fault was ordered.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .authority import Authority
from .control import Control


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stand-in lives.

    `folder` is its own and is removed at the end; `authority` signs certificates that clients
    trust; `control` holds the faults, the log of calls and the clock; `pace` stretches the time
    that states take (0 is at once, 1 is about two seconds for a cluster).
    """

    folder: Path
    authority: Authority
    control: Control
    pace: float = 0.1


class Emulator(ABC):
    """One cloud. `__init__` does nothing that needs undoing."""

    name: ClassVar[str]

    def __init__(self, place: Place) -> None:
        self.place = place

    @abstractmethod
    def start(self) -> None:
        """Start all servers; return when they answer."""

    @abstractmethod
    def routes(self) -> Mapping[str, int]:
        """Host pattern (`*.amazonaws.com`, as fnmatch) -> local port that speaks TLS."""

    @abstractmethod
    def env(self) -> Mapping[str, str]:
        """What clients of this cloud need besides the routing: throw-away credentials, region."""

    @abstractmethod
    def stop(self) -> None:
        """End every server, process and job; idempotent."""
