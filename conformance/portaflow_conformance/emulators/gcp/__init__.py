"""GCP on this machine: GCS, Dataproc whose jobs run, GKE clusters, secrets, tokens."""

from __future__ import annotations

from .deviations import DEVIATIONS
from .emulator import GcpEmulator

__all__ = ["DEVIATIONS", "GcpEmulator"]
