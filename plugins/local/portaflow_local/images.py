"""Gets an image that is not there, by building or pulling it, then starts the container.

It takes minutes at worst, so it is a process of its own that outlives portaflow:
`python -m portaflow_local.images URL FOLDER`, in the folder that its request lies above.
The exit code says who is to blame.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from portaflow.backend import Cause
from portaflow.errors import (
    BackendError,
    DeniedError,
    NotFoundError,
    RejectedError,
    UnavailableError,
)

from . import daemon, launch, sentinel
from .machine import Machine

CAUSES = {1: Cause.USER, 69: Cause.INFRA, 77: Cause.DENIED}
"""What the exit codes mean; the numbers are those of sysexits.h."""


def get(api: Any, request: Mapping[str, Any]) -> None:
    """Build or pull the image of a request."""
    reference, context = request["create"]["Image"], request["context"]
    if context:
        _build(api, reference, Path(context))
    else:
        _pull(api, reference)


def _build(api: Any, tag: str, context: Path) -> None:
    if not (context / "Dockerfile").is_file():
        raise RejectedError(f"image {tag!r}: there is no Dockerfile in {context}")
    _say(f"building {tag} from {context}")
    with daemon.told(f"image {tag!r}"):
        for line in api.build(path=str(context), tag=tag, rm=True, forcerm=True, decode=True):
            if "stream" in line:
                sys.stdout.write(line["stream"])
                sys.stdout.flush()
            if "error" in line:
                raise RejectedError(f"image {tag!r} cannot be built: {line['error'].strip()}")


def _pull(api: Any, reference: str) -> None:
    _say(f"pulling {reference}")
    repository, _, tag = reference.partition("@") if "@" in reference else _tagged(reference)
    with daemon.told(f"image {reference!r}"):
        for line in api.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in line:
                text = str(line["error"]).strip()
                raise (daemon.meaning(text) or UnavailableError)(f"image {reference!r}: {text}")


def _tagged(reference: str) -> tuple[str, str, str]:
    head, colon, tag = reference.rpartition(":")
    return (head, colon, tag) if colon and "/" not in tag else (reference, "", "latest")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201  it is the log of the preparation


def main() -> None:
    url, folder = sys.argv[1], Path(sys.argv[2])
    request = json.loads(Path("../request.json").read_bytes())["docker"]
    secrets = {key: os.environ[key] for key in request["secrets"]}
    try:
        api = daemon.connect(url)
        machine = Machine.of(api)
        get(api, request)
        # A stop must not fall between the two: it would find no container, and leave one.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        if Path("../stopping").exists() or Path("../expired").exists():
            return
        sentinel.wake(url, folder)
        launch.launch(api, machine, request, secrets)
        if Path("../stopping").exists() and daemon.mark(
            api, request["name"], "stop", request["owner"]
        ):
            daemon.kill(api, request["name"], "SIGTERM")
        sentinel.wake(url, folder)
    except BackendError as error:
        _say(str(error))
        denied = 77 if isinstance(error, DeniedError) else 69 if error.retryable else 1
        if isinstance(error, NotFoundError):
            _say("check the reference, or give the image a folder with a Dockerfile")
        sys.exit(denied)


if __name__ == "__main__":
    main()
