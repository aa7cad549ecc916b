"""EKS: one cluster, which is the Kubernetes stand-in beside us, and the tokens for it."""

from __future__ import annotations

import base64
import calendar
import hashlib
import hmac
import re
import time
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, urlsplit

from ..place import Place
from .rest import ACCOUNT, Asked, RefusedError, Service, page

CLUSTER = "portaflow"
_VERSION = "1.33"
_PREFIX = "k8s-aws-v1."
_LIFE = 900.0  # seconds that EKS takes a token, whatever the token itself says
_SKEW = 300.0
_STS = re.compile(r"sts(\.[a-z0-9-]+)?\.amazonaws\.com")
_ALGORITHM = "AWS4-HMAC-SHA256"


class Eks(Service):
    def __init__(self, place: Place, key: str, secret: str) -> None:
        self._place = place
        self._key, self._secret = key, secret
        self._created = time.time()
        kubernetes: Any = place.others.get("kubernetes")
        if kubernetes is not None:
            kubernetes.authenticate_by(self._authenticate)
        self._kubernetes = kubernetes

    def list_all(self, asked: Asked) -> dict[str, Any]:
        these, token = page([CLUSTER] if self._kubernetes else [], asked, 100)
        return {"clusters": these, "nextToken": token}

    def describe(self, asked: Asked) -> dict[str, Any]:
        if asked["name"] != CLUSTER or self._kubernetes is None:
            why = f"No cluster found for name: {asked['name']}."
            raise RefusedError(404, "ResourceNotFoundException", why)
        trusted = base64.b64encode(self._place.authority.bundle.read_bytes()).decode()
        issuer = f"https://oidc.eks.{asked.region}.amazonaws.com/id/PORTAFLOW"
        cluster = {
            "name": CLUSTER,
            "arn": f"arn:aws:eks:{asked.region}:{ACCOUNT}:cluster/{CLUSTER}",
            "createdAt": self._created,
            "version": _VERSION,
            "endpoint": self._kubernetes.url,
            "roleArn": f"arn:aws:iam::{ACCOUNT}:role/eks",
            "resourcesVpcConfig": {"endpointPublicAccess": True, "publicAccessCidrs": []},
            "identity": {"oidc": {"issuer": issuer}},
            "status": "ACTIVE",
            "certificateAuthority": {"data": trusted},
            "platformVersion": "eks.1",
            "tags": {},
        }
        return {"cluster": cluster}

    calls: ClassVar = {"ListClusters": list_all, "DescribeCluster": describe}

    def _authenticate(self, token: str) -> Any:
        """The Kubernetes user of a token, None for what is no good token of ours."""
        from ..kubernetes.access import User

        signed = _signed_at(token, CLUSTER, self._key, self._secret)
        if signed is None or signed > self._place.control.now() + _SKEW:
            return None
        name = f"arn:aws:sts::{ACCOUNT}:user/moto"  # as GetCallerIdentity tells
        return User(name, "admin", expires=signed + _LIFE)


def _signed_at(token: str, cluster: str, key: str, secret: str) -> float | None:
    """When a token was signed; None when STS would refuse the URL that it is.

    EKS calls the URL with the name of the cluster as a header, which the signature holds.
    """
    if not token.startswith(_PREFIX):
        return None
    try:
        raw = token.removeprefix(_PREFIX)
        url = urlsplit(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)).decode())
        given = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=True))
        signature = given.pop("X-Amz-Signature")
        who, day, region, service, end = given["X-Amz-Credential"].split("/")
        moment, signs = given["X-Amz-Date"], given["X-Amz-SignedHeaders"]
        signed = calendar.timegm(time.strptime(moment, "%Y%m%dT%H%M%SZ"))
        life = int(given["X-Amz-Expires"])
    except (ValueError, KeyError):
        return None
    right = (
        (url.scheme, url.path, given.get("Action")) == ("https", "/", "GetCallerIdentity")
        and _STS.fullmatch(url.netloc)
        and (who, service, end, given.get("X-Amz-Algorithm"))
        == (key, "sts", "aws4_request", _ALGORITHM)
        and (signs, moment[:8]) == ("host;x-k8s-aws-id", day)
        and 0 < life <= _LIFE
    )
    if not right:
        return None
    query = "&".join(
        f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
        for name, value in sorted(given.items())
    )
    headers = f"host:{url.netloc}\nx-k8s-aws-id:{cluster}\n"
    request = "\n".join(("GET", "/", query, headers, signs, hashlib.sha256().hexdigest()))
    scope = f"{day}/{region}/{service}/{end}"
    digest = hashlib.sha256(request.encode()).hexdigest()
    code = f"AWS4{secret}".encode()
    for part in (day, region, service, end, f"{_ALGORITHM}\n{moment}\n{scope}\n{digest}"):
        code = hmac.digest(code, part.encode(), "sha256")
    return float(signed) if hmac.compare_digest(code.hex(), signature) else None
