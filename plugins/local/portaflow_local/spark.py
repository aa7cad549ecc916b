"""Spark on this machine: a cluster is a process with a lifetime, a job a spark-submit on it.

A cluster costs a few megabytes and no JVM: it holds a lock, and all that runs on it ends
when the lock is free (leash.py). Its workers are threads of the job's own JVM, `local[N]`.
The JVM is started as Spark's launcher would start it, without the launcher (archive.py).
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import importlib.util
import math
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from portaflow.backend import (
    SUPPORTED,
    Capability,
    Cause,
    ClusterSpec,
    ComputeCluster,
    Finding,
    Fit,
    Handle,
    JobSpec,
    Request,
    Size,
    State,
    Status,
    Support,
    Verdict,
)
from portaflow.errors import NotFoundError, RejectedError
from portaflow.spark import conf_fit

from . import archive, environment, java
from .process import ProcessDriver, _held, _Launch, _request, writable
from .reason import why

_LEASH = Path(__file__).with_name("leash.py")
_INSTALL = "pip install 'portaflow-local[spark]'"
_SPARED = 0.75  # the part of the machine's memory that one job's heap may take

_OURS = {
    "spark.master": "the cluster decides it",
    "spark.submit.deployMode": "the driver runs on this machine",
    "spark.driver.extraClassPath": "name the jars as the task's jars",
    "spark.driver.extraLibraryPath": "set LD_LIBRARY_PATH in the task's env",
}


@dataclass(frozen=True)
class _Spark:
    """Spark and the Java it runs on, as they are installed here."""

    home: Path
    version: str
    java: java.Java


def _spark_home() -> Path | None:
    spec = importlib.util.find_spec("pyspark")
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders))) if folders else None


def _installed() -> _Spark:
    home, found = _spark_home(), java.suitable()
    if home is None:
        raise RejectedError(f"Spark is not installed beside portaflow; {_INSTALL}")
    if found is None:
        raise RejectedError(f"Spark needs Java {java.OLDEST} or newer; {_INSTALL}")
    return _Spark(home, importlib.metadata.version("pyspark"), found)


class ClusterDriver(ProcessDriver[ClusterSpec]):
    """A process that jobs depend on, with a time-to-live and an owner."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, "cluster")

    def request(self, name: str, spec: ClusterSpec, parent: str = "") -> Request:
        return {
            "name": name,
            "owner": spec.owner,
            "ttl": spec.ttl,
            "grace": spec.grace,
            "workers": list(spec.workers),
            "size": {"cpu": spec.size.cpu, "memory": spec.size.memory},
            "conf": dict(spec.conf),
        }

    def fit(self, spec: ClusterSpec) -> Mapping[str, Fit]:
        fits = conf_fit(spec.conf, _OURS)
        low, high = spec.workers
        if low < high:
            fits["workers"] = _near(f"always {high}, as far as the machine has cores for them")
        elif high > 1:
            fits["workers"] = _near("threads of one JVM, as far as the machine has cores for them")
        if spec.size != Size():
            fits["size"] = _near("cpu and memory are cut to the machine, disk and gpu are its own")
        if spec.spot:
            fits["spot"] = _near("this machine has one price and is not taken away")
        if spec.spark_version:
            fits["spark_version"] = _near("the pyspark that is installed runs, whichever it is")
        return fits

    def launch(self, request: Request, home: Path, parent: Handle | None) -> _Launch:
        _installed()  # better now than when the first job starts
        command = [sys.executable, "-I", str(_LEASH), str(home)]
        return super().launch({"command": command, "env": {}}, home, parent)

    def _status(self, name: str) -> Status | NotFoundError:
        status = super()._status(name)
        if isinstance(status, Status) and status.state.final and _in_use(self.folder / name):
            return Status(state=State.RUNNING, reason="its jobs are being ended")
        return status

    def failure(self, home: Path, code: int, tail: str) -> Status:
        reason = f"its process was killed from outside (exit code {code})"
        return Status(state=State.FAILED, reason=reason, exit_code=code, cause=Cause.INFRA)


