"""The way to GCP: whose credentials, which project, and what an error of them means.

Credentials are those of an Airflow connection when one is named: key files, impersonation and
secrets backends come with it. Otherwise they are Google's application default credentials: a
key file, a login of gcloud, workload identity, the machine's account. None is read before the
first call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from portaflow.errors import BackendError, DeniedError, RejectedError, UnavailableError

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"

CREDENTIALS = (
    "log in with `gcloud auth application-default login`, set GOOGLE_APPLICATION_CREDENTIALS, "
    "or name an Airflow `connection` in the target"
)


@dataclass(frozen=True, kw_only=True)
class Access:
    """Whose project: "" leaves it to what Google's libraries find by themselves.

    `connection`: an Airflow connection.
    """

    connection: str = ""
    project: str = ""


class Gcp:
    """The credentials of one account. Safe to use from any thread."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._lock = threading.Lock()
        self._found: tuple[Any, str] | None = None

    @property
    def credentials(self) -> Any:
        return self._identity()[0]

    @property
    def project(self) -> str:
        """The target's project, or else the one that comes with the credentials."""
        return self.access.project or self._identity()[1]

    def _identity(self) -> tuple[Any, str]:
        with self._lock, told("credentials"):
            if self._found is None:
                credentials, project = self._open()
                self._found = credentials, project or ""
            return self._found

    def _open(self) -> tuple[Any, str | None]:
        if self.access.connection:
            found: tuple[Any, str] = self._hook().get_credentials_and_project_id()
            return found
        import google.auth

        return google.auth.default(scopes=[_SCOPE])

    def _hook(self) -> Any:
        name = self.access.connection
        try:
            from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
        except ImportError as error:
            raise RejectedError(
                f"connection {name!r} needs Airflow's provider; "
                "pip install apache-airflow-providers-google, or leave the connection out"
            ) from error
        try:
            return GoogleBaseHook(gcp_conn_id=name)
        except Exception as error:
            raise DeniedError(
                f"Airflow has no connection {name!r} ({type(error).__name__}); "
                f"make it with `airflow connections add`, or correct the target's `connection`"
            ) from error


_all: dict[Access, Gcp] = {}
_making = threading.Lock()


def connect(access: Access) -> Gcp:
    """The way to GCP that the settings of a backend name; equal settings share it."""
    key = Access(connection=access.connection, project=access.project)
    with _making:
        return _all.setdefault(key, Gcp(key))


class TokenSource:
    """Where obstore has tokens from: its errors are ours, and say whether they may pass."""

    def __init__(self, access: Access) -> None:
        from obstore.auth.google import GoogleCredentialProvider

        self._provider = GoogleCredentialProvider(connect(access).credentials)
        self.refresh_threshold = self._provider.refresh_threshold

    def __call__(self) -> Any:
        with told("credentials"):
            return self._provider()


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn errors of Google's credentials into ours, which name `what`."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        from google.auth import exceptions

        passing = isinstance(error, exceptions.GoogleAuthError) and error.retryable
        if passing or isinstance(error, exceptions.TransportError):
            raise UnavailableError(f"{what}: {_short(error)}") from error
        if isinstance(error, exceptions.GoogleAuthError | ValueError | OSError):
            raise DeniedError(f"{what}: {_short(error)}; {CREDENTIALS}") from error
        raise


def _short(error: Exception) -> str:
    return " ".join(str(error.args[0] if error.args else error).split())[:300]
