"""What is made once before the first Spark job of a machine: no Java leaves files in /tmp."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pyspark")

from portaflow_conformance.emulators.spark import Connector, Spark, SparkMissingError


@pytest.mark.spark
def test_no_java_that_prepares_a_start_writes_of_itself_in_tmp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, said = Spark().java, tmp_path / "said"
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    shutil.copy(real.parent.parent / "release", java.parent.parent)
    java.write_text(
        f'#!/bin/sh\necho "$*" >> {shlex.quote(str(said))}\n'
        'case "$*" in *ivy*) exit 1; esac\n'  # what it would fetch is not the matter here
        f'exec {shlex.quote(str(real))} "$@"\n'
    )
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(java.parent.parent))
    folder = Spark(cache=tmp_path / "cache").prepare()
    assert (folder / "spark.args").exists()
    with pytest.raises(SparkMissingError):
        Spark(Connector("none", ("a:b:1",)), cache=tmp_path / "cache").prepare()
    calls = said.read_text().splitlines()
    assert len(calls) == 2
    assert all("-XX:-UsePerfData" in call.split() for call in calls)