class JobDriver(ProcessDriver[JobSpec]):
    """A spark-submit process on a cluster."""

    tail_bytes = 256 * 1024  # a Java stack trace is long

    def __init__(self, root: Path, cache: Path) -> None:
        super().__init__(root, "job")
        self._cache = cache
        self._clusters = root / "clusters"

    def request(self, name: str, spec: JobSpec, parent: str = "") -> Request:
        if not spec.main:
            raise RejectedError("a Spark job needs a main: a Python file or a jar")
        return {
            "name": name,
            "owner": spec.owner,
            "ttl": spec.ttl,
            "grace": spec.grace,
            "cluster": parent,
            "main": spec.main,
            "main_class": spec.main_class,
            "args": list(spec.args),
            "py_files": list(spec.py_files),
            "jars": list(spec.jars),
            "packages": list(spec.packages),
            "conf": dict(spec.conf),
            "env": dict(spec.env),
            "secrets": dict(spec.secrets),
        }

    def fit(self, spec: JobSpec) -> Mapping[str, Fit]:
        fits = conf_fit(spec.conf, _OURS)
        if spec.size != Size():
            fits["size"] = _near("a job has the cores and the memory of its cluster")
        return fits

    def telling(self, log: str) -> str:
        return why(log)

    def _handle(self, name: str) -> Handle:
        home = self.folder / name
        parent = str(_request(home).get("cluster", ""))
        return Handle(name=name, id=name, parent=parent, url=home.as_uri())

    def _status(self, name: str) -> Status | NotFoundError:
        status = super()._status(name)
        home = self.folder / name
        if not isinstance(status, Status) or status.state is not State.FAILED:
            return status
        if not (home / "orphaned").exists():
            return status
        reason = f"its cluster {_request(home).get('cluster')!r} ended while it ran"
        return Status(
            state=State.FAILED,
            reason=f"{reason}\n{self._tail(home)}".strip(),
            exit_code=status.exit_code,
            cause=Cause.INFRA,
        )

    def launch(self, request: Request, home: Path, parent: Handle | None) -> _Launch:
        name = parent.name if parent else request["cluster"]
        cluster = self._clusters / name
        if not name or not _held(cluster):
            raise NotFoundError(f"cluster {name!r} of job {request['name']!r} is not running")
        spark = _installed()
        folder = archive.folder(self._cache, spark.java, spark.home)
        first = archive.prepare(folder, spark.java, spark.home)
        if first:
            (home / "building").touch()
        env = {**archive.environment(spark.home), **request["env"]}
        submit = _submit(request, _request(cluster), home, spark, self._cache)
        grace = str(request["grace"])
        leash = [sys.executable, "-I", str(_LEASH), str(home), grace, str(cluster)]
        command = [*leash, *first, str(spark.java.path), *archive.options(folder), *submit]
        return super().launch({"command": command, "env": env}, home, parent)


def _submit(
    request: Request, cluster: Mapping[str, Any], home: Path, spark: _Spark, cache: Path
) -> list[str]:
    """The words after java's own options: the JVM's size, SparkSubmit and what it is told."""
    cores, memory = _share(cluster)
    scratch = home / "scratch"
    scratch.mkdir(exist_ok=True)
    conf = {
        "spark.app.name": request["name"],
        "spark.driver.memory": f"{memory}m",
        "spark.jars.ivy": str(cache / "ivy"),
        "spark.log.level": "WARN",
        "spark.sql.shuffle.partitions": str(cores),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        **cluster["conf"],
        **request["conf"],
    }
    # What spark-submit reads of the conf before there is a JVM; the last option counts.
    jvm = [f"-Djava.io.tmpdir={scratch}", f"-Xmx{conf['spark.driver.memory']}"]
    for key in ("spark.driver.defaultJavaOptions", "spark.driver.extraJavaOptions"):
        jvm += shlex.split(conf.get(key, ""))
    words = [*jvm, archive.MAIN, "--master", f"local[{cores}]"]
    if request["main_class"]:
        words += ["--class", request["main_class"]]
    if request["packages"]:
        words += ["--packages", ",".join(request["packages"])]
    for option, uris in (("--jars", request["jars"]), ("--py-files", request["py_files"])):
        if uris:
            words += [option, ",".join(_placed(uris, home, option[2:]))]
    for key, value in conf.items():
        words += ["--conf", f"{key}={value}"]
    return [*words, *_placed([request["main"]], home, "main"), *request["args"]]


