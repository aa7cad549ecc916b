"""STS: who calls, and keys for a time. It speaks XML."""

from __future__ import annotations

import re
import secrets
import time
from typing import Any, ClassVar

from .keys import Holder, Keys
from .rest import ACCOUNT, Asked, RefusedError, Service

_ROLE = re.compile(r"arn:aws[\w-]*:iam::(\d{12}):role/(?:.*/)?([\w+=,.@-]+)")
_SESSION = re.compile(r"[\w+=,.@-]{2,64}")
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class Sts(Service):
    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def identity(self, asked: Asked) -> dict[str, Any]:
        holder = asked.holder
        assert holder is not None
        return {"Arn": holder.arn, "UserId": holder.user, "Account": ACCOUNT}

    def assume(self, asked: Asked) -> dict[str, Any]:
        found = _ROLE.fullmatch(asked.body.get("RoleArn", ""))
        session = asked.body.get("RoleSessionName", "")
        if not found or not _SESSION.fullmatch(session):
            what = f"{asked.body.get('RoleArn')!r}, {session!r}"
            why = f"RoleArn and RoleSessionName must be of a role and a session, not {what}"
            raise RefusedError(400, "ValidationError", why)
        arn = f"arn:aws:sts::{found[1]}:assumed-role/{found[2]}/{session}"
        user = f"AROA{secrets.token_hex(8).upper()}:{session}"
        given = self._keys.give(arn, user, _seconds(asked, 43_200))
        return {
            "Credentials": _credentials(given),
            "AssumedRoleUser": {"AssumedRoleId": user, "Arn": arn},
        }

    def assume_by_token(self, asked: Asked) -> dict[str, Any]:
        if not _JWT.fullmatch(asked.body.get("WebIdentityToken", "")):
            raise RefusedError(400, "InvalidIdentityToken", "The web identity token is no JWT.")
        return self.assume(asked)

    def session(self, asked: Asked) -> dict[str, Any]:
        holder = asked.holder
        assert holder is not None
        given = self._keys.give(holder.arn, holder.user, _seconds(asked, 129_600))
        return {"Credentials": _credentials(given)}

    calls: ClassVar = {
        "GetCallerIdentity": identity,
        "AssumeRole": assume,
        "AssumeRoleWithWebIdentity": assume_by_token,
        "GetSessionToken": session,
    }


def _seconds(asked: Asked, most: int) -> int:
    seconds = int(asked.body.get("DurationSeconds", 3600))
    if not 900 <= seconds <= most:
        why = f"DurationSeconds must be from 900 to {most}, not {seconds}"
        raise RefusedError(400, "ValidationError", why)
    return seconds


def _credentials(given: Holder) -> dict[str, str]:
    return {
        "AccessKeyId": given.key,
        "SecretAccessKey": given.secret,
        "SessionToken": given.token,
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(given.expires)),
    }
