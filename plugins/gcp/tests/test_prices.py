"""What machines cost by the list: of their own parts alone, in their own region."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault
from portaflow_gcp import prices
from portaflow_gcp.dataproc import Config, Dataproc

from portaflow.backend import ClusterSpec, Machines, Size
from portaflow.errors import DeniedError, UnavailableError

from .field import REGION, Field

LIST = "gcp:cloudbilling.ListSkus"
FEE = 0.01


def asked(*machines: Machines, region: str = REGION) -> dict[str, float]:
    return dict(Dataproc(Config(region=region)).clusters.prices(machines))


@pytest.mark.parametrize(
    ("type", "region", "price"),
    [
        ("n2-standard-4", "us-central1", 4 * (0.031611 + FEE) + 16 * 0.004237),
        ("n2-standard-4", "europe-west1", 4 * (0.034773 + FEE) + 16 * 0.004661),
        ("n2-highmem-128", "us-east1", 128 * (0.031611 + FEE) + 864 * 0.004237),
        ("e2-standard-2", "europe-west1", 2 * (0.02399337 + FEE) + 8 * 0.00321609),
        (
            "g2-standard-24", "us-central1",
            24 * (0.024988212 + FEE) + 96 * 0.002927448 + 2 * 0.560040239,
        ),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("cloud")
def test_a_machine_costs_its_parts_and_the_fee_of_its_cores(
    type: str, region: str, price: float
) -> None:
    assert asked(Machines(type=type), region=region) == {type: pytest.approx(price)}


@pytest.mark.usefixtures("cloud")
def test_spot_has_prices_of_its_own_but_for_the_fee() -> None:
    both = [Machines(type="n2-standard-8"), Machines(type="n2-standard-8", spot=True)]
    assert asked(*both, Machines(type="g2-standard-4", spot=True)) == {
        "n2-standard-8": pytest.approx(8 * (0.034773 + FEE) + 32 * 0.004661),
        "n2-standard-8 spot": pytest.approx(8 * (0.00443 + FEE) + 32 * 0.001338),
        "g2-standard-4 spot": pytest.approx(4 * (0.00989 + FEE) + 16 * 0.001158 + 0.2219),
    }


def test_what_is_not_known_is_left_out_and_not_asked_for(cloud: Clouds) -> None:
    before = cloud.control.count(LIST)
    unknown = [Machines(type="n2d-standard-4"), Machines(type="n2-custom-4-8192")]
    assert asked(*unknown) == {}
    assert asked() == {}
    assert cloud.control.count(LIST) == before
    assert set(asked(*unknown, Machines(type="e2-standard-4"))) == {"e2-standard-4"}
    # The series is not there, or the GPU; the fee alone is no price.
    assert asked(Machines(type="n2-standard-4"), region="asia-east1") == {}
    assert asked(Machines(type="g2-standard-4"), region="us-east1") == {}


EVERY = [
    Machines(type=f"{series}-standard-4", spot=spot)
    for series in ("e2", "g2", "n2")
    for spot in (False, True)
]
Sku = dict[str, Any]


@pytest.fixture
def twice(cloud: Clouds, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Sku], Any]], None]:
    """Puts all things of the list there twice: as they are, and changed."""
    listed = prices._listed

    def twice(change: Callable[[Sku], Any]) -> None:
        def both(access: Config) -> Iterator[Mapping[str, Any]]:
            for sku in listed(access):
                yield sku
                change(other := copy.deepcopy(dict(sku)))
                yield other

        monkeypatch.setattr(prices, "_listed", both)

    return twice


def expression(sku: Sku) -> Any:
    return sku["pricingInfo"][-1]["pricingExpression"]


LIKE: Mapping[str, Callable[[Sku], Any]] = {
    "use": lambda sku: sku["category"].update(usageType="Commit1Yr"),
    "region": lambda sku: sku.update(serviceRegions=["us-central2"]),
    "unit": lambda sku: expression(sku).update(usageUnit="GiBy.mo"),
    "no price": lambda sku: sku.update(pricingInfo=[]),
}


@pytest.mark.parametrize("change", LIKE.values(), ids=LIKE.keys())
def test_what_only_looks_like_a_part_is_none(twice: Any, change: Callable[[Sku], Any]) -> None:
    def dearer(sku: Sku) -> None:
        expression(sku)["tieredRates"][-1]["unitPrice"]["units"] = "1"
        change(sku)

    before = asked(*EVERY)
    twice(dearer)
    assert asked(*EVERY) == before
    assert len(before) == len(EVERY)


def test_a_price_is_the_latest_and_not_what_is_free_at_first(twice: Any) -> None:
    def longer(sku: Sku) -> None:
        free = {"startUsageAmount": 0, "unitPrice": {"units": "0", "nanos": 0}}
        expression(sku)["tieredRates"].insert(0, free)
        sku["pricingInfo"].insert(
            0, {"pricingExpression": {"usageUnit": "h", "tieredRates": [free]}}
        )

    before = asked(*EVERY)
    twice(longer)
    assert asked(*EVERY) == before


OTHER: Mapping[str, Callable[[Sku], Any]] = {
    "of two regions": lambda sku: sku.update(serviceRegions=[REGION]),
    "of whole dollars": lambda sku: expression(sku)["tieredRates"][0]["unitPrice"].update(
        units="1"
    ),
}


@pytest.mark.parametrize("change", OTHER.values(), ids=OTHER.keys())
def test_a_part_with_two_prices_is_not_guessed(twice: Any, change: Callable[[Sku], Any]) -> None:
    twice(change)
    assert asked(*EVERY) == {}


def test_the_machines_of_a_cluster_have_prices(field: Field) -> None:
    spec = ClusterSpec(workers=(5, 5), size=Size(cpu=8, memory=32), spot=True)
    machines = field.clusters.machines(field.clusters.request("pf-c-1", spec))
    assert machines is not None
    found = field.clusters.prices(machines)
    assert found.keys() == {"e2-standard-4", "n2-standard-8", "n2-standard-8 spot"}
    assert found["n2-standard-8 spot"] < found["n2-standard-8"]


def test_the_list_is_read_to_its_last_page(cloud: Clouds, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, before = asked(*EVERY), cloud.control.count(LIST)
    monkeypatch.setattr(prices, "_PAGE", 7)
    assert asked(*EVERY) == whole
    assert cloud.control.count(LIST) > before + 10


def test_who_has_not_enabled_the_list_is_told_how(cloud: Clouds) -> None:
    cloud.control.order(Fault(effect="deny", operation=LIST))
    with pytest.raises(DeniedError) as caught:
        asked(Machines(type="e2-standard-4"))
    told = str(caught.value)
    assert told.startswith("list prices of Compute Engine: ")
    assert told.endswith("; enable it with `gcloud services enable cloudbilling.googleapis.com`")


@pytest.mark.parametrize("effect", ["throttle", "error", "reset-before", "reset-after"])
def test_trouble_that_passes_is_told_as_such(cloud: Clouds, effect: str) -> None:
    fault = Fault.parse({"effect": effect, "status": 503, "operation": LIST})
    cloud.control.order(fault)
    with pytest.raises(UnavailableError, match="list prices of Compute Engine: "):
        asked(Machines(type="e2-standard-4"))
    assert asked(Machines(type="e2-standard-4"))


def test_nothing_of_googles_is_imported_before_a_call() -> None:
    code = (
        "import sys; from portaflow.backend import Machines; "
        "from portaflow_gcp.dataproc import Config, Dataproc; "
        f"clusters = Dataproc(Config(region={REGION!r})).clusters; "
        "assert clusters.prices([Machines(type='none')]) == {}; "
        "found = [m for m in sys.modules if m.startswith(('google.', 'requests'))]; "
        "assert not found, found"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