def _share(cluster: Mapping[str, Any]) -> tuple[int, int]:
    """Cores and MiB of memory of a job: the cluster's, as far as the machine has them."""
    workers, size = cluster["workers"][1], cluster["size"]
    cores = min(workers * math.ceil(size["cpu"]), _cores())
    memory = min(workers * size["memory"] * 1024, _memory() / 2**20 * _SPARED)
    return max(cores, 1), max(int(memory), 512)  # with less Spark refuses to start


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _placed(uris: Sequence[str], home: Path, what: str) -> list[str]:
    """Put local files below the job's folder, and return them as spark-submit takes them.

    Their names become plain and their paths relative: Spark reads `%`, `#` and `,` in a path
    as parts of a URI or a list. Other URIs are Spark's to fetch.
    """
    placed = []
    for number, uri in enumerate(uris):
        scheme = re.match(r"([a-z][a-z0-9+.-]*):", uri)
        if scheme and scheme[1] != "file":
            placed.append(uri)
            continue
        source = _path(uri)
        folder = home / "files" / f"{what}-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"[^\w.=+-]", "-", source.name, flags=re.ASCII)
        # Spark puts a .zip on the path of Python, and knows no wheels.
        target = folder / (f"{name}.zip" if name.endswith(".whl") else name)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another filesystem, or one without hard links
            shutil.copyfile(source, target)
        placed.append(f"../files/{folder.name}/{target.name}")
    return placed


def _path(uri: str) -> Path:
    """The file that a URI means: a store's are verbatim, other people's may be quoted."""
    text = re.sub(r"^file:(//(localhost)?(?=/))?", "", uri)
    for path in (Path(text), Path(unquote(text))):
        if path.is_file():
            return path
    raise RejectedError(f"{uri} is not there, or is no file")


def _near(reason: str) -> Fit:
    return Fit(Verdict.APPROXIMATED, reason)


def _in_use(cluster: Path) -> bool:
    """Whether a job lives that was started on the cluster: its leash shares this lock."""
    try:
        users = os.open(cluster / "users", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(users)
    return False


@dataclass(frozen=True, kw_only=True)
class Config:
    """`root`: where things are kept. `cache`: for what can be made again; "" is the user's."""

    root: Path = Path(".portaflow/local")
    cache: str = ""


class LocalSpark(ComputeCluster):
    """Runs Spark jobs on this machine."""

    name = "spark-local"
    Config = Config
    capabilities = {
        Capability.JAR: SUPPORTED,
        Capability.PACKAGES: SUPPORTED,
        Capability.CONCURRENT_JOBS: SUPPORTED,
        Capability.AUTOSCALE: Support(False, "a machine does not grow: always the most workers"),
        Capability.SPOT: Support(False, "this machine has one price"),
    }

    @property
    def clusters(self) -> ClusterDriver:
        return ClusterDriver(self.config.root)

    @property
    def jobs(self) -> JobDriver:
        return JobDriver(self.config.root, environment.cache_folder(self.config.cache))

    def check(self) -> Iterable[Finding]:
        yield _check_java()
        yield _check_spark()
        memory = _memory() / 2**30
        fix = "" if memory >= 2 else "run on a machine with 2 GiB or more"
        yield Finding(what="memory", ok=not fix, detail=f"{memory:.1f} GiB", fix=fix)
        yield writable(self.config.root, "state of clusters and jobs")
        yield writable(environment.cache_folder(self.config.cache), "cache of Spark's start")


def _check_java() -> Finding:
    what = f"Java {java.OLDEST} or newer"
    if found := java.suitable():
        detail = f"{found.version} from {found.origin}: {found.path}"
        return Finding(what=what, ok=True, detail=detail)
    seen = ", ".join(f"{j.version or 'unknown'} from {j.origin}" for j in java.installed())
    return Finding(what=what, ok=False, detail=seen or "none found", fix=_INSTALL)


def _check_spark() -> Finding:
    if home := _spark_home():
        detail = f"{importlib.metadata.version('pyspark')} in {home}"
        return Finding(what="pyspark", ok=True, detail=detail)
    return Finding(what="pyspark", ok=False, detail="not found", fix=_INSTALL)
