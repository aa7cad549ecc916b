"""What a step or a bootstrap action runs: Spark, a script from S3, or a program of this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..running import Running
from ..spark import Spark, SparkMissingError, cache_folder, properties
from .shop import S3A, Shop

DRIVER = "driver."  # what the names of the files begin with that a driver on the cluster writes
_MASTER = "spark.yarn.appMasterEnv."  # whose environment a driver on the cluster has
_SCRIPT_RUNNER = re.compile(r"s3n?://([\w-]+\.)?elasticmapreduce/libs/script-runner/.+\.jar")
_COMMAND_RUNNER = re.compile(r"(.*/)?command-runner\.jar")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_HERE = "the local AWS runs spark-submit, jars, scripts and programs of this machine"
_SUBMIT = """
import sys
from pathlib import Path
from portaflow_conformance.emulators.aws.commands import submit
submit(Path(sys.argv[1]), sys.argv[2:])
"""


class CannotRunError(Exception):
    """It cannot be started; says why, as its log will."""


def step(shop: Shop, jar: Mapping[str, Any], folder: Path) -> Running:
    """Start what a step's `HadoopJarStep` asks for in its folder. Raises CannotRunError."""
    name, words = jar["Jar"], list(jar.get("Args", ()))
    if _SCRIPT_RUNNER.fullmatch(name):
        if not words:
            raise CannotRunError("script-runner.jar needs the script as its first argument")
        return script(shop, words[0], words[1:], folder)
    if not _COMMAND_RUNNER.fullmatch(name):
        if jar.get("Properties"):
            raise CannotRunError(f"the properties of a jar are not given to it; {_HERE}")
        main = ["--class", jar["MainClass"]] if jar.get("MainClass") else []
        return _spark(shop, [*main, name, *words], folder)  # it starts a jar as Hadoop does
    if not words:
        raise CannotRunError("command-runner.jar needs a command as its first argument")
    if words[0] == "spark-submit":
        return _spark(shop, words[1:], folder)
    return _program(shop, words, folder)


def on_cluster(jar: Mapping[str, Any], conf: Mapping[str, str]) -> bool:
    """Whether a step is a spark-submit whose driver runs on the cluster, by `conf` if it does not
    say."""
    words = list(jar.get("Args", ()))
    mode = {**conf, **properties(words[1:])}.get("spark.submit.deployMode")
    return words[:1] == ["spark-submit"] and mode == "cluster"


def limit(jar: Mapping[str, Any]) -> float:
    """The seconds that a step's own `timeout` gives it, for ever when it has none."""
    words = list(jar.get("Args", ()))
    if not _COMMAND_RUNNER.fullmatch(jar["Jar"]) or words[:1] != ["timeout"]:
        return float("inf")
    given = next((word for word in words[1:] if not word.startswith("-")), "")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", given)
    return float(found[1]) * _UNITS[found[2]] if found else float("inf")


def script(shop: Shop, uri: str, args: Sequence[str], folder: Path) -> Running:
    """Fetch a script and run it, as a bootstrap action or script-runner.jar does."""
    name = uri.rstrip("/").rpartition("/")[2] or "script"
    file = folder / "script" / name
    try:
        body = shop.store.get(uri) if "://" in uri else Path(uri.removeprefix("file:")).read_bytes()
        file.parent.mkdir()
        file.write_bytes(body)
        file.chmod(0o755)
    except Exception as error:  # whatever the store, or this machine, has against it
        raise CannotRunError(f"Attempting to download file '{uri}'\n{error}") from error
    command = [str(file), *args]
    return _program(shop, command if body.startswith(b"#!") else ["bash", *command], folder)


def submit(folder: Path, words: Sequence[str]) -> None:
    """Be the Spark of a `spark-submit` that a script calls, and exit as it does."""
    known = json.loads((folder / "spark.json").read_text("utf-8"))
    own = Path(tempfile.mkdtemp(prefix="spark-", dir=folder))
    env = dict(os.environ)
    del os.environ["JAVA_TOOL_OPTIONS"]  # they lead to stand-ins alone: no way to a connector
    try:
        spark = _installed({**known["conf"], **properties(words)}, Path(known["cache"]))
        command = spark.command(words, own, known["conf"])
    except SparkMissingError as error:
        sys.exit(str(error))
    env |= spark.env()
    if not any(word.startswith("-XX:ArchiveClassesAtExit=") for word in command):
        os.execve(command[0], command, env)
    code = subprocess.call(command, env=env)
    spark.keep(own, code)
    sys.exit(code if code >= 0 else 128 - code)


def _spark(shop: Shop, words: Sequence[str], folder: Path) -> Running:
    conf = shop.spark_conf()
    given = {**conf, **properties(words)}
    cluster = given.get("spark.submit.deployMode") == "cluster"
    driver = DRIVER if cluster else ""
    env = {
        k.removeprefix(_MASTER): v for k, v in given.items() if cluster and k.startswith(_MASTER)
    }
    try:
        return _installed(given).run(
            words,
            folder,
            conf=conf,
            env={**shop.env, **env},
            stdout=folder / f"{driver}stdout",
            stderr=folder / f"{driver}stderr",
        )
    except (SparkMissingError, OSError, ValueError) as error:
        raise CannotRunError(str(error)) from error


def _installed(settings: Mapping[str, str], cache: Path | None = None) -> Spark:
    """The Spark of EMR's machines. Google's connector, which a bootstrap action puts there, is
    this machine's where settings are about it."""
    if any(key.startswith("spark.hadoop.fs.gs.") for key in settings):
        from ..gcp.driver import GCS

        return Spark(S3A, GCS, cache=cache)
    return Spark(S3A, cache=cache)


def _program(shop: Shop, words: Sequence[str], folder: Path) -> Running:
    # The Python that runs us comes before the system's, as it does for Spark; a home of its own
    # keeps what a script writes to "~" out of the user's.
    home = folder / "home"
    home.mkdir(exist_ok=True)
    bins = (_bin(shop, folder), Path(sys.executable).parent)
    path = f"{':'.join(map(str, bins))}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
    if shutil.which(words[0], path=path) is None:
        raise CannotRunError(
            f'Cannot run program "{words[0]}": error=2, No such file or directory; {_HERE}'
        )
    env = {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(home), **shop.env}
    try:
        return Running(words, folder, env=env, stdout=folder / "stdout", stderr=folder / "stderr")
    except (OSError, ValueError) as error:
        raise CannotRunError(f'Cannot run program "{words[0]}": {error}') from error


def _bin(shop: Shop, folder: Path) -> Path:
    """A folder with the commands that a node of EMR has beside those of its system."""
    known = {"conf": shop.spark_conf(), "cache": str(cache_folder())}
    (folder / "spark.json").write_text(json.dumps(known), "utf-8")
    (folder / "bin").mkdir(exist_ok=True)
    file = folder / "bin" / "spark-submit"
    words = shlex.join([sys.executable, "-c", _SUBMIT, str(folder)])
    file.write_text(f'#!/bin/sh\nexec {words} "$@"\n', "utf-8")
    file.chmod(0o755)
    return file.parent
