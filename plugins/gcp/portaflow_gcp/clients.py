"""Clients of Google's services, and what their errors mean. They try once: the core repeats."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

from . import connect
from .connect import Access

_TIMEOUT = 60.0  # seconds for a call
_LONGEST = 500  # characters told of Google's own words
_QUOTA = re.compile(r"\bquota\b", re.IGNORECASE)  # Compute Engine's are told as bad requests
_NOBODY = "http2 header with status: 404"  # what gRPC says of an address that no service is at
_NOWHERE = "or it may not exist"  # what Google says of a place that is none, or not for all
LARGER = "wait for what runs to end, or ask Google for more"
_REJECTED = {
    _NOWHERE: "correct `region` or `location` in the target, or ask Google for the right to it",
    r"\bregion '": "correct `region` in the target",
    r"machine type": "correct `machine_type` or `master_type` in the target",
    r"image version": "correct `image_version` in the target, or leave it out",
    r"runtime version": "correct `runtime_version` in the target, or leave it out",
    r"bucket does not exist": "make it with `gcloud storage buckets create gs://NAME`, or correct "
    "`staging_bucket` or `temp_bucket` in the target",
}
"""Words with which Google finds a request wrong, and what helps."""

_all: dict[tuple[Access, str, str], Any] = {}
_lock = threading.Lock()


class Client:
    """One service of Google's in one region, by its methods' names."""

    def __init__(self, access: Access, name: str, region: str) -> None:
        """`name`: of the class in google.cloud.dataproc_v1, such as "JobControllerClient"."""
        self._gcp, self._name, self._region = connect.connect(access), name, region

    @property
    def project(self) -> str:
        return self._gcp.project

    def call(self, what: str, method: str, request: Any, missing: str = "") -> Any:
        """Call a method once. Raises errors of ours that name `what`."""
        with told(what, missing, self._region):
            return getattr(self._client(), method)(request=request, retry=None, timeout=_TIMEOUT)

    def _client(self) -> Any:
        key = (self._gcp.access, self._name, self._region)
        with _lock:
            if key not in _all:
                from google.cloud import dataproc_v1

                endpoint = f"{self._region}-dataproc.googleapis.com:443"
                _all[key] = getattr(dataproc_v1, self._name)(
                    credentials=self._gcp.credentials,
                    client_options={"api_endpoint": endpoint},
                )
            return _all[key]


@contextmanager
def told(what: str, missing: str = "", region: str = "") -> Iterator[None]:
    """Turn errors of Google's clients into ours.

    `missing`: what helps when it is not there; `region`: of the address that was asked.
    """
    try:
        with connect.told(what):
            yield
    except BackendError:
        raise
    except Exception as error:
        from google.api_core import exceptions

        if not isinstance(error, exceptions.GoogleAPIError):
            raise
        raise _meant(what, error, missing, region) from error


def _meant(what: str, error: Any, missing: str, region: str = "") -> BackendError:
    from google.api_core import exceptions

    text = f"{what}: {' '.join(str(getattr(error, 'message', error)).split())[:_LONGEST]}"
    match error:
        case exceptions.Unauthenticated():
            return DeniedError(f"{text}; {connect.CREDENTIALS}")
        case exceptions.Forbidden() if error.reason == "SERVICE_DISABLED":
            service = (error.metadata or {}).get("service", "the service")
            return DeniedError(f"{text}; enable it with `gcloud services enable {service}`")
        case exceptions.Forbidden() if _NOWHERE not in text:
            return DeniedError(f"{text}; give the account a role that may do this")
        case exceptions.NotFound():
            return NotFoundError(f"{text}; {missing}" if missing else text)
        case exceptions.AlreadyExists():
            return ConflictError(text)
        case exceptions.TooManyRequests() if " per minute" in text:  # calls, not machines
            return UnavailableError(text)
        case exceptions.TooManyRequests() | exceptions.BadRequest() if _QUOTA.search(text):
            return QuotaError(f"{text}; {LARGER}")
        case exceptions.TooManyRequests() | exceptions.Cancelled() | exceptions.Aborted():
            return UnavailableError(text)
        case exceptions.MethodNotImplemented() if _NOBODY in text:
            text = f"{what}: nobody answers for region {region!r} ({_NOBODY})"
            return RejectedError(
                f"{text}; correct `region` in the target; `gcloud compute regions list` tells all"
            )
        case exceptions.ClientError() | exceptions.MethodNotImplemented():
            return RejectedError(advised(text, text, _REJECTED))
    return UnavailableError(text)  # no answer: a deadline, a connection that broke
