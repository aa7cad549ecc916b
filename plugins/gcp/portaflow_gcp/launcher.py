"""portaflow_launcher.py VARIABLE=SECRET... -- MAIN ARGUMENT...: a job with secrets in its driver.

The main file of a job on Dataproc, which becomes the user's: that one is among the job's
Python files. It runs by the Python of the job's image.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

_SECRETS = "https://secretmanager.googleapis.com/v1"
_TRIES = 5
_TIMEOUT = 30  # seconds for an answer
_PASSING = (408, 429, 500, 502, 503, 504)
_FIXES = {
    403: "give the job's service account the role roles/secretmanager.secretAccessor, and its "
    "machines the scope cloud-platform",
    404: "make it with `gcloud secrets create`, or correct its name",
}
_here = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy knows a machine


def main() -> None:
    end = sys.argv.index("--")
    uri, *args = sys.argv[end + 1 :]
    found = dict(_found(word) for word in sys.argv[1:end])
    words = [sys.executable, _path(uri.rpartition("/")[2]), *args]
    os.execve(words[0], words, {**os.environ, **found})  # noqa: S606  no shell is wanted


def _path(name: str) -> str:
    """Where Spark has put the user's file: among what can be imported."""
    for folder in sys.path:
        if os.path.isfile(path := os.path.join(folder, name)):
            return path
    sys.exit(f"FileNotFoundError: {name} is not among the job's Python files")


def _found(word: str) -> tuple[str, str]:
    """A variable and the value of its secret; exits with the cause when there is none."""
    variable, _, secret = word.partition("=")
    try:
        value = _value(secret)
        if "\0" in value:
            raise LookupError("it has a NUL, which no variable can have")
    except (LookupError, OSError) as error:
        sys.exit(f"SecretError: secret {secret!r} for {variable} cannot be read: {error}")
    return variable, value


def _value(secret: str) -> str:
    """What Secret Manager has under a name. Raises LookupError, OSError."""
    token = json.loads(_metadata("instance/service-accounts/default/token"))["access_token"]
    whole = secret.startswith("projects/")
    name = secret if whole else f"projects/{_project()}/secrets/{secret}"
    name = name if "/versions/" in name else f"{name}/versions/latest"
    headers = {"Authorization": f"Bearer {token}"}
    answer = _got(f"{_SECRETS}/{name}:access", headers, urllib.request.urlopen)
    try:
        return base64.b64decode(json.loads(answer)["payload"]["data"]).decode("utf-8")
    except UnicodeDecodeError:
        raise LookupError("it is binary: store it as text") from None


def _project() -> str:
    return _metadata("project/project-id").decode()


def _metadata(what: str) -> bytes:
    """What the metadata server says of this machine; Google's libraries find it so, too."""
    host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
    headers = {"Metadata-Flavor": "Google"}
    return _got(f"http://{host}/computeMetadata/v1/{what}", headers, _here.open)


def _got(url: str, headers: dict[str, str], ask: Callable[..., Any]) -> bytes:
    """The body of an answer, asked for again when the trouble may pass."""
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  it is one of ours
    for tried in range(1, _TRIES + 1):
        try:
            with ask(request, timeout=_TIMEOUT) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if tried == _TRIES or error.code not in _PASSING:
                raise LookupError(_told(error)) from None
        except OSError as error:
            if tried == _TRIES:
                raise LookupError(f"{url}: {error}") from None
        time.sleep(2 ** (tried - 2))
    raise AssertionError


def _told(error: urllib.error.HTTPError) -> str:
    """Google's own words, and what helps."""
    said = error.read().decode("utf-8", "replace")
    try:
        said = json.loads(said)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        said = f"{error.url}: {error}"
    return "; ".join(filter(None, [" ".join(said.split()), _FIXES.get(error.code)]))


if __name__ == "__main__":
    main()
