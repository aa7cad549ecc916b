"""Calls of S3 that are signed by keys for a time, which the store does not know.

The front proves them, and signs them anew by the key that the store knows.
"""

from __future__ import annotations

import time
from urllib.parse import quote

from .keys import Keys
from .rest import RefusedError
from .s3tunnel import Head
from .signing import ALGORITHM, UNSIGNED, Signed, sign

_OURS = ("authorization", "x-amz-security-token", "x-amz-date", "x-amz-content-sha256")
_CHUNKS = "STREAMING-AWS4-HMAC-SHA256"  # each chunk is signed by the key of its caller, too


def resigned(head: Head, keys: Keys) -> Head:
    """The call as the store takes it. Raises RefusedError for what S3 would refuse."""
    verb, target, version = head.first.split(" ", 2)
    path, _, query = target.partition("?")
    signed = Signed.read(head.headers, query)
    payload = head.headers.get("x-amz-content-sha256", UNSIGNED)
    keys.holder(signed, verb, path, head.headers, payload)
    assert signed is not None
    if payload.startswith(_CHUNKS):
        why = "chunks that are signed one by one by keys of STS are not in the local S3"
        raise RefusedError(501, "NotImplemented", why)
    kept = tuple(pair for pair in signed.query if not pair[0].startswith("X-Amz-"))
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {k: v for k, v in head.headers.items() if k not in _OURS}
    headers |= {"x-amz-date": moment, "x-amz-content-sha256": payload}
    names = sorted(name for name in headers if name == "host" or name.startswith("x-amz-"))
    key, scope = keys.lasting, (moment[:8], signed.region, "s3")
    code = sign(key.secret, moment, scope, verb, path, kept, headers, names, payload)
    said = f"{ALGORITHM} Credential={key.key}/{'/'.join(scope)}/aws4_request"
    headers["authorization"] = f"{said}, SignedHeaders={';'.join(names)}, Signature={code}"
    coded = "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in kept)
    first = f"{verb} {path}{'?' * bool(coded)}{coded} {version}"
    lines = [first, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return Head.parse("\r\n".join(lines).encode("latin-1"))
