"""A cluster's API: how to reach it, how to ask it, what its errors mean.

Of the SDK only the finding of a cluster and of credentials is used, and its connections:
what is sent and what comes back is plain JSON, which is what a plan shows.
"""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from portaflow.errors import (
    BackendError,
    ConflictError,
    DeniedError,
    NotFoundError,
    QuotaError,
    RejectedError,
    UnavailableError,
)

Json = dict[str, Any]

_CONNECT, _READ = 10.0, 30.0  # seconds for a connection, and for an answer
_PAGE = 500  # objects of a list in one answer
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_NAMING = "name one as kubeconfig, set KUBECONFIG, or run in a pod of the cluster"


@dataclass(frozen=True)
class Connection:
    """The SDK's client, and the namespace to use when the target names none."""

    client: Any
    namespace: str


def connect(kubeconfig: Path | None = None, context: str = "", connection: str = "") -> Connection:
    """Find the cluster: an Airflow connection, else a kubeconfig, else the one we are in.

    Raises DeniedError when there is none, or it cannot be read.
    """
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise DeniedError(
            "the Kubernetes SDK is not installed; pip install portaflow-kubernetes"
        ) from error
    if connection:
        return _of_airflow(connection, context)
    file = _kubeconfig(kubeconfig)
    settings = client.Configuration()
    try:
        if not file and (_IN_CLUSTER / "token").exists():
            config.load_incluster_config(client_configuration=settings)
            namespace = (_IN_CLUSTER / "namespace").read_text("utf-8").strip()
        elif file:
            config.load_kube_config(file, context or None, settings, persist_config=False)
            contexts, active = config.list_kube_config_contexts(file)
            if context:
                active = next(c for c in contexts if c["name"] == context)
            namespace = active["context"].get("namespace", "")
        else:
            raise DeniedError(f"there is no kubeconfig, and this is no pod; {_NAMING}")
    except BackendError:
        raise
    except Exception as error:  # whatever a file holds, and its credential plugin does
        raise DeniedError(f"{file or _IN_CLUSTER}: {error}; look with: kubectl config view") from (
            error
        )
    return Connection(client.ApiClient(settings), namespace or "default")


def _kubeconfig(given: Path | None) -> str:
    """The file or files to read; "" when there is none."""
    if given is not None:
        return str(given)
    if named := os.environ.get("KUBECONFIG"):
        return named
    usual = Path.home() / ".kube" / "config"
    return str(usual) if usual.exists() else ""


def _of_airflow(name: str, context: str) -> Connection:
    """What the provider's hook makes of an Airflow connection."""
    try:
        from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
    except ImportError as error:
        raise DeniedError(
            f"connection {name!r}: Airflow's provider is not installed here; "
            "pip install apache-airflow-providers-cncf-kubernetes"
        ) from error
    try:
        hook = KubernetesHook(conn_id=name, cluster_context=context or None)
        return Connection(hook.get_conn(), hook.get_namespace() or "default")
    except Exception as error:
        raise DeniedError(
            f"connection {name!r}: {type(error).__name__}: {error}; "
            f"look with: airflow connections get {name}"
        ) from error


class Api:
    """Asks one cluster, from any thread; connects when it is first asked for something."""

    def __init__(self, connect: Callable[[], Connection], namespace: str = "") -> None:
        self._connect, self._namespace = connect, namespace
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._pid = 0

    @property
    def namespace(self) -> str:
        return self._namespace or self._connected().namespace

    def _connected(self) -> Connection:
        with self._lock:
            if self._connection is None or self._pid != os.getpid():  # no socket for two
                made = self._connect()
                weakref.finalize(self, made.client.rest_client.pool_manager.clear)
                self._connection, self._pid = made, os.getpid()
            return self._connection

    def call(
        self, method: str, path: str, body: Json | None = None, query: Mapping[str, Any] = {}
    ) -> Json:
        """One call. A PATCH merges `body` into what is there."""
        return self._asked(method, path, body, query, "application/json")

    def metadata(self, path: str) -> Json:
        """What is said of one object, without what is in it."""
        form = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
        return self._asked("GET", path, None, {}, form)

    def _asked(
        self, method: str, path: str, body: Json | None, query: Mapping[str, Any], form: str
    ) -> Json:
        with told(f"{method} {path}"):
            answer = self._send(method, path, body, query, _READ, form)
            with answer:
                data = answer.read()
            self._refuse(answer.status, data)
            found: Json = json.loads(data)
            return found

    def stream(self, path: str, read: float, **query: str | int) -> Any:
        """Open what is to be read piece by piece; silence of `read` seconds breaks it."""
        with told(f"GET {path}"):
            answer = self._send("GET", path, None, query, read)
            if answer.status >= 300:
                with answer:
                    data = answer.read()
                self._refuse(answer.status, data)
            return answer

    def list(self, path: str, **query: str | int) -> Iterator[Json]:
        """All objects of a list, page by page."""
        after = ""
        while True:
            asked = {"limit": _PAGE, **query, **({"continue": after} if after else {})}
            answer = self.call("GET", path, query=asked)
            yield from answer.get("items") or ()
            after = (answer.get("metadata") or {}).get("continue") or ""
            if not after:
                return

    def _send(
        self, method: str, path: str, body: Json | None, query: Mapping[str, Any], read: float,
        form: str = "application/json",
    ) -> Any:  # fmt: skip
        from urllib3 import Timeout

        client = self._connected().client
        merge = "merge-patch+" if method == "PATCH" else ""
        headers = {"Accept": form, "Content-Type": f"application/{merge}json"}
        client.update_params_for_auth(headers, [], ["BearerToken"])
        url = client.configuration.host.rstrip("/") + path
        return client.rest_client.pool_manager.request(
            method,
            f"{url}?{urlencode(query)}" if query else url,
            body=json.dumps(body).encode() if body is not None else None,
            headers=headers,
            preload_content=False,
            timeout=Timeout(connect=_CONNECT, read=read),
            retries=False,  # to ask again is the core's
        )

    def _refuse(self, code: int, data: bytes) -> None:
        if code < 300:
            return
        if code == 401:
            with self._lock:
                self._connection = None  # what has replaced the credentials is read next time
        raise refusal(code, data)


def refusal(code: int, data: bytes) -> BackendError:
    """The error that an answer of the API stands for."""
    try:
        text = str(json.loads(data).get("message") or "")
    except (ValueError, AttributeError):
        text = data[:200].decode(errors="replace")
    text = text or f"status {code}"
    match code:
        case 401:
            return DeniedError(
                f"the cluster does not know who we are: {text}; log in again, set this machine's "
                "clock, or see which user the context has: kubectl config view --minify"
            )
        case 403 if "exceeded quota" in text:
            return QuotaError(f"{text}; wait for what runs to end, or ask for a larger quota")
        case 403:
            return DeniedError(f"{text}; grant it by a Role, and check: kubectl auth can-i --list")
        case 404:
            return NotFoundError(text)
        case 409:
            return ConflictError(text)
        case 400 | 405 | 413 | 415 | 422:
            return RejectedError(text)
    return UnavailableError(f"status {code}: {text}")


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what the SDK and its connections raise into errors of ours."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        from urllib3.exceptions import HTTPError

        if isinstance(error, HTTPError | OSError | ValueError):
            raise UnavailableError(
                f"{what}: the cluster does not answer: {_plain(error)}; is it up, and is its "
                "address the right one? kubectl cluster-info"
            ) from error
        raise


def _plain(error: BaseException) -> str:
    """An error's words without the object that they begin with."""
    text = str(error)
    return text.partition("object at 0x")[2].partition(": ")[2] or text or type(error).__name__
