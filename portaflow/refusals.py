"""What an error of obstore means: in our errors, with the provider's words and what helps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .errors import RejectedError, UnavailableError

_LONGEST = 300  # characters told of a provider's own words
_CODE = re.compile(r"<Code>(.+?)</Code>|\(code: (\w+)\)")
_OURS = re.compile(
    r"credential provider: (UnavailableError|DeniedError): (.+?)(?=\n\nDebug|$)", re.S
)
"""How obstore tells an error of ours, when a plugin's own code was asked for credentials."""

_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect", "TemporaryRedirect"})
_CREDENTIALS = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed"}
    | {"SignatureDoesNotMatch", "TokenRefreshRequired"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What helps, in a sentence for each: said with the error. `{bucket}` is its name."""

    credentials: str
    rights: str
    missing: str
    region: str
    unreachable: str


def refused(
    uri: str, error: Exception, advice: Advice, region_of: Callable[[str], str]
) -> Exception:
    """The error to raise for obstore's, met with the object at `uri`.

    `region_of` tells where a bucket is, which obstore does not; "" when nobody knows.
    """
    text, kind = str(error), type(error).__name__
    if kind == "AlreadyExistsError":
        return FileExistsError(uri)
    if ours := _OURS.search(text):
        told = f"{uri}: {ours[2]}"
        if ours[1] == "DeniedError":
            return PermissionError(told)
        return UnavailableError(f"{told}; {advice.unreachable}")
    where = f"{uri}: {_cause(text)}"
    code = code_of(text)
    bucket = uri.partition("://")[2].partition("/")[0]
    if code == "NoSuchBucket":
        return RejectedError(f"{where}; {advice.missing.format(bucket=bucket)}")
    if code == "NoSuchUpload":  # the answer to its end was lost, and its end asked for again
        return UnavailableError(f"{where}; it may be there, whole: write it again")
    if code in _REGION or "incorrectly configured region" in text:
        region = region_of(bucket)
        where = f"{uri}: its bucket is in another region, {region}" if region else where
        return RejectedError(f"{where}; {advice.region}")
    status = int(found[1]) if (found := re.search(r"status code: (\d{3})", text)) else 0
    if kind == "UnauthenticatedError" or status == 401 or code in _CREDENTIALS:
        return PermissionError(f"{where}; {advice.credentials}")
    denied = status == 403 or code == "AccessDenied"  # so it is told of a list, of removals
    if kind == "PermissionDeniedError" or denied:
        return PermissionError(f"{where}; {advice.rights}")
    if not status and not code:
        return UnavailableError(f"{where}; {advice.unreachable}")
    if 400 <= status < 500 and status not in (408, 409, 429):
        return RejectedError(where)
    return UnavailableError(where)


def code_of(text: str) -> str:
    """The provider's code in what obstore tells; "" if there is none."""
    return found[1] or found[2] if (found := _CODE.search(text)) else ""


def _cause(text: str) -> str:
    """The provider's own words out of what obstore tells, short."""
    told = text.partition("\n\nDebug source")[0]
    if found := re.search("<Code>(.+?)</Code>.*?<Message>(.*?)</Message>", told, re.DOTALL):
        return f"{found[1]}: {found[2]}"[:_LONGEST]
    if found := re.search("credential provider: (.+)", told, re.DOTALL):
        told = found[1]
    return " ".join(told.rpartition("status code: ")[2].split()).rstrip(":")[:_LONGEST]
