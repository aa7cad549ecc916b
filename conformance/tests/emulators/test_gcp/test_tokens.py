"""Tokens of the local GCP without a key: by impersonation, and from the metadata server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

Client = Callable[..., Any]

_BEGIN = """
import google.auth
from google.auth import compute_engine, exceptions, impersonated_credentials
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud import storage
scopes = ["https://www.googleapis.com/auth/cloud-platform"]
source, project = google.auth.default(scopes)
other = f"other@{project}.iam.gserviceaccount.com"
def impersonated(account, lifetime=600):
    return impersonated_credentials.Credentials(source, account, scopes, lifetime=lifetime)
"""


def test_an_account_may_be_impersonated(client: Client, clouds: Clouds) -> None:
    told = client(
        _BEGIN
        + """
credentials = impersonated(other)
store = storage.Client(credentials=credentials, project=project)
store.create_bucket("by-other").blob("x").upload_from_string("x")
import datetime
left = credentials.expiry - datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
told += [0 < left.total_seconds() <= 600]
for wrong in (impersonated("somebody@example.com"), impersonated(other, 7200)):
    try:
        wrong.refresh(Request())
    except exceptions.RefreshError as error:
        told += [error.args[1] if isinstance(error.args[1], dict) else eval(error.args[1])]
told[1:] = [answer["error"]["status"] for answer in told[1:]]
key = google.auth.default(scopes)[0]
told += [key.signer.sign(b"text") == credentials.sign_bytes(b"text")]
import requests
url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/"
told += [requests.post(f"{url}{other}:generateAccessToken", json={"scope": scopes}).status_code]
"""
    )
    assert told == [True, "NOT_FOUND", "INVALID_ARGUMENT", True, 401]
    assert {call.principal for call in clouds.control.seen("gcp:storage.objects.insert")} == {
        "other@portaflow-local.iam.gserviceaccount.com"
    }
    (made, _) = clouds.control.seen("gcp:iamcredentials.GenerateAccessToken")[:2]
    assert made.principal == "portaflow@portaflow-local.iam.gserviceaccount.com"


def test_a_machine_has_tokens_of_its_account(client: Client, clouds: Clouds) -> None:
    throttled = clouds.control.order(Fault(effect="error", status=503, operation="gcp:metadata.*"))
    told = client(
        """
import os
for name in ("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_CLOUD_PROJECT", "NO_GCE_CHECK"):
    del os.environ[name]
"""
        + _BEGIN
        + """
told += [isinstance(source, compute_engine.Credentials), project]
store = storage.Client()
store.create_bucket("by-machine")
told += ["by-machine" in [b.name for b in store.list_buckets()]]
source.refresh(Request())
told += [source.service_account_email]
import requests
url = f"http://{os.environ['GCE_METADATA_HOST']}/computeMetadata/v1/"
google = {"Metadata-Flavor": "Google"}
told += [requests.get(url + "project/project-id").status_code]
told += [requests.get(url + "instance/zone", headers=google).text]
told += [requests.get(url + "instance/none", headers=google).status_code]
"""
    )
    assert told == [
        *(True, "portaflow-local", True),
        "portaflow@portaflow-local.iam.gserviceaccount.com",
        *(403, "projects/1/zones/us-central1-a", 404),
    ]
    assert throttled.hit == 1


def test_a_token_takes_the_account_s_own_key(client: Client) -> None:
    told = client(
        """
import json, os
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from google.oauth2 import service_account
with open(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]) as file:
    info = json.load(file)
key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
forged = key.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)
for private in (info["private_key"], forged.decode()):
    credentials = service_account.Credentials.from_service_account_info(
        {**info, "private_key": private}, scopes=["https://www.googleapis.com/auth/cloud-platform"]
    )
    try:
        credentials.refresh(Request())
        told += ["token" if credentials.token else "none"]
    except RefreshError as error:
        told += [error.args[1]["error"]]
"""
    )
    assert told == ["token", "invalid_grant"]
