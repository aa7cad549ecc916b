"""A target that names an Airflow connection has its credentials, its region and its role."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds

PLUGINS = Path(__file__).parents[2]
PYTHON = Path(sys.prefix).with_name(".venv-airflow") / "bin" / "python"
ASK = """
import json, sys
from portaflow.errors import BackendError
from portaflow_aws.connect import Access, connect, told
told_of = []
for access in json.loads(sys.argv[1]):
    aws = connect(Access(**access))
    try:
        with told("clusters", aws.access):
            aws.client("emr").list_clusters()
        key = aws.session.get_credentials().get_frozen_credentials().access_key
        told_of.append(["fine", aws.region, key])
    except BackendError as error:
        told_of.append([type(error).__name__, str(error), ""])
print("\\n" + json.dumps(told_of))
"""


STORE = """
import json
from portaflow_aws.s3 import S3, Config
fs = S3(Config(root="s3://logs/p", connection="mine")).filesystem()
fs.pipe_file("s3://logs/p/there", b"it is", mode="create")
print("\\n" + json.dumps(fs.cat_file("s3://logs/p/there").decode()))
"""


@pytest.mark.timeout(300)
def test_a_store_is_where_the_connections_endpoint_is(clouds: Clouds, tmp_path: Path) -> None:
    """Here the store itself, past the stand-in that counts its calls."""
    if not PYTHON.exists():
        pytest.skip(f"Airflow is not there: make {PYTHON.parents[1].name}/.ready")
    env = clouds.environ()
    key, secret = env.pop("AWS_ACCESS_KEY_ID"), env.pop("AWS_SECRET_ACCESS_KEY")
    emulator: Any = clouds.emulators["aws"]
    extra = {"region_name": "us-east-1", "endpoint_url": f"http://127.0.0.1:{emulator.store}"}
    mine = {"conn_type": "aws", "login": key, "password": secret, "extra": extra}
    env |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW_CONN_MINE": json.dumps(mine),
        "PYTHONPATH": f"{PLUGINS / 'aws'}:{PLUGINS / 'kubernetes'}",
    }
    before = clouds.control.count("aws:s3.*")
    command = [str(PYTHON), "-c", STORE]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == "it is"
    assert clouds.control.count("aws:s3.*") == before


@pytest.mark.timeout(300)
def test_credentials_and_region_are_those_of_the_connection(clouds: Clouds, tmp_path: Path) -> None:
    if not PYTHON.exists():
        pytest.skip(f"Airflow is not there: make {PYTHON.parents[1].name}/.ready")
    env = clouds.environ()
    key, secret = env.pop("AWS_ACCESS_KEY_ID"), env.pop("AWS_SECRET_ACCESS_KEY")
    keys: dict[str, Any] = {"conn_type": "aws", "login": key, "password": secret}
    region = {"extra": {"region_name": "eu-west-3"}}
    role = {"role_arn": "arn:aws:iam::123456789012:role/job", "region_name": "us-east-1"}
    env |= {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW_CONN_MINE": json.dumps({**keys, **region}),
        "AIRFLOW_CONN_ROLE": json.dumps({**keys, "extra": role}),
        "PYTHONPATH": f"{PLUGINS / 'aws'}:{PLUGINS / 'kubernetes'}",
    }
    asked = [
        {"connection": "mine"},
        {"connection": "mine", "region": "us-west-2"},
        {"connection": "role"},
        {"connection": "nonesuch"},
        {"region": "us-east-1"},
    ]
    command = [str(PYTHON), "-c", ASK, json.dumps(asked)]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    mine, moved, role_, lost, nobody = json.loads(done.stdout.splitlines()[-1])
    assert mine == ["fine", "eu-west-3", key]
    assert moved == ["fine", "us-west-2", key]
    assert role_[:2] == ["fine", "us-east-1"]
    assert role_[2] not in ("", key)  # of the role that it has assumed
    assert lost[0] == "DeniedError"
    assert "Airflow has no connection 'nonesuch'" in lost[1]
    assert "correct the target's `connection`" in lost[1]
    assert nobody[0] == "DeniedError"  # the keys above are no others than the connection's
    assert secret not in done.stdout + done.stderr
