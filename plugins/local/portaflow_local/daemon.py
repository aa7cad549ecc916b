"""The Docker or Podman daemon: where it is, how to talk to it, what its errors mean.

Everything portaflow makes there carries these labels, so that any process that reaches the
daemon can find it, hold it to its time-to-live and clear it away; nothing else is touched.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from portaflow.errors import (
    BackendError,
    ConflictError,
    DeniedError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)

OWNER = "portaflow.owner"
TTL = "portaflow.ttl"  # seconds from its creation
GRACE = "portaflow.grace"  # seconds between the polite and the hard end
REQUEST = "portaflow.request"  # digest of the request it was made from
SECRETS = "portaflow.secrets"  # variables that hold secrets, as a JSON list
MARK = "portaflow.mark"  # why it was asked to end: "stop" or "ttl"; on a volume, see `mark`
MARKED_AT = "portaflow.marked-at"  # when, in seconds since 1970

ALIVE = frozenset({"running", "paused", "restarting", "stopping"})
ENDED = frozenset({"exited", "stopped", "dead", "removing"})
"""States of a container as either daemon writes them; the others come before the start."""

_TIMEOUT = 60  # seconds for an answer
_SOCKETS = (
    "/var/run/docker.sock",
    "~/.docker/run/docker.sock",
    "$XDG_RUNTIME_DIR/docker.sock",
    "$XDG_RUNTIME_DIR/podman/podman.sock",
    "/run/podman/podman.sock",
    "~/.local/share/containers/podman/machine/podman.sock",
)

START_ONE = "start Docker, or run: systemctl --user enable --now podman.socket"


def places() -> list[str]:
    """The sockets that are looked for, in this order, when neither config nor host is set."""
    expanded = (os.path.expanduser(os.path.expandvars(s)) for s in _SOCKETS)
    return [path for path in expanded if path.startswith("/")]


def url(configured: str = "") -> str:
    """Return the daemon's URL: as configured, else DOCKER_HOST, else the first socket there is.

    Raises UnavailableError when there is none.
    """
    given = configured or os.environ.get("DOCKER_HOST", "")
    if given:
        return f"unix://{given}" if given.startswith("/") else given
    for path in places():
        if os.path.exists(path):
            return f"unix://{path}"
    raise UnavailableError(
        f"no Docker or Podman daemon: DOCKER_HOST is not set and there is none of "
        f"{', '.join(places())}; {START_ONE}"
    )


def connect(at: str) -> Any:
    """Return the SDK's client for the daemon at a URL. Raises errors of ours."""
    try:
        import docker
        from docker.utils import kwargs_from_env
    except ImportError as error:
        raise UnavailableError(
            "the Docker SDK is not installed; pip install 'portaflow-local[docker]'"
        ) from error
    with told(at):
        _knock(at)
        options: dict[str, Any] = {**kwargs_from_env(), "base_url": at}
        return docker.APIClient(version="auto", timeout=_TIMEOUT, **options)


def _knock(at: str) -> None:
    """Find out whether somebody listens at a socket: the SDK leaves a mess when nobody does."""
    scheme, _, path = at.partition("://")
    if scheme == "unix":
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(_TIMEOUT)
            door.connect(path)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what the SDK raises into errors of ours that name `what`."""
    try:
        yield
    except BackendError:
        raise
    except Exception as error:
        from docker.errors import APIError, DockerException
        from requests.exceptions import RequestException
        from urllib3.exceptions import HTTPError  # of an answer that is cut off

        if isinstance(error, APIError):
            raise _refused(what, error) from error
        if _has(error, PermissionError):
            raise DeniedError(
                f"{what}: no right to use the daemon's socket; join the group that owns it, "
                "or use a rootless daemon"
            ) from error
        if isinstance(error, DockerException | RequestException | HTTPError | OSError):
            cause = "it does not answer in time" if "timed out" in str(error) else str(error)
            text = f"{what}: the daemon is out of reach: {cause}; {START_ONE}"
            raise UnavailableError(text) from error
        raise


def _has(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Whether an error, or what it was made from, is of a kind; the SDK nests them as args."""
    while error is not None:
        nested = [a for a in error.args if isinstance(a, BaseException)]
        if isinstance(error, kind) or any(_has(a, kind) for a in nested):
            return True
        error = error.__cause__ or error.__context__
    return False


_CODES: dict[int, type[BackendError]] = {
    400: RejectedError,
    401: DeniedError,
    403: DeniedError,
    404: NotFoundError,
    409: ConflictError,
}
_WORDS: tuple[tuple[str, type[BackendError]], ...] = (
    ("already in use", ConflictError),
    ("attempted to invoke a command that was not found", RejectedError),
    ("executable file not found", RejectedError),
    ("oci permission denied", RejectedError),
    ("permission denied: unknown", RejectedError),
    ("denied: ", DeniedError),
    ("unauthorized", DeniedError),
    ("authentication required", DeniedError),
    ("access to the resource is denied", DeniedError),
    ("access denied", DeniedError),
    ("manifest unknown", NotFoundError),
    ("name unknown", NotFoundError),
    ("not found: ", NotFoundError),
    ("no such container", NotFoundError),  # of Podman's 500, when one is just removed
    ("invalid reference", RejectedError),
    ("no such file or directory", RejectedError),
)
"""What texts mean: Podman answers 500 for nearly all, Docker for what a registry said."""


