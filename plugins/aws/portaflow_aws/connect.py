"""The way to AWS: whose credentials, which region, and what an error of AWS means.

Credentials are those of an Airflow connection when one is named: roles to assume, endpoints
and secrets backends come with it. Otherwise they are what boto3 finds by itself: a profile,
the environment, web identity, the machine's role. None is read before the first call.

Clients try once: to ask again is the core's part.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from portaflow.errors import (
    BackendError,
    ConflictError,
    DeniedError,
    NotFoundError,
    QuotaError,
    RejectedError,
    UnavailableError,
    advised,
)

_CONNECT, _READ = 5, 60  # seconds until a connection is there, and between two bytes
_CONNECTIONS = 32  # kept open by a client: as many threads call at once
_LONGEST = 500  # characters told of AWS's own words

_CREDENTIALS = (
    "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a `profile` or an "
    "Airflow `connection` in the target; `aws sts get-caller-identity` shows who you are"
)
_REGION = "set `region` in the target, or AWS_REGION"
_RIGHT = "give its role or user the right to do this"
_RENEW = "log in again (`aws sso login`) or renew the keys"
_CLOCK = "set this machine's clock"
LARGER = "wait for what runs to end, or ask AWS for a larger quota"

_DENIED: Mapping[str, str] = {
    "AccessDenied": _RIGHT,
    "AccessDeniedException": _RIGHT,
    "AllAccessDisabled": _RIGHT,
    "AuthFailure": _CREDENTIALS,
    "ExpiredToken": _RENEW,
    "ExpiredTokenException": _RENEW,
    "Forbidden": _RIGHT,
    "403": _RIGHT,
    "IncompleteSignature": _CREDENTIALS,
    "InvalidAccessKeyId": _CREDENTIALS,
    "InvalidClientTokenId": _CREDENTIALS,
    "InvalidSignatureException": f"{_CREDENTIALS}; or {_CLOCK}",
    "InvalidToken": _CREDENTIALS,
    "MissingAuthenticationToken": _CREDENTIALS,
    "MissingAuthenticationTokenException": _CREDENTIALS,
    "NotAuthorizedException": _RIGHT,
    "OptInRequired": "enable this region or product for the account",
    "RequestExpired": _CLOCK,
    "RequestTimeTooSkewed": _CLOCK,
    "SignatureDoesNotMatch": f"{_CREDENTIALS}; or {_CLOCK}",
    "UnauthorizedOperation": _RIGHT,
    "UnrecognizedClientException": _CREDENTIALS,
}
"""The codes that say no to whoever asks, and what helps."""

_QUOTA = frozenset({"LimitExceededException", "ServiceQuotaExceededException"})
_CONFLICT = frozenset({"ConflictException", "IdempotentParameterMismatch"})
_MISSING = frozenset(
    {"404", "NoSuchBucket", "NoSuchEntity", "NoSuchKey", "NotFound", "NotFoundException"}
    | {"ResourceNotFoundException"}
)
_NO_SUCH = re.compile(r"\b[Ii]d '\S+' is not valid|job flow ID (not valid|does not exist)")
"""How EMR says that there is no such cluster or step."""

_REJECTED: Mapping[str, str] = {
    r"release label": "correct `release` in the target, or leave it out",
    r"instance type": "correct `instance_types` or `master_type` in the target",
    r"subnet": "correct `subnets` in the target, or its `region`",
}
"""Words with which AWS finds a request wrong, and what helps."""

_BUSY = frozenset(
    {"BandwidthLimitExceeded", "PriorRequestNotComplete", "RequestLimitExceeded", "SlowDown"}
    | {"RequestTimeout", "RequestTimeoutException", "TooManyRequestsException"}
)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Whose account, and where: "" leaves it to what boto3 finds by itself.

    `connection`: an Airflow connection, instead of `profile`. `region`: of all that is made.
    """

    connection: str = ""
    profile: str = ""
    region: str = ""


