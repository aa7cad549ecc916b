"""Runs whose data and journal are in a bucket of a local cloud: made, read, compared, resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("trustme")

from portaflow_conformance.emulators.clouds import Clouds, emulate

_PIPELINE = """
from portaflow import CallTask, Pipeline

pipeline = Pipeline(
    name="words",
    params={"size": 10},
    tasks=[
        CallTask(
            id="make", function="work.py:make", outputs=["out"],
            kwargs={"to": "{{ outputs.out }}", "size": "{{ params.size }}"},
        ),
        CallTask(
            id="count", function="work.py:count", inputs={"it": "make.out"},
            kwargs={"it": "{{ inputs.it }}"},
        ),
    ],
)
"""
_WORK = """
from obstore.store import from_url

def _opened(uri):
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    return from_url(f"{scheme}://{bucket}"), key

def make(to, size):
    store, key = _opened(to)
    for number in range(3):
        store.put(f"{key}/part-{number}", b"x" * int(size) * (number + 1))

def count(it):
    store, key = _opened(it)
    return sum(one["size"] for page in store.list(key) for one in page)
"""
_CLOUDS = {
    "aws": ("s3", "s3", "import boto3; boto3.client('s3').create_bucket(Bucket='mine')"),
    "gcp": (
        *("gcs", "gs"),
        "from google.cloud import storage; storage.Client().create_bucket('mine')",
    ),
}


@dataclass(frozen=True)
class Place:
    clouds: Clouds
    folder: Path
    scheme: str

    def portaflow(self, *words: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "portaflow", *words],
            cwd=self.folder, env=self.clouds.environ(), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(params=_CLOUDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    backend, scheme, make = _CLOUDS[request.param]
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "pipeline.py").write_text(_PIPELINE)
    (tmp_path / "words" / "work.py").write_text(_WORK)
    store = f'{{backend = "{backend}", root = "{scheme}://mine/a place"}}'
    missing = f'{{backend = "{backend}", root = "{scheme}://not-there"}}'
    text = (
        f'default_target = "t"\n[targets.t]\nstore = {store}\n[targets.none]\nstore = {missing}\n'
    )
    (tmp_path / "portaflow.toml").write_text(text)
    with emulate(request.param, pace=0.05) as clouds:
        subprocess.run([sys.executable, "-c", make], env=clouds.environ(), check=True)
        yield Place(clouds, tmp_path, scheme)


def test_a_run_is_kept_in_a_bucket(place: Place) -> None:
    place.portaflow("doctor")
    place.portaflow("run", "words", "--run-id", "one")
    place.portaflow("run", "words", "--run-id", "two")
    shown = json.loads(place.portaflow("status", "two", "--json"))
    assert [task.get("value") for task in shown["tasks"]] == [None, 60]
    place.portaflow("compare", "one", "two")
    calls = place.clouds.control.count("*")
    place.portaflow("resume", "one")  # has ended well: its work is not done again
    assert place.clouds.control.count("*") > calls


def test_a_bucket_that_is_not_there_ends_a_run_before_it_begins(place: Place) -> None:
    told = place.portaflow("run", "words", "--target", "none", code=1)
    assert f"{place.scheme}://not-there/" in told
    assert "NoSuchBucket" in told
    assert "make it with `" in told
    assert "Traceback" not in told
    assert "NoSuchBucket" in place.portaflow("doctor", "--target", "none", code=1)
