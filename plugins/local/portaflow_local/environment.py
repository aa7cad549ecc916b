"""Environments made from an image's requirements.txt, cached by what is in it.

`python -m portaflow_local.environment CONTEXT CACHE COMMAND...` builds the environment if
nobody has, then becomes the command.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

_READY = ".ready"
_FOR_BUILD = "PORTAFLOW_BUILD_"
_KEPT = ("PIP_", "SSL_", "REQUESTS_", "HTTP_", "HTTPS_", "NO_PROXY", "HOME", "XDG_")


def cache_folder(configured: str = "") -> Path:
    """The folder for what can be made again: as configured, or the user's cache."""
    if configured:
        return Path(configured).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "portaflow"


def here() -> Path:
    """The folder of the interpreter that runs portaflow, and of what is installed with it."""
    return Path(sys.executable).parent


def prepare(context: Path, cache: Path) -> tuple[Path, list[str]]:
    """Return the interpreter for an image, and the words that build it first, if need be."""
    requirements = context / "requirements.txt"
    if not requirements.is_file() or not requirements.read_text("utf-8").strip():
        return here() / "python", []
    folder = _folder(requirements, cache)
    build = [sys.executable, "-m", "portaflow_local.environment", str(context), str(cache)]
    return folder / "bin" / "python", [] if (folder / _READY).exists() else build


def for_build() -> dict[str, str]:
    """What pip needs of this environment, hidden from the command under other names."""
    return {_FOR_BUILD + key: value for key, value in of_host(_KEPT).items()}


def of_host(beginnings: tuple[str, ...]) -> dict[str, str]:
    """Those variables of this environment whose names begin in one of these ways."""
    return {k: v for k, v in os.environ.items() if k.upper().startswith(beginnings)}


def _folder(requirements: Path, cache: Path) -> Path:
    version = f"{sys.version_info[0]}.{sys.version_info[1]} {sysconfig.get_platform()}"
    digest = hashlib.sha256(version.encode() + b"\0" + requirements.read_bytes())
    return cache / "environments" / digest.hexdigest()[:20]


def build(requirements: Path, folder: Path) -> None:
    """Make the environment in `folder`, once however many ask; `.ready` says it is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / _READY).exists():
            return
        shutil.rmtree(folder, ignore_errors=True)  # what a build that was killed has left
        print(f"building an environment from {requirements.name}", flush=True)  # noqa: T201
        python = str(folder / "bin" / "python")
        # To install pip there as well takes seconds, and its own is as good.
        here = importlib.util.find_spec("pip") is not None
        venv = [sys.executable, "-m", "venv", *(["--without-pip"] if here else [])]
        subprocess.run([*venv, str(folder)], check=True)
        pip = [sys.executable, "-m", "pip", "--python", python] if here else [python, "-m", "pip"]
        options = ["--quiet", "--disable-pip-version-check", "-r", str(requirements)]
        subprocess.run([*pip, "install", *options], check=True)
        (folder / _READY).touch()


def main() -> None:
    context, cache, *command = sys.argv[1:]
    given = dict(os.environ)
    for key in list(os.environ):
        if key.startswith(_FOR_BUILD):
            os.environ[key.removeprefix(_FOR_BUILD)] = os.environ.pop(key)
            del given[key]
    requirements = Path(context) / "requirements.txt"
    try:
        build(requirements, _folder(requirements, Path(cache)))
    except (subprocess.CalledProcessError, OSError) as error:
        print(f"the environment for {requirements} failed: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    Path("../building").unlink(missing_ok=True)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec keeps that
    try:
        os.execvpe(command[0], command, given)  # noqa: S606  it is what the task runs
    except OSError as error:  # as a shell says it
        print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
