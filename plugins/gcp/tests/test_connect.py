"""Whose credentials: an Airflow connection's, by a real Airflow, or Google's own default."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from portaflow_gcp.connect import Access, connect, told

from portaflow.errors import BackendError, DeniedError, NotFoundError, UnavailableError

pytest.importorskip("trustme")

from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError
from portaflow_conformance.emulators.clouds import emulate

ROOT = Path(__file__).parents[3]
AIRFLOW = Path(sys.prefix).with_name(".venv-airflow") / "bin" / "python"

_CODE = """
import json
from google.auth.transport.requests import Request
from portaflow.errors import BackendError
from portaflow_gcp.connect import Access, connect
one = connect(Access(connection="mine"))
one.credentials.refresh(Request())
told = [one.credentials.service_account_email, one.project, bool(one.credentials.token)]
told.append(connect(Access(connection="mine", project="of-the-target")).project)
try:
    connect(Access(connection="none")).credentials
except BackendError as error:
    told += [type(error).__name__, str(error)]
print("\\n" + json.dumps(told))
"""


@pytest.mark.skipif(not AIRFLOW.exists(), reason="`make test` makes Airflow's environment")
def test_a_connection_of_airflow_is_whose_key_it_holds(tmp_path: Path) -> None:
    with emulate("gcp", pace=0.05) as clouds:
        env = clouds.environ()
        key = env.pop("GOOGLE_APPLICATION_CREDENTIALS")
        extra = {"key_path": key, "project": "of-the-connection"}
        mine = {"conn_type": "google_cloud_platform", "extra": extra}
        env |= {
            "AIRFLOW_HOME": str(tmp_path),
            "AIRFLOW_CONN_MINE": json.dumps(mine),
            "PYTHONPATH": str(ROOT / "plugins" / "gcp"),
        }
        done = subprocess.run(
            [AIRFLOW, "-c", _CODE], env=env, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == 0, done.stderr
        *told, kind, text = json.loads(done.stdout.splitlines()[-1])
        account = "portaflow@portaflow-local.iam.gserviceaccount.com"
        assert told == [account, "of-the-connection", True, "of-the-target"]
        assert kind == "DeniedError"
        assert text.startswith("Airflow has no connection 'none' (")
        assert "airflow connections add" in text


def test_equal_settings_share_one_way_and_read_nothing_before_it_is_used() -> None:
    class Settings(Access):
        """Those of a backend, which has more of them."""

    one = connect(Access(connection="not-there"))
    assert one is connect(Settings(connection="not-there"))
    assert one is not connect(Access(connection="not-there", project="p"))
    assert connect(Access(connection="not-there", project="p")).project == "p"


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (TransportError("no way\n out"), UnavailableError, "keys: no way out"),
        (RefreshError("expired", {}), DeniedError, "keys: expired; log in with `gcloud auth"),
        (DefaultCredentialsError("none"), DeniedError, "keys: none; log in with `gcloud auth"),
        (FileNotFoundError("no file"), DeniedError, "keys: no file; log in with `gcloud auth"),
        (NotFoundError("ours"), NotFoundError, "ours"),
    ],
)
def test_an_error_of_credentials_is_ours(
    error: Exception, kind: type[BackendError], text: str
) -> None:
    with pytest.raises(kind) as raised, told("keys"):
        raise error
    assert str(raised.value).startswith(text)


def test_what_is_no_matter_of_credentials_passes() -> None:
    with pytest.raises(ZeroDivisionError), told("keys"):
        raise ZeroDivisionError
