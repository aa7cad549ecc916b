"""Who calls: a fresh service account, the tokens it is given, and whether a token is one.

A client may exchange an assertion signed by the account's key for a token, or send the
signed assertion itself; both are checked, so that a client with credentials of a real
account is refused as it would be by the real cloud.
"""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .wire import Request, Response

LIFETIME = 3600
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class Tokens:
    """The account of a place, its key file, and the token endpoint."""

    def __init__(self, folder: Path, project: str) -> None:
        self.email = f"portaflow@{project}.iam.gserviceaccount.com"
        self.key_file = folder / "service-account.json"
        self.key_id = secrets.token_hex(20)
        self._key = rsa.generate_private_key(65537, 2048)
        self._issued: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()
        text = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        account = {
            "type": "service_account",
            "project_id": project,
            "private_key_id": self.key_id,
            "private_key": text,
            "client_email": self.email,
            "client_id": "100000000000000000001",
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": "https://oauth2.googleapis.com/token",
            "universe_domain": "googleapis.com",
        }
        self.key_file.touch(0o600)
        self.key_file.write_text(json.dumps(account, indent=1), "utf-8")

    def issue(self, principal: str = "", seconds: float = LIFETIME) -> str:
        token = f"ya29.c.{secrets.token_urlsafe(40)}"
        with self._lock:
            now = time.time()
            self._issued = {t: p for t, p in self._issued.items() if p[1] > now}
            self._issued[token] = (principal or self.email, now + seconds)
        return token

    def principal(self, authorization: str) -> str:
        """Who sent this `Authorization`; "" when it proves nobody."""
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer" or not token:
            return ""
        with self._lock:
            known = self._issued.get(token)
        if known:
            return known[0] if known[1] > time.time() else ""
        try:
            claims = self._claims(token)
        except ValueError:
            return ""
        expires = float(claims.get("exp", 0))
        if expires < time.time():
            return ""
        with self._lock:
            self._issued[token] = (str(claims.get("iss")), expires)
        return str(claims.get("iss"))

    def signed(self, text: bytes, signature: bytes) -> bool:
        """Whether the account's key has signed this."""
        try:
            self._key.public_key().verify(signature, text, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def sign(self, text: bytes) -> bytes:
        return self._key.sign(text, padding.PKCS1v15(), hashes.SHA256())

    def _claims(self, token: str) -> dict[str, Any]:
        signed, _, signature = token.rpartition(".")
        if not self.signed(signed.encode(), _decoded(signature)):
            raise ValueError("not signed by the account's key")
        claims = json.loads(_decoded(signed.partition(".")[2]))
        if not isinstance(claims, dict):
            raise ValueError("the claims are no JSON object")
        return claims

    def endpoint(self, request: Request) -> Response:
        """`POST https://oauth2.googleapis.com/token`."""
        form = {k: v[0] for k, v in parse_qs(request.body.read().decode()).items()}
        if form.get("grant_type") != _GRANT:
            text = f"grant type {form.get('grant_type')!r} is not in the local cloud"
            error = {"error": "unsupported_grant_type", "error_description": text}
            return Response.json(error, 400)
        try:
            claims = self._claims(form.get("assertion", ""))
        except ValueError:
            text = "Invalid JWT Signature."
            return Response.json({"error": "invalid_grant", "error_description": text}, 400)
        request.principal = str(claims.get("iss", ""))
        answer: dict[str, Any] = {"expires_in": LIFETIME - 1, "token_type": "Bearer"}
        if "target_audience" in claims:
            answer["id_token"] = form["assertion"]
        else:
            answer["access_token"] = self.issue(request.principal)
        return Response.json(answer)


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as error:
        raise ValueError("not base64") from error