class Aws:
    """Clients of one account in one region. Safe to use from any thread."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._lock = threading.RLock()  # a session makes one client at a time
        self._session: Any = None
        self._clients: dict[str, Any] = {}

    @property
    def session(self) -> Any:
        """The boto3 session: for what wants credentials rather than a client."""
        with self._lock, told("credentials", self.access):
            if self._session is None:
                self._session = self._open()
            return self._session

    def client(self, service: str) -> Any:
        """The client of a service, such as "emr"; always the same one."""
        with self._lock, told(service, self.access):
            if service not in self._clients:
                self._clients[service] = self._make(service)
            return self._clients[service]

    @property
    def region(self) -> str:
        return str(self.client("sts").meta.region_name)

    def _open(self) -> Any:
        if self.access.connection:
            return self._hook("sts").get_session(region_name=self.access.region or None)
        import boto3  # type: ignore[import-untyped]

        kept = {"profile_name": self.access.profile, "region_name": self.access.region}
        return boto3.session.Session(**{k: v for k, v in kept.items() if v})

    def _make(self, service: str) -> Any:
        from botocore.config import Config  # type: ignore[import-untyped]

        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=_CONNECT,
            read_timeout=_READ,
            max_pool_connections=_CONNECTIONS,
            user_agent_extra="portaflow",
        )
        if not self.access.connection:
            return self.session.client(service, config=config)
        hook = self._hook(service)  # knows the connection's endpoint and its own botocore config
        return hook.get_client_type(config=hook.config.merge(config))

    def _hook(self, service: str) -> Any:
        access = self.access
        try:
            from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
        except ImportError as error:
            raise RejectedError(
                f"connection {access.connection!r} needs Airflow's provider; "
                "pip install apache-airflow-providers-amazon, or name a `profile` instead"
            ) from error
        try:  # the hook itself goes on without credentials when the connection is not there
            AwsBaseHook.get_connection(access.connection)
        except Exception as error:
            raise DeniedError(
                f"Airflow has no connection {access.connection!r} ({type(error).__name__}); "
                f"make it with `airflow connections add`, or correct the target's `connection`"
            ) from error
        return AwsBaseHook(
            aws_conn_id=access.connection,
            region_name=access.region or None,
            client_type=service,
        )


_all: dict[Access, Aws] = {}
_making = threading.Lock()


def connect(access: Access) -> Aws:
    """The way to AWS that the settings of a backend name; equal settings share it."""
    key = Access(connection=access.connection, profile=access.profile, region=access.region)
    with _making:
        return _all.setdefault(key, Aws(key))


@contextmanager
def told(what: str, access: Access | None = None) -> Iterator[None]:
    """Turn what boto3 raises into errors of ours that name `what`."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        from botocore.exceptions import (  # type: ignore[import-untyped]
            BotoCoreError,
            ClientError,
        )
        from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

        if isinstance(error, ClientError):
            raise _answered(what, error) from error
        if isinstance(error, BotoCoreError):
            raise _unasked(what, error, access) from error
        if isinstance(error, ResponseParserError):  # something between us and AWS has answered
            raise UnavailableError(f"{what}: {_short(str(error))}") from error
        raise


def answered(error: BackendError) -> bool:
    """Whether AWS itself has said no: then it has done nothing."""
    response = getattr(error.__cause__, "response", None) or {}
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return 400 <= status < 500


def _answered(what: str, error: Any) -> BackendError:
    """The error that an answer of AWS means."""
    given = error.response.get("Error", {})
    name, message = str(given.get("Code", "")), _short(str(given.get("Message", "")))
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    text = f"{what}: {name}: {message}"
    if name in _DENIED:
        return DeniedError(f"{text}; {_DENIED[name]}")
    if name in _BUSY or name.startswith(("Throttl", "RequestThrottl")):
        return UnavailableError(text)
    if (status >= 500 and status != 501) or name.startswith("Internal"):
        return UnavailableError(text)
    if name in _CONFLICT:
        return ConflictError(text)
    if name in _MISSING or name.endswith(".NotFound") or _NO_SUCH.search(message):
        return NotFoundError(text)
    if name in _QUOTA or any(w in message.lower() for w in ("limit", "quota", "exceeded")):
        return QuotaError(f"{text}; {LARGER}")
    return RejectedError(advised(text, message, _REJECTED))


def _unasked(what: str, error: Any, access: Access | None) -> BackendError:
    """The error that it means when boto3 has not got as far as an answer."""
    from botocore import exceptions  # type: ignore[import-untyped]

    text = f"{what}: {_short(' '.join(str(error).split()))}"
    if isinstance(error, exceptions.NoRegionError):
        return RejectedError(f"{text}; {_REGION}")
    if isinstance(error, exceptions.InvalidRegionError):
        return RejectedError(f"{text}; correct `region` in the target, or AWS_REGION")
    if isinstance(error, exceptions.ProfileNotFound):
        return DeniedError(f"{text}; correct `profile` in the target, or AWS_PROFILE")
    if isinstance(
        error,
        exceptions.NoCredentialsError
        | exceptions.PartialCredentialsError
        | exceptions.CredentialRetrievalError
        | exceptions.SSOError
        | exceptions.TokenRetrievalError,
    ):
        return DeniedError(f"{text}; {_CREDENTIALS}")
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        if access and not _known(region := access.region or _default_region(access)):
            return RejectedError(f"{text}; {region!r} is no region that boto3 knows: {_REGION}")
        return UnavailableError(text)
    return RejectedError(text)


def _default_region(access: Access) -> str:
    import boto3

    if access.connection:
        return ""
    return str(boto3.session.Session(profile_name=access.profile or None).region_name or "")


def _known(region: str) -> bool:
    import boto3

    session = boto3.session.Session()
    parts = session.get_available_partitions()
    return not region or any(region in session.get_available_regions("sts", part) for part in parts)


def _short(message: str) -> str:
    """The first line: what may follow is the request as it was signed, with a session's token."""
    return message.strip().partition("\n")[0][:_LONGEST]
