"""The time-to-live that Dataproc takes, of clusters and of batches alike."""

from __future__ import annotations

from portaflow.backend import Fit, Verdict

_SHORTEST, _LONGEST = 600, 14 * 86_400  # seconds


def taken(seconds: int) -> int:
    """The time-to-live nearest to the one that is asked for."""
    return min(max(seconds, _SHORTEST), _LONGEST)


def fit(seconds: int) -> dict[str, Fit]:
    """What `Driver.fit` says of it; nothing when it is taken as it is."""
    if seconds == taken(seconds):
        return {}
    about = f"{taken(seconds)} s: Dataproc takes {_SHORTEST} to {_LONGEST}"
    return {"ttl": Fit(Verdict.APPROXIMATED, about)}
