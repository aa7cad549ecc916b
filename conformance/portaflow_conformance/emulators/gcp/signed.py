"""URLs that carry their own proof: version 4, signed by the key of the service account."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from urllib.parse import quote

from .items import GcsError
from .tokens import Tokens
from .wire import Request

_ALGORITHM = "GOOG4-RSA-SHA256"
_LONGEST = 604_800  # seconds: a week


def is_signed(request: Request) -> bool:
    return "X-Goog-Signature" in request.query


def signer(request: Request, tokens: Tokens) -> str:
    """Who signed the URL of a request, or an error in the words of the XML API."""
    query = request.query
    if query.get("X-Goog-Algorithm") != _ALGORITHM:
        raise _malformed(f"{query.get('X-Goog-Algorithm')} is not in the local cloud")
    who, _, scope = query.get("X-Goog-Credential", "").partition("/")
    stamp, lasts = query.get("X-Goog-Date", ""), query.get("X-Goog-Expires", "")
    try:
        since = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        seconds = int(lasts)
        signature = bytes.fromhex(query["X-Goog-Signature"])
    except ValueError as error:
        raise _malformed(str(error)) from error
    if not 0 < seconds <= _LONGEST or scope != f"{stamp[:8]}/auto/storage/goog4_request":
        raise _malformed(f"X-Goog-Expires={lasts}, X-Goog-Credential scope {scope}")
    # The clock of times-to-live may have jumped, and the client's has not.
    if time.time() > since + seconds:
        raise GcsError(400, "ExpiredToken", "The provided token has expired.")
    digest = hashlib.sha256(_canonical(request).encode()).hexdigest()
    text = "\n".join((_ALGORITHM, stamp, scope, digest))
    if who != tokens.email or not tokens.signed(text.encode(), signature):
        told = "The request signature we calculated does not match the signature you provided."
        raise GcsError(403, "SignatureDoesNotMatch", f"{told} Check your key and signing method.")
    return who


def _canonical(request: Request) -> str:
    names = request.query["X-Goog-SignedHeaders"].split(";")
    if "host" not in names:
        raise _malformed("X-Goog-SignedHeaders has no host")
    pairs = sorted(
        (quote(name, safe="~"), quote(value, safe="~"))
        for name, value in request.query.items()
        if name != "X-Goog-Signature"
    )
    held = request.headers
    return "\n".join((
        request.method,
        request.path,
        "&".join(f"{name}={value}" for name, value in pairs),
        *(f"{name}:{' '.join(held.get(name, '').split())}" for name in names),
        "",
        ";".join(names),
        held.get("x-goog-content-sha256", "UNSIGNED-PAYLOAD"),
    ))  # fmt: skip


def _malformed(why: str) -> GcsError:
    return GcsError(400, "AuthorizationQueryParametersError", f"Invalid signed URL: {why}")
