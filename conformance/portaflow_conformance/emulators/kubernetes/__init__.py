"""A Kubernetes cluster on this machine: its pods are processes that really run."""

from .deviations import DEVIATIONS
from .emulator import KubernetesEmulator
from .images import Image

__all__ = ["DEVIATIONS", "Image", "KubernetesEmulator"]
