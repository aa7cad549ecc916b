"""Signatures of version 4: what a request says of who signed it, and whether that is true."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
EMPTY = hashlib.sha256().hexdigest()
_HEADER = re.compile(
    rf"{ALGORITHM} +Credential=([^/]+)/(\d{{8}})/([^/]+)/([^/]+)/aws4_request, *"
    r"SignedHeaders=([^,]+), *Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True, slots=True)
class Signed:
    """`query` is that of the request, without the signature where it holds one."""

    key: str
    day: str
    region: str
    service: str
    moment: str
    names: tuple[str, ...]
    signature: str
    token: str
    query: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, headers: Mapping[str, str], query: str) -> Signed | None:
        """By header or by query; None for what is not signed, or not like this."""
        pairs = parse_qsl(query, keep_blank_values=True)
        given = dict(pairs)
        if found := _HEADER.fullmatch(headers.get("authorization", "")):
            key, day, region, service, names, signature = found.groups()
            moment = headers.get("x-amz-date", "")
            token = headers.get("x-amz-security-token", "")
        else:
            try:
                key, day, region, service, _ = given["X-Amz-Credential"].split("/")
                moment, names = given["X-Amz-Date"], given["X-Amz-SignedHeaders"]
                signature = given["X-Amz-Signature"]
            except (KeyError, ValueError):
                return None
            token = given.get("X-Amz-Security-Token", "")
        rest = tuple(pair for pair in pairs if pair[0] != "X-Amz-Signature")
        signed = tuple(names.split(";"))
        return cls(key, day, region, service, moment, signed, signature, token, rest)

    def right(
        self, secret: str, verb: str, path: str, headers: Mapping[str, str], payload: str
    ) -> bool:
        """`path` as it was sent, `payload` its hash or the word that stands for it."""
        scope = (self.day, self.region, self.service)
        path = path if self.service == "s3" else quote(path, safe="/-_.~")
        made = sign(
            secret, self.moment, scope, verb, path, self.query, headers, self.names, payload
        )
        return hmac.compare_digest(made, self.signature)


def sign(
    secret: str,
    moment: str,
    scope: tuple[str, str, str],
    verb: str,
    path: str,
    query: Iterable[tuple[str, str]],
    headers: Mapping[str, str],
    names: Iterable[str],
    payload: str,
) -> str:
    """The signature of a request; `scope` is day, region and service."""
    coded = sorted((quote(k, safe="-_.~"), quote(v, safe="-_.~")) for k, v in query)
    lines = (f"{name}:{' '.join(headers.get(name, '').split())}\n" for name in names)
    parts = (verb, path or "/", "&".join(f"{k}={v}" for k, v in coded), "".join(lines))
    request = "\n".join((*parts, ";".join(names), payload))
    digest = hashlib.sha256(request.encode()).hexdigest()
    code = f"AWS4{secret}".encode()
    text = f"{ALGORITHM}\n{moment}\n{'/'.join(scope)}/aws4_request\n{digest}"
    for part in (*scope, "aws4_request", text):
        code = hmac.digest(code, part.encode(), "sha256")
    return code.hex()
