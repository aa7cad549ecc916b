"""The labels by which what portaflow has started is known: whose it is, and what was asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from portaflow.backend import Spec
from portaflow.errors import ConflictError, RejectedError

OWNER, TTL, DIGEST = "portaflow-owner", "portaflow-ttl", "portaflow-request"


def marked(asked: Mapping[str, Any], spec: Spec, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of what a spec asks for: `labels`, and ours."""
    said = json.dumps([asked, spec.overrides], sort_keys=True)
    digest = hashlib.sha256(said.encode()).hexdigest()[:32]
    return {**labels, OWNER: spec.owner, TTL: str(spec.ttl), DIGEST: digest}


def check(what: str, labels: Mapping[str, str]) -> None:
    """Raise RejectedError when overrides have taken our labels away."""
    if missing := {OWNER, DIGEST} - labels.keys():
        raise RejectedError(
            f"{what} would lack the labels {', '.join(sorted(missing))}: add labels instead of "
            "overriding these"
        )


def compare(what: str, there: Mapping[str, str], asked: Mapping[str, str]) -> None:
    """Raise ConflictError unless what is there was made from the same request."""
    if there.get(DIGEST) != asked[DIGEST]:
        raise ConflictError(f"{what} is there and was made from another request")


def filtered(owner: str) -> str:
    """The filter of a list that leaves what belongs to `owner`, or to any run when ""."""
    return f"labels.{OWNER} = {owner or '*'}"
