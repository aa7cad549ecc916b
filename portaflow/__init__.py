"""One hybrid pipeline for AWS, GCP, Kubernetes and a laptop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "CallTask",
    "Cluster",
    "ContainerTask",
    "Pipeline",
    "Size",
    "Source",
    "SparkTask",
]

if TYPE_CHECKING:
    from .pipeline import CallTask, Cluster, ContainerTask, Pipeline, Size, Source, SparkTask


def __getattr__(name: str) -> Any:
    """Import the model when it is first used: `portaflow --help` should not pay for it."""
    if name in __all__:
        from . import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
