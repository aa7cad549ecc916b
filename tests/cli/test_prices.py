"""`portaflow prices`: a table that `plan` reads, asked of the clouds that run here."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto")
pytest.importorskip("grpc")

from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Fault

from tests.cli.conftest import Invoke

DAG = Path(__file__).parents[2] / "dags" / "recommendations"
TARGETS = """
[targets.aws]
store = {backend = "s3", root = "s3://portaflow/store"}
compute = {backend = "emr", region = "us-east-1"}
container = {backend = "kubernetes"}
limits.max_cost = 100

[targets.gcp]
store = {backend = "gcs", root = "gs://portaflow/store"}
compute = {backend = "dataproc", region = "europe-west1"}
container = {backend = "kubernetes"}

[targets.mixed]
extends = "gcp"
place = {train = "aws"}
"""
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def clouds() -> Iterator[Clouds]:
    with emulate("aws", "gcp", buckets=["portaflow"]) as running:
        yield running


@pytest.fixture
def cli(clouds: Clouds, tmp_path: Path) -> Cli:
    (tmp_path / "portaflow.toml").write_text(TARGETS)
    env = clouds.environ()

    def portaflow(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "portaflow", *words]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)

    return portaflow


@pytest.mark.parametrize("target", ["aws", "gcp"])
def test_with_the_table_a_plan_tells_what_a_cluster_costs(
    cli: Cli, tmp_path: Path, target: str
) -> None:
    asked = cli("prices", str(DAG), "-t", target)
    assert asked.returncode == 1  # for what is asked of Kubernetes
    assert f"target {target}: core: the provider tells no price" in asked.stderr
    table = tomllib.loads(asked.stdout)["targets"][target]["prices"]
    assert table["date"] == datetime.datetime.now(datetime.UTC).date()
    assert all(0 < price < 10 for price in table["hourly"].values())

    pods = "core = 0.03\nGiB = 0.004\n"
    (tmp_path / "portaflow.toml").write_text(f"{TARGETS}\n{asked.stdout.rstrip()}\n{pods}")
    costs = json.loads(cli("plan", str(DAG), "-t", target, "--json").stdout)["costs"]
    assert all(cost["unknown"] is None for cost in costs)
    cluster = next(cost for cost in costs if cost["action"].startswith("cluster/"))
    an_hour = sum(m["count"][1] * table["hourly"][m["type"]] for m in cluster["machines"])
    assert cluster["hourly"][1] == pytest.approx(an_hour, abs=1e-4)

    again = cli("prices", str(DAG), "-t", target)  # its own prices of pods stay
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == asked.stdout.rstrip() + "\n" + "GiB = 0.004\ncore = 0.03\n\n"


def test_json_has_the_prices_and_what_has_none(cli: Cli) -> None:
    told = json.loads(cli("prices", str(DAG), "-t", "gcp", "--json").stdout)
    assert told["ok"] is False
    assert told["targets"]["gcp"]["currency"] == "USD"
    assert told["targets"]["gcp"]["hourly"]
    assert sorted(told["targets"]["gcp"]["unknown"]) == ["GiB", "core"]


def test_each_place_has_a_table_of_its_own(cli: Cli) -> None:
    told = json.loads(cli("prices", str(DAG), "-t", "mixed", "--json").stdout)["targets"]
    assert told["mixed"]["hourly"]
    assert (told["aws"]["hourly"], sorted(told["aws"]["unknown"])) == ({}, ["GiB", "core"])


def test_who_may_not_ask_is_told_so(cli: Cli, clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="deny", operation="aws:pricing.GetProducts"))
    denied = cli("prices", str(DAG), "-t", "aws")
    assert denied.returncode == 1
    assert denied.stderr.startswith("error: ")
    assert "pricing:GetProducts" in denied.stderr


def test_prices_in_another_currency_are_not_mixed_in(cli: Cli, tmp_path: Path) -> None:
    euros = 'currency = "EUR"\nhourly = {core = 0.03, GiB = 0.004}\n'
    (tmp_path / "portaflow.toml").write_text(f"{TARGETS}\n[targets.gcp.prices]\n{euros}")
    asked = cli("prices", str(DAG), "-t", "gcp")
    assert asked.returncode == 1
    assert "core =" not in asked.stdout


def test_what_passes_is_asked_again(cli: Cli, clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="throttle", operation="gcp:cloudbilling.ListSkus"))
    assert "[targets.gcp.prices]" in cli("prices", str(DAG), "-t", "gcp").stdout


def test_what_runs_on_this_machine_is_billed_by_nobody(place: Path, invoke: Invoke) -> None:
    invoke("new", "pipeline", "demo")
    asked = invoke("prices", "demo")
    assert asked.exit_code == 0
    assert asked.stdout == "nothing that demo takes on target local is billed by the hour\n"
