"""What machines of EMR cost: by which lists, and what is done when they do not tell."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from botocore.stub import Stubber
from portaflow_aws.connect import Access, connect
from portaflow_aws.emr import Config, Emr

from portaflow.backend import Machines, Size
from portaflow.errors import DeniedError, UnavailableError

from .field import Field

LIST, SPOT = "aws:pricing.GetProducts", "aws:ec2.DescribeSpotPriceHistory"


def test_on_demand_both_prices_are_added(field: Field) -> None:
    before = field.control.count(LIST), field.control.count(SPOT)
    request = field.cluster_request(field.name(), size=Size(cpu=8, memory=32), workers=(2, 4))
    machines = field.emr.clusters.machines(request)
    told = field.emr.clusters.prices([*machines, *machines])
    assert told == {"m6i.xlarge": 0.24, "m6i.2xlarge": 0.48}
    after = field.control.count(LIST), field.control.count(SPOT)
    assert after == (before[0] + 4, before[1])  # each type is asked for once, spot not at all


def test_on_spot_the_dearest_zone_counts(field: Field) -> None:
    before = field.control.count(SPOT)
    request = field.cluster_request(field.name(), spot=True, workers=(2, 2))
    told = field.emr.clusters.prices(field.emr.clusters.machines(request))
    assert told == {"m6i.xlarge": 0.24, "c6i.xlarge spot": 0.116}
    assert field.control.count(SPOT) == before + 1
    (call,) = field.control.seen(SPOT)[-1:]
    assert (call.params["InstanceType.1"], call.params["ProductDescription.1"]) == (
        "c6i.xlarge",
        "Linux/UNIX",
    )


def test_of_a_fleet_the_dearest_type_counts(field: Field) -> None:
    for spot, cost in ((False, 0.24), (True, 0.1366)):
        types = ("c6i.xlarge", "m6i.xlarge")
        one = Field(field.clouds, instances="fleets", instance_types=types)
        request = one.cluster_request(one.name(), spot=spot, workers=(1, 1))
        (_, core) = one.emr.clusters.machines(request)
        assert one.emr.clusters.prices([core]) == {core.key: cost}
        assert core.type == "c6i.xlarge or m6i.xlarge"


def test_each_region_has_its_prices_and_one_list(field: Field) -> None:
    europe = Emr(Config(region="eu-central-1")).clusters
    told = europe.prices([Machines(type="m6i.xlarge"), Machines(type="m6i.xlarge", spot=True)])
    assert told == {"m6i.xlarge": 0.2875, "m6i.xlarge spot": 0.1612}


def test_what_is_not_told_in_full_is_left_out(field: Field) -> None:
    known = Machines(type="m6i.xlarge")
    unknown = [
        Machines(type="m1.none"),
        Machines(type="m1.none", spot=True),
        Machines(type="m6i.xlarge or m1.none"),
        Machines(type="m6i.xlarge or m1.none", spot=True),
    ]
    assert field.emr.clusters.prices([*unknown, known]) == {"m6i.xlarge": 0.24}
    assert field.emr.clusters.prices([]) == {}


def test_who_may_not_ask_is_told_what_for(field: Field) -> None:
    field.fault("deny", "pricing.GetProducts")
    with pytest.raises(DeniedError) as caught:
        field.emr.clusters.prices([Machines(type="m6i.xlarge")])
    assert str(caught.value).startswith("price of m6i.xlarge (pricing:GetProducts): AccessDenied")
    assert "give its role or user the right to do this" in str(caught.value)
    field.fault("deny", "ec2.DescribeSpotPriceHistory")
    with pytest.raises(DeniedError, match=r"\(ec2:DescribeSpotPriceHistory\): Unauth.*the right"):
        field.emr.clusters.prices([Machines(type="m6i.xlarge", spot=True)])


def test_who_asks_too_often_may_ask_again(field: Field) -> None:
    for call in ("pricing.GetProducts", "ec2.DescribeSpotPriceHistory"):
        field.fault("throttle", call)
        with pytest.raises(UnavailableError, match="xceeded"):
            field.emr.clusters.prices([Machines(type="m6i.xlarge", spot=True)])


def offer(*prices: tuple[str, str]) -> str:
    dimensions = {
        str(n): {"unit": unit, "pricePerUnit": {"USD": usd}} for n, (unit, usd) in enumerate(prices)
    }
    return json.dumps({"terms": {"OnDemand": {"t": {"priceDimensions": dimensions}}}})


def test_of_several_prices_on_all_pages_the_dearest_hour_counts(field: Field) -> None:
    """The local AWS has one price for a machine: the answers are botocore's own stub's."""
    answers: list[dict[str, Any]] = [
        {"PriceList": [offer(("Hrs", "0.1"))]},  # EMR's
        {"PriceList": [offer(("Hrs", "0.2"), ("Quantity", "9"))], "NextToken": "more"},
        {"PriceList": [offer(("Hrs", "0.3")), offer(("Hrs", "0")), '{"terms": {}}']},
    ]
    with Stubber(connect(Access(region="us-east-1")).client("pricing")) as stub:
        for answer in answers:
            stub.add_response("get_products", answer)
        assert field.emr.clusters.prices([Machines(type="x9.large")]) == {"x9.large": 0.4}
        stub.assert_no_pending_responses()
        stub.add_response("get_products", {"PriceList": [offer(("Hrs", "0.1"))]})
        stub.add_response("get_products", {"PriceList": [offer(("Hrs", "0"))]})
        assert field.emr.clusters.prices([Machines(type="x9.large")]) == {}


def test_other_partitions_tell_nothing_and_are_not_asked(field: Field) -> None:
    before = field.control.count(LIST)
    china = Emr(Config(region="cn-north-1")).clusters
    assert china.prices([Machines(type="m6i.xlarge")]) == {}
    assert field.control.count(LIST) == before


def test_no_sdk_is_imported_before_a_price_is_asked_for() -> None:
    code = (
        "import sys\nfrom portaflow_aws.emr import Config, Emr\nEmr(Config()).clusters\n"
        "print('portaflow_aws.prices' in sys.modules, {'boto3', 'botocore'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[0] == "True set()"