def meaning(text: str) -> type[BackendError] | None:
    """The kind of error that a daemon's or a registry's words stand for, if they are known."""
    lowered = text.lower()
    return next((kind for words, kind in _WORDS if words in lowered), None)


def _refused(what: str, error: Any) -> BackendError:
    text = str(error.explanation or error).strip()
    kind = _CODES.get(error.status_code) or meaning(text) or UnavailableError
    return kind(f"{what}: {text}")


# -- things and marks


def inspect(api: Any, name: str) -> dict[str, Any] | None:
    """What the daemon knows of a container of ours; None when there is none."""
    try:
        with told(f"container {name!r}"):
            found: dict[str, Any] = api.inspect_container(name)
    except NotFoundError:
        return None
    return found


def state(found: Mapping[str, Any]) -> str:
    return str(found["State"]["Status"]).lower()


def listed(
    api: Any, owner: str = "", *, names: Sequence[str] = (), alive: bool = False
) -> dict[str, dict[str, Any]]:
    """Containers of portaflow by name: one call. Podman takes its time for each that it tells."""
    filters: dict[str, list[str]] = {"label": [f"{OWNER}={owner}" if owner else OWNER]}
    if names:
        filters["name"] = [f"^{re.escape(name)}$" for name in names]
    if alive:
        filters["status"] = ["running", "paused"]
    with told("the list of containers"):
        rows = api.containers(all=True, filters=filters)
    return {name.lstrip("/"): row for row in rows for name in row["Names"]}


def mark(api: Any, name: str, why: str, owner: str) -> bool:
    """Record with the daemon that a container was asked to end; whether this was the first to.

    A container's labels cannot change, so the mark is an empty volume: any process sees it.
    """
    labels = {MARK: why, MARKED_AT: f"{time.time():.6f}", OWNER: owner}
    with told(f"mark on container {name!r}"):
        made = api.create_volume(_mark(name), labels=labels)
    return bool((made.get("Labels") or {}).get(MARKED_AT) == labels[MARKED_AT])


def unmark(api: Any, name: str) -> None:
    try:
        with told(f"mark on container {name!r}"):
            api.remove_volume(_mark(name))
    except (NotFoundError, ConflictError):
        return


def marks(api: Any) -> dict[str, dict[str, str]]:
    """The labels of all marks, by the container's name: one call."""
    with told("the list of marks"):
        volumes = api.volumes(filters={"label": [MARK]})["Volumes"] or []
    return {v["Name"].removesuffix(_SUFFIX): v["Labels"] for v in volumes}


def mark_of(api: Any, name: str) -> str:
    """Why a container was asked to end; "" when it was not."""
    try:
        with told(f"mark on container {name!r}"):
            labels = api.inspect_volume(_mark(name))["Labels"] or {}
    except NotFoundError:
        return ""
    return str(labels.get(MARK, ""))


_SUFFIX = ".end"


def _mark(name: str) -> str:
    return name + _SUFFIX


def ended_before(api: Any, name: str, moment: float) -> bool:
    """Whether a container had ended by itself before it was asked to."""
    found = inspect(api, name)
    if found is None or state(found) not in ENDED:
        return False
    return datetime.fromisoformat(found["State"]["FinishedAt"]).timestamp() < moment


def kill(api: Any, name: str, signal: str) -> bool:
    """Send a signal; whether there was something alive to receive it."""
    try:
        with told(f"container {name!r}"):
            api.kill(name, signal)
    except BackendError as error:
        found = inspect(api, name)
        if found is None or state(found) not in ALIVE:
            return False
        if isinstance(error, ConflictError | NotFoundError):
            return False
        raise
    return True


def remove(api: Any, name: str) -> None:
    """Remove a container by force, silent when it is gone."""
    try:
        with told(f"container {name!r}"):
            api.remove_container(name, force=True, v=True)
    except (NotFoundError, ConflictError):  # gone, or somebody else removes it
        return


def frames(api: Any, name: str) -> Generator[bytes, None, None]:
    """A container's log from its beginning, both streams in the order of their recording.

    Read here and not by the SDK, whose stream cannot be left early without a mess.
    """
    where = f"{api.base_url}/v{api.api_version}/containers/{quote(name)}/logs"
    with told(f"log of container {name!r}"):
        from docker.errors import create_api_error_from_http_exception
        from requests.exceptions import HTTPError

        options = {"stdout": 1, "stderr": 1, "follow": 0}
        with api.get(where, params=options, stream=True, timeout=_TIMEOUT) as answer:
            try:
                answer.raise_for_status()
            except HTTPError as error:
                create_api_error_from_http_exception(error)
            while len(head := answer.raw.read(8)) == 8:  # stream, 3 unused, size
                yield answer.raw.read(int.from_bytes(head[4:], "big"))


def has_image(api: Any, reference: str) -> bool:
    try:
        with told(f"image {reference!r}"):
            api.inspect_image(reference)
    except NotFoundError:
        return False
    return True


def values(env: Iterable[str], names: Iterable[str]) -> list[bytes]:
    """The values of some variables in a container's environment."""
    pairs = dict(line.partition("=")[::2] for line in env)
    return [pairs[name].encode() for name in names if pairs.get(name)]


def folder(cache: Path, at: str) -> Path:
    """Where what watches over a daemon keeps its lock."""
    return cache / "daemons" / hashlib.sha256(at.encode()).hexdigest()[:16]
