"""Where the local GCP is known to differ."""

from __future__ import annotations

from ..place import Deviation

DEVIATIONS: tuple[Deviation, ...] = (
    Deviation("GCS", "keeps old generations where versioning is on", "keeps the live one alone"),
    Deviation("GCS", "is spoken to by gRPC, too", "by its JSON and XML APIs alone"),
    Deviation(
        "IAM",
        "refuses what a policy does not allow",
        "checks who calls, and lets that one do everything",
    ),
)
