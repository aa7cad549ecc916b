"""The way to AWS: which clients, whose credentials, and what each error means."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from portaflow_aws.connect import Access, connect, told
from portaflow_conformance.emulators.clouds import Clouds

from portaflow.errors import (
    BackendError,
    ConflictError,
    DeniedError,
    NotFoundError,
    QuotaError,
    RejectedError,
    UnavailableError,
)


def test_equal_settings_share_their_clients(clouds: Clouds) -> None:
    with ThreadPoolExecutor(8) as pool:
        clients = set(pool.map(lambda _: connect(Access()).client("emr"), range(32)))
    assert len(clients) == 1
    assert connect(Access(region="eu-west-3")).client("emr") not in clients
    assert connect(Access(region="eu-west-3")).region == "eu-west-3"


def test_a_client_asks_once(clouds: Clouds) -> None:
    from portaflow_conformance.emulators.control import Fault

    clouds.control.order(Fault(effect="error", operation="aws:emr.ListClusters", times=9))
    before = clouds.control.count("aws:emr.ListClusters")
    with pytest.raises(UnavailableError), told("list"):
        connect(Access()).client("emr").list_clusters()
    assert clouds.control.count("aws:emr.ListClusters") == before + 1


@pytest.mark.parametrize(
    ("code", "status", "message", "kind", "words"),
    [
        ("AccessDeniedException", 400, "no", DeniedError, "the right to do this"),
        ("UnrecognizedClientException", 400, "no", DeniedError, "AWS_PROFILE"),
        ("InvalidClientTokenId", 403, "no", DeniedError, "AWS_PROFILE"),
        ("ExpiredTokenException", 400, "no", DeniedError, "aws sso login"),
        ("SignatureDoesNotMatch", 403, "no", DeniedError, "clock"),
        ("ThrottlingException", 400, "Rate exceeded", UnavailableError, "Rate exceeded"),
        ("TooManyRequestsException", 429, "no", UnavailableError, ""),
        ("InternalServerException", 400, "limit", UnavailableError, ""),
        ("ServiceUnavailable", 503, "no", UnavailableError, ""),
        ("ConflictException", 409, "no", ConflictError, ""),
        ("ResourceNotFoundException", 404, "no", NotFoundError, ""),
        ("InvalidSubnetID.NotFound", 400, "no", NotFoundError, ""),
        ("InvalidRequestException", 400, "Cluster id 'j-1' is not valid.", NotFoundError, ""),
        ("ValidationException", 400, "Specified job flow ID not valid", NotFoundError, ""),
        ("ValidationException", 400, "Instance type 'm9' is not valid.", RejectedError, "m9"),
        ("ServiceQuotaExceededException", 402, "no", QuotaError, "larger quota"),
        ("ValidationException", 400, "above the limit of 256", QuotaError, "larger quota"),
        ("NotImplemented", 501, "no", RejectedError, ""),
    ],
)
def test_an_error_of_aws_is_one_of_ours(
    code: str, status: int, message: str, kind: type[BackendError], words: str
) -> None:
    from botocore.exceptions import ClientError

    secret = "x-amz-security-token:IQoJb3JpZ2luX2VjE"
    response: Any = {
        "Error": {"Code": code, "Message": f"{message}\n\nThe Canonical String was\n{secret}"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    with pytest.raises(BackendError) as caught, told("cluster 'pf-c-1'"):
        raise ClientError(response, "RunJobFlow")
    assert type(caught.value) is kind
    assert str(caught.value).startswith(f"cluster 'pf-c-1': {code}: {message}")
    assert words in str(caught.value)
    assert secret not in str(caught.value)
    assert isinstance(caught.value.__cause__, ClientError)


ASK = """
import json, sys, time
from portaflow_aws.connect import Access, connect, told
access = Access(**json.loads(sys.argv[1]))
began = time.monotonic()
try:
    with told("clusters", access):
        connect(access).client("emr").list_clusters()
    print("fine")
except Exception as error:
    print(type(error).__name__, error)
assert time.monotonic() - began < 20
"""


def asked(env: dict[str, str], **access: str) -> str:
    """What another process is told that asks for clusters in an environment."""
    command = [sys.executable, "-c", ASK, json.dumps(access)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_wrong_with_access_is_named_with_the_fix(clouds: Clouds) -> None:
    env = clouds.environ()
    assert asked(env) == "fine"
    nobody = {k: v for k, v in env.items() if not k.startswith("AWS_ACCESS")}
    nobody.pop("AWS_SECRET_ACCESS_KEY")
    text = asked(nobody)
    assert text.startswith("DeniedError clusters: Unable to locate credentials")
    assert "AWS_PROFILE" in text
    text = asked(env, profile="nonesuch")
    assert text.startswith("DeniedError")
    assert "correct `profile` in the target" in text
    text = asked(env, region="mars-north-1")
    assert text.startswith("RejectedError")
    assert "'mars-north-1' is no region that boto3 knows: set `region`" in text
    nowhere = {k: v for k, v in env.items() if k not in ("AWS_REGION", "AWS_DEFAULT_REGION")}
    text = asked(nowhere)
    assert text.startswith("RejectedError emr: You must specify a region")
    assert "set `region` in the target" in text
    text = asked(env, connection="mine")
    assert text.startswith("RejectedError")
    assert "pip install apache-airflow-providers-amazon" in text


def test_who_is_not_reached_is_told_and_may_be_asked_again(clouds: Clouds) -> None:
    env = {
        **clouds.environ(),
        **dict.fromkeys(("HTTPS_PROXY", "https_proxy"), "http://127.0.0.1:9"),
    }
    text = asked(env)
    assert text.startswith("UnavailableError clusters: Failed to connect to proxy URL")
