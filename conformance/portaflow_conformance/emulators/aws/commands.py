"""What a step or a bootstrap action runs: Spark, a script from S3, or a program of this machine."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from ..running import Running
from ..spark import Spark, SparkMissingError
from .shop import S3A, Shop

_SCRIPT_RUNNER = re.compile(r"s3n?://([\w-]+\.)?elasticmapreduce/libs/script-runner/.+\.jar")
_COMMAND_RUNNER = re.compile(r"(.*/)?command-runner\.jar")
_HERE = "the local AWS runs spark-submit, scripts and programs of this machine"


class CannotRunError(Exception):
    """It cannot be started; says why, as its log will."""


def step(shop: Shop, jar: str, args: Sequence[str], folder: Path) -> Running:
    """Start what a step asks for in its folder. Raises CannotRunError."""
    words = list(args)
    if _SCRIPT_RUNNER.fullmatch(jar):
        if not words:
            raise CannotRunError("script-runner.jar needs the script as its first argument")
        return script(shop, words[0], words[1:], folder)
    if not _COMMAND_RUNNER.fullmatch(jar):
        raise CannotRunError(f"{jar} is a jar for Hadoop's MapReduce: {_HERE}")
    if not words:
        raise CannotRunError("command-runner.jar needs a command as its first argument")
    if words[0] == "spark-submit":
        return _spark(shop, words[1:], folder)
    return _program(shop, words, folder)


def script(shop: Shop, uri: str, args: Sequence[str], folder: Path) -> Running:
    """Fetch a script and run it, as a bootstrap action or script-runner.jar does."""
    name = uri.rstrip("/").rpartition("/")[2] or "script"
    file = folder / name
    try:
        body = shop.get(uri) if "://" in uri else Path(uri.removeprefix("file:")).read_bytes()
    except Exception as error:  # whatever the store, or this machine, has against it
        raise CannotRunError(f"Attempting to download file '{uri}'\n{error}") from error
    file.write_bytes(body)
    file.chmod(0o755)
    command = [str(file), *args]
    return _program(shop, command if body.startswith(b"#!") else ["bash", *command], folder)


def _spark(shop: Shop, words: Sequence[str], folder: Path) -> Running:
    try:
        return Spark(S3A).run(
            words,
            folder,
            conf=shop.spark_conf(),
            env=shop.env,
            stdout=folder / "stdout",
            stderr=folder / "stderr",
        )
    except SparkMissingError as error:
        raise CannotRunError(str(error)) from error


def _program(shop: Shop, words: Sequence[str], folder: Path) -> Running:
    # The Python that runs us comes first, as it does for Spark; a home of its own keeps what a
    # script writes to "~" out of the user's.
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    home = folder / "home"
    home.mkdir(exist_ok=True)
    if shutil.which(words[0], path=path) is None:
        raise CannotRunError(
            f'Cannot run program "{words[0]}": error=2, No such file or directory; {_HERE}'
        )
    env = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(home), **shop.env}
    try:
        return Running(words, folder, env=env, stdout=folder / "stdout", stderr=folder / "stderr")
    except OSError as error:
        raise CannotRunError(f'Cannot run program "{words[0]}": {error}') from error
