"""Tokens without a key: by impersonation, and from the metadata server that machines have."""

from __future__ import annotations

import base64
import binascii
import re
import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from urllib.parse import unquote

from ..control import Control
from ..faults import struck
from .rest import shown
from .rpc import Code, RefusedError, invalid, refuse
from .tokens import LIFETIME, Tokens
from .wire import Request, Response

_ACCOUNT = re.compile(r"/v1/projects/[^/]+/serviceAccounts/([^/:]+):(\w+)")
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Application(ABC):
    """What answers an account for a part of GCP, with errors as Google's front end tells them."""

    def __init__(self, control: Control, tokens: Tokens) -> None:
        self._control, self._tokens = control, tokens

    def __call__(self, request: Request) -> Response:
        try:
            return self._answer(request)
        except RefusedError as error:
            return shown(error)
        except ValueError as error:
            return shown(invalid(f"Invalid JSON payload received: {error}"))

    @abstractmethod
    def _answer(self, request: Request) -> Response: ...

    def _who(self, request: Request) -> str:
        """The account that asks. Raises RefusedError."""
        if who := self._tokens.principal(request.headers.get("authorization", "")):
            return who
        text = "Request had invalid authentication credentials."
        raise RefusedError(Code.UNAUTHENTICATED, text)


class Credentials(Application):
    """iamcredentials.googleapis.com: who proves to be somebody may act as any account."""

    def _answer(self, request: Request) -> Response:
        found = _ACCOUNT.fullmatch(request.path)
        does = {"generateAccessToken": self._token, "signBlob": self._sign}.get(
            found[2] if found and request.method == "POST" else ""
        )
        if found is None or does is None:  # google-auth looks for a trust boundary, too
            raise RefusedError(Code.NOT_FOUND, f"{request.path} is not in the local iamcredentials")
        who = self._who(request)
        account, method = unquote(found[1]), found[2]
        name = f"gcp:iamcredentials.{method[0].upper()}{method[1:]}"
        fault = self._control.called(name, who, account=account)
        if not account.endswith(".gserviceaccount.com"):
            raise RefusedError(Code.NOT_FOUND, f"Not found; Gaia id not found for email {account}")
        return struck(fault, lambda: does(request, account), refuse)

    def _token(self, request: Request, account: str) -> Response:
        asked = request.json()
        lifetime = re.fullmatch(r"(\d+)s", str(asked.get("lifetime", f"{LIFETIME}s")))
        if not lifetime or not 0 < int(lifetime[1]) <= LIFETIME:
            raise invalid(f"The lifetime must be from 1s to {LIFETIME}s")
        if not asked.get("scope"):
            raise invalid("scope is required")
        seconds = int(lifetime[1])
        ends = datetime.fromtimestamp(time.time() + seconds, UTC)
        return Response.json(
            {
                "accessToken": self._tokens.issue(account, seconds),
                "expireTime": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )

    def _sign(self, request: Request, account: str) -> Response:
        try:
            payload = base64.b64decode(str(request.json().get("payload", "")), validate=True)
        except binascii.Error as error:
            raise invalid(f"payload is not base64: {error}") from error
        signed = base64.b64encode(self._tokens.sign(payload)).decode()
        return Response.json({"keyId": self._tokens.key_id, "signedBlob": signed})


class Metadata:
    """The metadata server, for clients that are told of it by GCE_METADATA_HOST."""

    def __init__(self, control: Control, tokens: Tokens, project: str, region: str) -> None:
        self._control, self._tokens = control, tokens
        self._texts = {
            "/": "computeMetadata/\n",
            "/computeMetadata/v1/project/project-id": project,
            "/computeMetadata/v1/project/numeric-project-id": "1",
            "/computeMetadata/v1/instance/zone": f"projects/1/zones/{region}-a",
            "/computeMetadata/v1/universe/universe-domain": "googleapis.com",
            "/computeMetadata/v1/universe/universe_domain": "googleapis.com",
        }

    def __call__(self, request: Request) -> Response:
        ours = {"Metadata-Flavor": "Google", "Server": "Metadata Server for VM"}
        if request.headers.get("metadata-flavor") != "Google":
            return Response(403, b"Missing required header: Metadata-Flavor", ours)
        answer = self._answer(request)
        answer.headers.update(ours)
        return answer

    def _answer(self, request: Request) -> Response:
        if (text := self._texts.get(request.path)) is not None:
            return Response(200, text.encode(), {"Content-Type": "application/text"})
        found = re.fullmatch(
            r"/computeMetadata/v1/instance/service-accounts/([^/]+)/(\w*)", request.path
        )
        if not found or found[1] not in ("default", self._tokens.email):
            return Response(404, b"not found")
        if found[2] == "email":
            return Response(200, self._tokens.email.encode())
        if found[2] == "token":
            fault = self._control.called("gcp:metadata.token", self._tokens.email)
            return struck(
                fault,
                lambda: Response.json(
                    {
                        "access_token": self._tokens.issue(),
                        "expires_in": LIFETIME - 1,
                        "token_type": "Bearer",
                    }
                ),
                lambda f: Response(429 if f.effect == "throttle" else f.status, b"a fault"),
            )
        if found[2]:
            return Response(404, b"not found")
        account = {"aliases": ["default"], "email": self._tokens.email, "scopes": [_SCOPE]}
        return Response.json(account)
