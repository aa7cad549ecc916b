"""IAM: what a principal may do. It may all but what a fault of the effect "deny" stands against.

It knows no roles and no policies, and says so (501): a role is what looks like one.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from ..control import Control
from .keys import Keys
from .rest import Asked, RefusedError, Service

_SOURCE = re.compile(r"arn:aws[\w-]*:iam::\d{12}:(user|role|group)/[\w+=,.@/-]+")
_ACTION = re.compile(r"([\w-]+):(\w+)")


class Iam(Service):
    def __init__(self, control: Control, keys: Keys) -> None:
        self._control, self._keys = control, keys

    def simulate(self, asked: Asked) -> dict[str, Any]:
        source = asked.body.get("PolicySourceArn", "")
        if not _SOURCE.fullmatch(source):
            why = f"Invalid Input Policy Source Arn: {source} is not of a user, group or role"
            raise RefusedError(400, "InvalidInput", why)
        who = self._keys.lasting.key if ":user/" in source else ""
        results = []
        for name, action in sorted(asked.body.items()):
            if not name.startswith("ActionNames.member."):
                continue
            if not (found := _ACTION.fullmatch(action)):
                raise RefusedError(400, "InvalidInput", f"Invalid Input Action: {action}")
            service = "emr" if found[1] == "elasticmapreduce" else found[1]
            denied = self._control.denies(f"aws:{service}.{found[2]}", who)
            decision = "implicitDeny" if denied else "allowed"
            results.append({"EvalActionName": action, "EvalResourceName": "*",
                            "EvalDecision": decision})  # fmt: skip
        return {"IsTruncated": "false", "EvaluationResults": results}

    calls: ClassVar = {"SimulatePrincipalPolicy": simulate}
