"""AWS on this machine: S3, EMR whose steps run, STS and Secrets Manager."""

from __future__ import annotations

from .deviations import DEVIATIONS
from .emulator import AwsEmulator

__all__ = ["DEVIATIONS", "AwsEmulator"]
