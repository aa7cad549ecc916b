"""What a plan may cost: the bound, what is unknown, and the limit that refuses a run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from portaflow.backend import Machines
from portaflow.cost import Cost, check, cost
from portaflow.errors import TargetError
from portaflow.target import Target, load_target

CLUSTER = (Machines(type="m5.xlarge"), Machines(type="m5.2xlarge", least=2, most=8, spot=True))
HOURLY = {"m5.xlarge": 0.25, "m5.2xlarge spot": 0.125}


def target(hourly: Mapping[str, float] | None = None, limit: float | None = None) -> Target:
    prices: Any = {"date": "2026-11-01", "hourly": hourly} if hourly is not None else None
    body = {"name": "t", "store": {"backend": "x"}, "prices": prices}
    return Target.model_validate({**body, "limits": {"max_cost": limit}})


def of(machines: Sequence[Machines] | None, where: Target, hours: float = 2.0) -> Cost:
    return cost("cluster/c", machines, 3600 * hours, where, "emr")


def test_the_bound_is_for_all_that_may_live_until_its_time_to_live_is_over() -> None:
    found = of(CLUSTER, target(HOURLY))
    assert found.hourly == (0.5, 1.25)
    assert found.most == 2.5
    assert found.to_json()["date"] == "2026-11-01"
    assert found.to_json()["machines"][1] == {"type": "m5.2xlarge", "count": [2, 8], "spot": True}


def test_what_has_no_price_is_unknown_and_not_nothing() -> None:
    found = of(CLUSTER, target({"m5.xlarge": 0.25}))
    assert (found.hourly, found.most) == (None, None)
    assert found.why == "target 't': prices.hourly has no price for m5.2xlarge spot"
    assert of(None, target(HOURLY)).why == "backend 'emr' does not tell what it takes"
    assert of((), target()).most == 0.0


def test_a_limit_refuses_what_may_cost_more() -> None:
    where = target(HOURLY, limit=2.4)
    with pytest.raises(TargetError, match=r"max_cost: is 2.4, but this may cost 2.50 USD"):
        check([of(CLUSTER, where)], where)
    check([of(CLUSTER, where, hours=1.9), of((), where)], where)
    check([of(CLUSTER, target(HOURLY))], target(HOURLY))


def test_a_limit_refuses_what_has_an_unknown_cost() -> None:
    where = target({}, limit=1e9)
    with pytest.raises(TargetError, match="it is unknown what this would cost:\n  cluster/c: "):
        check([of(CLUSTER, where)], where)


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ("prices.hourly = {x = -1}", "prices.hourly.x"),
        ('prices.date = "yesterday"', "prices.date"),
        ("limits.max_cost = 0", "limits.max_cost"),
        ("limits.max_coins = 1", "max_coins"),
    ],
)
def test_prices_and_limits_are_checked(tmp_path: Path, said: str, cause: str) -> None:
    file = tmp_path / "portaflow.toml"
    file.write_text(f'[targets.t]\nextends = "local"\n{said}\n')
    with pytest.raises(TargetError, match=cause):
        load_target("t", file=file)


def test_what_this_machine_does_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text(
        "name: p\ntasks:\n  - {id: a, kind: container, image: x, command: ['true']}\n"
    )
    command = [sys.executable, "-m", "portaflow", "plan", ".", "--set", "limits.max_cost=0.01"]
    out = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "costs" not in out
