"""Runs what jobs and batches ask for, as processes here, and keeps their output in GCS."""

from __future__ import annotations

import re
import shutil
import threading
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ..aws.shop import S3A
from ..running import Running
from ..spark import Connector, Spark, SparkMissingError
from .items import GcsError
from .objects import Objects

_PACKAGES = "spark.jars.packages"
GCS = Connector("gcs", ("org.apache.hadoop:hadoop-gcp:3.5.0",))
_CHUNK = 2**20  # bytes of output in an object
_EVERY = 0.5  # seconds between two looks at the output
_ERROR = re.compile(r"^[\w.]+(?:Error|Exception)(?:: .*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Shop:
    """Where drivers work. `env` is that of a client of this cloud: a driver is one."""

    folder: Path
    objects: Objects
    env: Mapping[str, str]
    key_file: Path
    project: str

    def hadoop(self) -> dict[str, str]:
        """What Dataproc's clusters have in core-site.xml: `gs://` works."""
        return {
            "fs.gs.impl": "org.apache.hadoop.fs.gs.GoogleHadoopFileSystem",
            "fs.AbstractFileSystem.gs.impl": "org.apache.hadoop.fs.gs.Gs",
            "fs.gs.project.id": self.project,
            "fs.gs.auth.type": "SERVICE_ACCOUNT_JSON_KEYFILE",
            "fs.gs.auth.service.account.json.keyfile": str(self.key_file),
        }

    def conf(self) -> dict[str, str]:
        return {f"spark.hadoop.{key}": value for key, value in self.hadoop().items()}

    def fetch(self, uri: str, path: Path) -> None:
        """Make a file here with the contents of an object. Raises GcsError."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        _, file = self.objects.read(bucket, name)
        with file, path.open("wb") as target:
            shutil.copyfileobj(file, target)

    def keep(self, uri: str, data: bytes) -> None:
        """Make an object; none where somebody has removed the bucket, as in the cloud."""
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        draft = self.objects.draft()
        draft.write(data)
        with suppress(GcsError):
            self.objects.put(bucket, name, draft)

    def site(self, folder: Path) -> Path:
        """A jar with core-site.xml, for classes that ask Hadoop and not Spark."""
        lines = [
            f"<property><name>{escape(k)}</name><value>{escape(v)}</value></property>"
            for k, v in self.hadoop().items()
        ]
        path = folder / "site.jar"
        with zipfile.ZipFile(path, "w") as jar:
            jar.writestr("core-site.xml", f"<configuration>{''.join(lines)}</configuration>")
        return path


class Run:
    """One attempt. `look` is called again and again until it tells an exit code.

    `uri` is where its output goes: `{uri}.000000000` and so on. `problem` says why it could
    not even start, `error` what its output tells last of one.
    """

    def __init__(
        self, shop: Shop, name: str, work: Any, *, conf: Mapping[str, str],
        env: Mapping[str, str], uri: str, after: int = 0,
    ) -> None:  # fmt: skip
        self._shop, self._work, self._conf, self._env = shop, work, conf, env
        self.uri = uri
        self.problem = self.error = ""
        self.chunk = after  # the number of the object that is written next
        self._folder = shop.folder / name
        self._output = self._folder / "output"
        self._at = 0
        self._kept = 0  # bytes of the last chunk that are in GCS
        self._looked = 0.0
        self._running: Running | None = None
        self._ended = threading.Event()
        self._code: int | None = None
        threading.Thread(target=self._start, name=f"start-{name}", daemon=True).start()

    @property
    def started(self) -> bool:
        return self._running is not None

    def _start(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            words = self._words()
            if self._ended.is_set():
                self._code = 143
                return
            connectors = (GCS, S3A) if self._packages()[1] else (GCS,)
            running = Spark(*connectors).run(
                words,
                self._folder,
                conf={**self._shop.conf(), **self._conf},
                env={**self._shop.env, **self._env},
                stdout=self._output,
                stderr=self._output,
            )
        except (SparkMissingError, GcsError, OSError) as error:
            self.problem = str(error)
            self._code = 1
            return
        self._running = running
        if self._ended.is_set():
            running.stop()

    def _words(self) -> list[str]:
        """The words of spark-submit for what a message asks for."""
        work = self._work
        properties = dict(getattr(work, "properties", {}))
        packages, had = self._packages()
        if had:
            properties[_PACKAGES] = ",".join(packages)
        words = [word for k, v in properties.items() for word in ("--conf", f"{k}={v}")]
        python = hasattr(work, "main_python_file_uri")
        lists: dict[str, list[str]] = {
            "--jars": list(work.jar_file_uris),
            "--files": list(work.file_uris),
            "--archives": list(work.archive_uris),
        }
        if python:
            lists["--py-files"] = list(work.python_file_uris)
        else:
            lists["--jars"].append(str(self._shop.site(self._folder)))
        for option, uris in lists.items():
            if uris:
                words += [option, ",".join(uris)]
        if python:
            return [*words, work.main_python_file_uri, *work.args]
        if work.main_class:
            # Without a jar of its own the class is in one of those on the class path.
            return [*words, "--class", work.main_class, "spark-internal", *work.args]
        jar = self._local(work.main_jar_file_uri)
        return [*words, "--class", _main_class(jar), str(jar), *work.args]

    def _packages(self) -> tuple[list[str], bool]:
        """What is asked of Maven Central, and whether the connector of S3 was among it.

        That is had here: what runs reaches nothing but the stand-ins, and the connector must be
        that of this Spark's own Hadoop.
        """
        settings = {**self._conf, **getattr(self._work, "properties", {})}
        asked = list(filter(None, settings.get(_PACKAGES, "").split(",")))
        others = [one for one in asked if not one.startswith("org.apache.hadoop:hadoop-aws:")]
        return others, others != asked

    def _local(self, uri: str) -> Path:
        """A file here with the contents of a URI: a manifest cannot be read elsewhere."""
        kind, _, rest = uri.partition("://")
        if kind != "gs":
            return Path(uri.removeprefix("file://").removeprefix("local://"))
        path = self._folder / Path(rest).name
        self._shop.fetch(uri, path)
        return path

    def look(self) -> int | None:
        """Keep what has been said since the last look; the exit code when it has ended."""
        if self._running is not None:
            self._code = self._running.poll()
        ended = self._code is not None
        if ended or time.monotonic() - self._looked > _EVERY:
            self._looked = time.monotonic()
            self._keep(ended)
        if ended:
            self.error = self._error()
            shutil.rmtree(self._folder, ignore_errors=True)
        return self._code

    def _error(self) -> str:
        try:
            with self._output.open("rb") as file:
                file.seek(max(file.seek(0, 2) - _CHUNK, 0))
                said = file.read().decode("utf-8", "replace")
        except FileNotFoundError:
            return ""
        return next(reversed(_ERROR.findall(said)), "")

    def _keep(self, all_of_it: bool) -> None:
        """Write the last chunk anew while it grows, as Dataproc does."""
        if self.problem:
            self._write(f"{self.problem}\n".encode())
        try:
            with self._output.open("rb") as file:
                file.seek(self._at)
                data = file.read(_CHUNK)
                while len(data) == _CHUNK:
                    self._write(data)
                    self._at += _CHUNK
                    self.chunk += 1
                    self._kept = 0
                    data = file.read(_CHUNK)
        except FileNotFoundError:
            return
        if len(data) > self._kept or all_of_it:
            self._write(data)
            self._kept = len(data)
        if all_of_it:
            self.chunk += 1

    def _write(self, data: bytes) -> None:
        self._shop.keep(f"{self.uri}.{self.chunk:09}", data)

    def end(self) -> None:
        """Begin to end it; `look` tells when it has."""
        self._ended.set()
        if self._running is not None:
            threading.Thread(target=self._running.stop, name="end-driver", daemon=True).start()

    def stop(self) -> None:
        """End it and return when it has ended."""
        self._ended.set()
        if self._running is not None:
            self._running.stop()


def _main_class(jar: Path) -> str:
    try:
        with zipfile.ZipFile(jar) as archive:
            manifest = archive.read("META-INF/MANIFEST.MF").decode()
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise OSError(
            f"{jar.name} has no manifest that could name a main class: {error}"
        ) from error
    for line in manifest.splitlines():
        if line.startswith("Main-Class:"):
            return line.partition(":")[2].strip()
    raise OSError(f"the manifest of {jar.name} names no main class")


def job_env(cluster: Mapping[str, str], job: Mapping[str, str]) -> dict[str, str]:
    """What the properties of a cluster and a job put into a driver's environment.

    A driver that Yarn runs ("cluster") has it from its job, another from its machine.
    """
    env = _below("spark-env:", cluster)
    conf = {**cluster_conf(cluster), **job}
    if conf.get("spark.submit.deployMode") == "cluster":
        env |= _below("spark.yarn.appMasterEnv.", conf)
    return env


def batch_env(properties: Mapping[str, str]) -> dict[str, str]:
    """What a batch's properties put into its driver's environment."""
    return _below("spark.dataproc.driverEnv.", properties)


def cluster_conf(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties of a cluster ("spark:spark.executor.cores") that are Spark's, or Hadoop's."""
    hadoop = {f"spark.hadoop.{key}": value for key, value in _below("core:", properties).items()}
    return {**hadoop, **_below("spark:", properties)}


def _below(prefix: str, properties: Mapping[str, str]) -> dict[str, str]:
    return {k.removeprefix(prefix): v for k, v in properties.items() if k.startswith(prefix)}
