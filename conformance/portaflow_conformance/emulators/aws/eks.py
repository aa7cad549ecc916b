"""EKS: one cluster, which is the Kubernetes stand-in beside us, and the tokens for it."""

from __future__ import annotations

import base64
import calendar
import re
import time
from typing import Any, ClassVar
from urllib.parse import urlsplit

from ..place import Place
from .keys import Holder, Keys
from .rest import ACCOUNT, Asked, RefusedError, Service, page
from .signing import ALGORITHM, EMPTY, Signed

CLUSTER = "portaflow"
_VERSION = "1.33"
_PREFIX = "k8s-aws-v1."
_LIFE = 900.0  # seconds that EKS takes a token, whatever the token itself says
_SKEW = 300.0
_STS = re.compile(r"sts(\.[a-z0-9-]+)?\.amazonaws\.com")


class Eks(Service):
    def __init__(self, place: Place, keys: Keys) -> None:
        self._place, self._keys = place, keys
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

        found = self._signed_at(token)
        if found is None or found[1] > self._place.control.now() + _SKEW:
            return None
        holder, signed = found
        return User(holder.arn, "admin", expires=min(signed + _LIFE, holder.expires))

    def _signed_at(self, token: str) -> tuple[Holder, float] | None:
        """Who has signed a token, and when; None when STS would refuse the URL that it is.

        EKS calls the URL with the name of the cluster as a header, which the signature holds.
        """
        if not token.startswith(_PREFIX):
            return None
        try:
            raw = token.removeprefix(_PREFIX)
            url = urlsplit(base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)).decode())
            signed = Signed.read({}, url.query)
            if signed is None:
                return None
            given = dict(signed.query)
            when = calendar.timegm(time.strptime(signed.moment, "%Y%m%dT%H%M%SZ"))
            life = int(given["X-Amz-Expires"])
        except (ValueError, KeyError):
            return None
        right = (
            (url.scheme, url.path, given.get("Action")) == ("https", "/", "GetCallerIdentity")
            and _STS.fullmatch(url.netloc)
            and (signed.service, given.get("X-Amz-Algorithm")) == ("sts", ALGORITHM)
            and (signed.names, signed.moment[:8]) == (("host", "x-k8s-aws-id"), signed.day)
            and 0 < life <= _LIFE
        )
        if not right:
            return None
        headers = {"host": url.netloc, "x-k8s-aws-id": CLUSTER}
        try:
            holder = self._keys.holder(signed, "GET", "/", headers, EMPTY)
        except RefusedError:
            return None
        return holder, float(when)
