"""A Kubernetes cluster on this machine: its pods are processes that really run."""

from .emulator import KubernetesEmulator
from .images import Image

__all__ = ["Image", "KubernetesEmulator"]
