"""Whose keys there are: one user's that last, and those that STS gives out for a time."""

from __future__ import annotations

import secrets
import string
import threading
from dataclasses import dataclass

from ..control import Control
from .rest import ACCOUNT, RefusedError
from .signing import Signed

USER = f"arn:aws:iam::{ACCOUNT}:user/portaflow"
_LETTERS = string.ascii_uppercase + string.digits
# What is wrong with a key -> the codes of S3, of STS, and of the services that speak JSON.
_CODES = {
    "unknown": ("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"),
    "token": ("InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException"),
    "expired": ("ExpiredToken", "ExpiredToken", "ExpiredTokenException"),
    "signature": ("SignatureDoesNotMatch", "SignatureDoesNotMatch", "InvalidSignatureException"),
}
_OF_EC2 = {"expired": (400, "RequestExpired")}  # and else 401 AuthFailure
_SAYS = {
    "unknown": "The security token included in the request is invalid.",
    "token": "The security token included in the request is invalid.",
    "expired": "The security token included in the request is expired",
    "signature": "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method.",
}


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a key. `token` and `expires` are of those that STS has given."""

    key: str
    secret: str
    arn: str
    user: str
    token: str = ""
    expires: float = float("inf")

    def __repr__(self) -> str:
        return f"Holder({self.key!r}, {self.arn!r})"


class Keys:
    def __init__(self, control: Control, key: str, secret: str) -> None:
        self._control = control
        self.lasting = Holder(key, secret, USER, _random("AIDA"))
        self._holders = {key: self.lasting}
        self._lock = threading.Lock()

    def give(self, arn: str, user: str, seconds: float) -> Holder:
        token = secrets.token_urlsafe(120)
        expires = self._control.now() + seconds
        made = Holder(_random("ASIA"), secrets.token_urlsafe(30), arn, user, token, expires)
        with self._lock:
            now = self._control.now()
            self._holders = {k: v for k, v in self._holders.items() if v.expires + 86_400 > now} | {
                made.key: made
            }
        return made

    def given(self, key: str) -> bool:
        """Whether a key is one of STS."""
        return key.startswith("ASIA")

    def holder(
        self, signed: Signed | None, verb: str, path: str, headers: dict[str, str], payload: str
    ) -> Holder:
        """Who has signed a request. Raises RefusedError in the words of the service."""
        if signed is None:
            why = "Request is missing Authentication Token"
            raise RefusedError(403, "MissingAuthenticationTokenException", why)
        found = self._holders.get(signed.key)
        if found is None:
            raise refused("unknown", signed.service)
        if not secrets.compare_digest(found.token, signed.token):
            raise refused("token", signed.service)
        if not signed.right(found.secret, verb, path, headers, payload):
            raise refused("signature", signed.service)
        if self._control.now() > found.expires:
            raise refused("expired", signed.service)
        return found


def refused(what: str, service: str) -> RefusedError:
    if service == "ec2":
        return RefusedError(*_OF_EC2.get(what, (401, "AuthFailure")), _SAYS[what])
    place = {"s3": 0, "sts": 1}.get(service, 2)
    soft = (service == "s3" and what in ("token", "expired")) or service in _SOFT
    return RefusedError(400 if soft else 403, _CODES[what][place], _SAYS[what])


# JSON of version 1.1: all its errors are 400
_SOFT = ("elasticmapreduce", "pricing", "secretsmanager")


def _random(kind: str) -> str:
    return kind + "".join(secrets.choice(_LETTERS) for _ in range(16))
