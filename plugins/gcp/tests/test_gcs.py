"""What is of GCS alone, on the local GCP: its keys. The laws: tests/test_bucket_stores.py."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("trustme")
pytest.importorskip("google.cloud.storage")

from portaflow_conformance.emulators.clouds import Clouds, emulate

from tests.beside import Run, beside

_START = """
from portaflow_gcp.gcs import Config, Gcs
def fs(root="gs://mine/p", **settings):
    return Gcs(Config(root=root, **settings)).filesystem()
"""


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with emulate("gcp", pace=0.05) as clouds:
        code = "from google.cloud import storage; storage.Client().create_bucket('mine')"
        subprocess.run([sys.executable, "-c", code], env=clouds.environ(), check=True)
        yield clouds


@pytest.fixture
def run(clouds: Clouds) -> Iterator[Run]:
    yield beside(clouds, _START)
    clouds.control.clear()


_KEY = """
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.asymmetric import rsa
info = json.load(open(os.environ["GOOGLE_APPLICATION_CREDENTIALS"]))
info["private_key"] = rsa.generate_private_key(65537, 2048).private_bytes(
    s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption()).decode()
json.dump(info, open(os.environ["WRONG_KEY"], "w"))
os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = os.environ["WRONG_KEY"]
"""


def test_a_key_that_is_refused_says_what_to_do(run: Run, tmp_path: Path) -> None:
    told = run(
        _KEY
        + """
one = fs()
calls = (one.cat_file, one.exists, one.ls, lambda p: one.pipe_file(p, b""))
told += [said(call, "gs://mine/p/x") for call in calls]
""",
        WRONG_KEY=str(tmp_path / "key.json"),
    )
    for kind, text, _ in told:
        assert kind == "PermissionError"
        assert text.startswith("gs://mine/p/x: ")
        assert "Invalid JWT Signature" in text
        assert "gcloud auth application-default login" in text
        assert "PRIVATE KEY" not in text


def test_without_credentials_it_says_how_to_get_them(run: Run) -> None:
    told = run("""
del os.environ["GOOGLE_APPLICATION_CREDENTIALS"], os.environ["GOOGLE_SERVICE_ACCOUNT"]
told += [said(fs().cat_file, "gs://mine/p/x"), said(fs(connection="mine").ls, "gs://mine/p")]
os.environ["GOOGLE_APPLICATION_CREDENTIALS"] = "/not/there"
import portaflow_gcp.connect
portaflow_gcp.connect._all.clear()
told += [said(fs().ls, "gs://mine/p")]
""")
    kinds = [one[0] for one in told]
    assert kinds == ["DeniedError", "RejectedError", "DeniedError"]
    assert "gcloud auth application-default login" in told[0][1]
    assert "pip install apache-airflow-providers-google" in told[1][1]
    assert "/not/there was not found" in told[2][1]


def test_settings_are_the_environment_of_jobs_and_hold_no_secret() -> None:
    from portaflow_gcp.gcs import Config, Gcs

    store = Gcs(Config(root="gs://mine/p", project="their-project"))
    assert store.url("a/b") == "gs://mine/p/a/b"
    assert store.spark_conf() == {}
    assert store.container_env() == {"GOOGLE_CLOUD_PROJECT": "their-project"}


def test_a_folder_that_another_client_has_made_is_removed_around(run: Run) -> None:
    told = run("""
from google.cloud import storage
bucket = storage.Client().bucket("mine")
for name in ("p/made/x/", "p/made/x/y", "p/made/z"):
    bucket.blob(name).upload_from_string(b"")
told += [said(fs().rm, "gs://mine/p/made", recursive=True)]
told += [b.name for b in storage.Client().list_blobs("mine", prefix="p/made/")]
""")
    assert told == [[], "p/made/x/"]  # its name is none that can be asked for
