"""Makes a container from a request, once: whoever finds its name taken adopts what is there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from portaflow.backend import Request
from portaflow.errors import (
    BackendError,
    ConflictError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)

from . import daemon
from .machine import Machine


def digest(request: Request) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def adopted(api: Any, request: Request) -> bool:
    """Whether a container made from this request runs or has run.

    One that was made and not started, because its maker died in between, is started.
    Raises ConflictError when the name belongs to another request or to a stranger.
    """
    name = request["name"]
    found = daemon.inspect(api, name)
    if found is None:
        return False
    if (found["Config"]["Labels"] or {}).get(daemon.REQUEST) != digest(request):
        raise ConflictError(
            f"container {name!r} exists with another request; remove it with: docker rm {name}"
        )
    if daemon.state(found) not in daemon.ALIVE | daemon.ENDED:
        _start(api, name)
    return True


def launch(api: Any, machine: Machine, request: Request, secrets: Mapping[str, str]) -> None:
    """Make and start a container, whose image is there; or adopt it (law 6)."""
    name = request["name"]
    try:
        with daemon.told(f"container {name!r}"):
            api.create_container_from_config(_completed(api, machine, request, secrets), name)
    except BackendError as error:
        if adopted(api, request):
            return
        if isinstance(error, ConflictError):  # a name is taken before there is a container
            text = f"container {name!r} is being made by somebody else"
            raise UnavailableError(text) from error
        raise
    _start(api, name)


def _completed(
    api: Any, machine: Machine, request: Request, secrets: Mapping[str, str]
) -> dict[str, Any]:
    """The body to send: the request's, and what only this machine and the image can tell."""
    body, host = dict(request["create"]), dict(request["create"]["HostConfig"])
    labels = {daemon.REQUEST: digest(request), daemon.SECRETS: json.dumps(sorted(secrets))}
    env = [*body["Env"], *(f"{key}={value}" for key, value in secrets.items())]
    image = api.inspect_image(body["Image"])["Config"] or {}
    if not body.get("User") and not image.get("User"):
        body["User"], groups = machine.user(host["Mounts"])
        host["GroupAdd"] = [*(host.get("GroupAdd") or ()), *groups]
        if not any(line.startswith("HOME=") for line in [*env, *(image.get("Env") or ())]):
            env.append("HOME=/tmp")  # who is not in the image's list of users has / otherwise
    return {**body, "HostConfig": host, "Labels": {**body["Labels"], **labels}, "Env": env}


def _start(api: Any, name: str) -> None:
    try:
        with daemon.told(f"container {name!r}"):
            api.start(name)
    except BackendError as error:
        found = daemon.inspect(api, name)
        if found and daemon.state(found) in daemon.ALIVE | daemon.ENDED:
            return  # somebody else started it
        if not error.retryable:
            daemon.remove(api, name)
        if isinstance(error, NotFoundError) and found:  # Docker's answer to a missing program
            raise RejectedError(str(error)) from error
        raise
