"""DAGs in a local cloud, run by an Airflow that has an environment of its own.

`make test` makes that: aiobotocore, without which Airflow cannot defer a task for AWS, wants
another boto3 than all else here. So what Airflow runs imports nothing of ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trustme")

from portaflow_conformance.emulators.clouds import Clouds

HERE = Path(__file__).parent
PYTHON = Path(sys.prefix).with_name(".venv-airflow") / "bin" / "python"
CONNECTIONS = {
    "AIRFLOW_CONN_AWS_DEFAULT": {"conn_type": "aws"},
    "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT": {"conn_type": "google_cloud_platform"},
    "AIRFLOW_CONN_KUBERNETES_DEFAULT": {"conn_type": "kubernetes"},
}


@dataclass(frozen=True)
class Ran:
    """What came of a DAG: the states of its tasks, what they returned, what Airflow wrote."""

    states: dict[str, str]
    values: dict[str, Any]
    log: str = field(repr=False)

    def failed(self) -> set[str]:
        assert set(self.states.values()) <= {"success", "failed"}, self.log
        return {task for task, state in self.states.items() if state == "failed"}


RunDag = Callable[..., Ran]


def _environ(home: Path, base: dict[str, str]) -> dict[str, str]:
    return {
        **{name: value for name, value in base.items() if not name.startswith("AIRFLOW_")},
        # As where it is activated: EksPodOperator looks for Airflow's Python there.
        "PATH": os.pathsep.join((str(PYTHON.parent), base.get("PATH", os.defpath))),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        **{name: json.dumps(connection) for name, connection in CONNECTIONS.items()},
    }


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home of Airflow with a database and no DAG: each run has a copy."""
    if not PYTHON.exists():
        pytest.skip(f"Airflow is not there: make {PYTHON.parents[1].name}/.ready")
    home = tmp_path_factory.mktemp("airflow") / "home"
    (home / "dags").mkdir(parents=True)
    command = [PYTHON, "-m", "airflow", "db", "migrate"]
    env = _environ(home, dict(os.environ))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return home


@pytest.fixture
def run_dag(migrated: Path, tmp_path: Path) -> RunDag:
    """Run a file of `dags/` in the environment of a local cloud, in a process of its own."""

    def run(clouds: Clouds, name: str, *, deferrable: bool) -> Ran:
        home, told = tmp_path / "home", tmp_path / "told.json"
        shutil.copytree(migrated, home)
        dag = shutil.copy(HERE / "dags" / f"{name}.py", home / "dags")
        done = subprocess.run(
            [PYTHON, HERE / "run_dag.py", dag, told],
            cwd=tmp_path,
            env={**_environ(home, clouds.environ()), "DEFERRABLE": str(int(deferrable))},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1500,
        )
        print(done.stdout)  # pytest shows it when the test fails
        assert done.returncode == 0
        return Ran(**json.loads(told.read_text("utf-8")), log=done.stdout)

    return run
