"""The store in GCS, on the local GCP: the laws, and what it says when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trustme")
pytest.importorskip("google.cloud.storage")

from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Fault
from portaflow_conformance.manifest import MANIFEST

Run = Callable[..., Any]

_START = """
import json, os, time
from portaflow_gcp.gcs import Config, Gcs
told = []
def said(call, *args, **kwargs):
    began = time.monotonic()
    try:
        call(*args, **kwargs)
    except Exception as error:
        assert time.monotonic() - began < 20, error
        return [type(error).__name__, str(error), getattr(error, "retryable", None)]
    return []
def fs(root="gs://mine/p", **settings):
    return Gcs(Config(root=root, **settings)).filesystem()
"""
_END = """
print("\\n" + json.dumps(told))
"""


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with emulate("gcp", pace=0.05) as clouds:
        code = "from google.cloud import storage; storage.Client().create_bucket('mine')"
        subprocess.run([sys.executable, "-c", code], env=clouds.environ(), check=True)
        yield clouds


@pytest.fixture
def run(clouds: Clouds) -> Iterator[Run]:
    """Run code in a process with the cloud's environment; what it leaves in `told`."""

    def python(code: str, **env: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-c", _START + code + _END],
            env={**clouds.environ(), **env},
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    yield python
    clouds.control.clear()


@pytest.mark.timeout(900)
def test_the_store_conforms(clouds: Clouds, tmp_path: Path) -> None:
    text = '[targets.t]\nstore = {backend = "gcs", root = "gs://mine/conformance"}\n'
    (tmp_path / "portaflow.toml").write_text(text)
    command = [
        sys.executable, "-m", "pytest", "-p", "portaflow_conformance", "-p", "no:cacheprovider",
        "--target", "t", "--target-kind", "emulator", "--level", "L1", "--report", "reports",
    ]  # fmt: skip
    env = {k: v for k, v in clouds.environ().items() if not k.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "reports" / "report.json").read_text())
    mine = {r["id"]: r["outcome"] for r in report["results"] if r["backend"] == "gcs"}
    ours = [c for c in MANIFEST if c.area in ("plugin", "store") and not c.planned]
    assert mine.keys() >= {c.id for c in ours if c.level in ("L0", "L1")}
    assert set(mine.values()) == {"passed"}
    assert report["verdict"] == "conformant"


def test_a_bucket_that_is_not_there_is_named_with_the_way_to_make_it(run: Run) -> None:
    told = run("""
none = fs("gs://none/p")
told += [said(none.pipe_file, "gs://none/p/x", b""), said(none.ls, "gs://none/p")]
told += [said(none.cat_file, "gs://none/p/x")]
with_doctor = Gcs(Config(root="gs://none/p")).check()
told += [[one.ok, one.detail, one.fix] for one in with_doctor]
""")
    for kind, text, _ in told[:3]:
        assert kind == "RejectedError"
        assert text.startswith("gs://none/p")
        assert "NoSuchBucket" in text
        assert "gcloud storage buckets create gs://none" in text
    ((ok, detail, fix),) = told[3:]
    assert (ok, fix.startswith("make it with `gcloud storage buckets create gs://none`")) == (
        False,
        True,
    )
    assert "NoSuchBucket" in detail


def test_who_may_not_do_it_is_told_which_right_is_missing(run: Run, clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="error", status=403, times=-1, operation="gcp:storage.*"))
    told = run("""
one = fs()
calls = (one.cat_file, one.exists, one.ls, one.find, one.rm_file, lambda p: one.pipe_file(p, b""))
told += [said(call, "gs://mine/p/x") for call in calls]
""")
    for kind, text, _ in told:
        assert kind == "PermissionError"
        assert text.startswith("gs://mine/p/x: ")
        assert "roles/storage.objectUser" in text


def test_what_is_throttled_for_long_may_be_asked_again_later(run: Run, clouds: Clouds) -> None:
    pattern = "gcp:storage.objects.get"
    few = clouds.control.order(Fault(effect="throttle", times=2, operation=pattern))
    code = """
one = fs()
one.pipe_file("gs://mine/p/throttled", b"1")
told += [said(one.cat_file, "gs://mine/p/throttled")]
"""
    assert run(code) == [[]]
    assert few.hit == 2
    clouds.control.order(Fault(effect="throttle", times=-1, operation=pattern))
    ((kind, text, retryable),) = run(code)
    assert (kind, retryable) == ("UnavailableError", True)
    assert text.startswith("gs://mine/p/throttled: ")


def test_an_upload_whose_answers_are_lost_is_whole(run: Run, clouds: Clouds) -> None:
    lost = [
        clouds.control.order(Fault(effect=effect, operation=operation))
        for effect, operation in (
            ("reset-after", "gcp:storage.multipart.part"),
            ("die", "gcp:storage.multipart.part"),
            ("die", "gcp:storage.objects.get"),
        )
    ]
    told = run("""
one, whole = fs(), os.urandom(21 * 2**20)
with one.open("gs://mine/p/lost", "wb", block_size=5 * 2**20) as stream:
    for at in range(0, len(whole), 10**6):
        stream.write(whole[at:at + 10**6])
told += [one.cat_file("gs://mine/p/lost") == whole]
with one.open("gs://mine/p/lost", "rb") as stream:
    told += [stream.read() == whole]
""")
    assert told == [True, True]
    assert [fault.hit for fault in lost] == [1] * len(lost)


def test_a_create_whose_answer_is_lost_is_not_taken_for_somebody_elses(
    run: Run, clouds: Clouds
) -> None:
    clouds.control.order(Fault(effect="reset-after", operation="gcp:storage.objects.insert"))
    told = run("""
one = fs()
path = "gs://mine/p/created"
told += [said(one.pipe_file, path, b"1", mode="create"), one.cat_file(path).decode()]
told += [said(one.pipe_file, path, b"2", mode="create"), one.cat_file(path).decode()]
""")
    assert (told[0][0], told[0][2], told[1]) == ("UnavailableError", True, "1")
    assert (told[2][0], told[3]) == ("FileExistsError", "1")


def test_an_upload_that_is_given_up_leaves_no_parts(run: Run, clouds: Clouds) -> None:
    before = clouds.control.count("gcp:storage.multipart.abort")
    told = run("""
one = fs()
try:
    with one.open("gs://mine/p/given-up", "wb", block_size=5 * 2**20) as stream:
        stream.write(os.urandom(12 * 2**20))
        raise ZeroDivisionError
except ZeroDivisionError:
    told += [one.exists("gs://mine/p/given-up")]
""")
    assert told == [False]
    assert clouds.control.count("gcp:storage.multipart.abort") == before + 1


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
