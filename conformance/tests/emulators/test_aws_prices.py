"""The price list of AWS and EC2's spot prices, as unmodified clients are told them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto")
pytest.importorskip("boto3")

from portaflow_conformance.emulators.clouds import Clouds, emulate
from portaflow_conformance.emulators.control import Fault

from .aws_client import python

_CLIENTS = """
pricing, ec2 = boto3.client("pricing", region_name="us-east-1"), boto3.client("ec2")
def products(code, size=100, kind="TERM_MATCH", **fields):
    filters = [{"Type": kind, "Field": name, "Value": value} for name, value in fields.items()]
    pages = pricing.get_paginator("get_products").paginate(
        ServiceCode=code, Filters=filters, PaginationConfig={"PageSize": size})
    return [json.loads(text) for page in pages for text in page["PriceList"]]
def costs(found):
    return [(dimension["unit"], dimension["pricePerUnit"]["USD"]) for one in found
            for term in one["terms"]["OnDemand"].values()
            for dimension in term["priceDimensions"].values()]
def spot(client=ec2, size=1000, **params):
    pages = client.get_paginator("describe_spot_price_history").paginate(
        PaginationConfig={"PageSize": size}, **params)
    return [row for page in pages for row in page["SpotPriceHistory"]]
def said(client, operation, **params):
    try:
        getattr(client, operation)(**params)
    except ClientError as error:
        told = error.response
        return told["Error"]["Code"], told["ResponseMetadata"]["HTTPStatusCode"]
"""
_LINUX = (
    'operatingSystem="Linux", tenancy="Shared", preInstalledSw="NA", capacitystatus="Used", '
    'marketoption="OnDemand"'
)


@pytest.fixture(scope="module")
def local_aws() -> Iterator[Clouds]:
    with emulate("aws", pace=0) as clouds:
        yield clouds


@pytest.fixture
def clouds(local_aws: Clouds) -> Iterator[Clouds]:
    yield local_aws
    local_aws.control.clear()


@pytest.fixture
def client(clouds: Clouds, tmp_path: Path) -> Callable[[str], list[str]]:
    """The lines that an unmodified client prints."""
    return lambda code: python(_CLIENTS + code, clouds.environ(), tmp_path).splitlines()


def test_a_machine_costs_what_the_list_has_for_it(client: Callable[[str], list[str]]) -> None:
    assert client(
        f"""
for region in ("us-east-1", "eu-central-1"):
    here = {{"instanceType": "m6i.2xlarge", "regionCode": region}}
    print(costs(products("AmazonEC2", **here, {_LINUX})),
          costs(products("ElasticMapReduce", softwareType="EMR",
                         productFamily="Elastic Map Reduce Instance", **here)))
(one,) = products("AmazonEC2", instanceType="g5.xlarge", regionCode="us-east-1", {_LINUX})
print(one["serviceCode"], one["product"]["attributes"]["location"], len(one["product"]["sku"]))
"""
    ) == [
        "[('Hrs', '0.3840000000')] [('Hrs', '0.0960000000')]",
        "[('Hrs', '0.4600000000')] [('Hrs', '0.1150000000')]",
        "AmazonEC2 US East (N. Virginia) 16",
    ]


def test_each_filter_counts_and_pages_hold_all(client: Callable[[str], list[str]]) -> None:
    told = client(
        """
m6i = {"instanceType": "m6i.xlarge", "regionCode": "us-east-1"}
every = products("AmazonEC2", **m6i)
def names(found):
    return sorted({one["product"]["attributes"]["operatingSystem"] for one in found})
print(names(every), len(every), len(products("AmazonEC2", capacitystatus="Used", **m6i)))
print(products("AmazonEC2", size=4, **m6i) == every)
print(names(products("AmazonEC2", kind="ANY_OF", operatingSystem="Linux,RHEL")),
      names(products("AmazonEC2", kind="NONE_OF", operatingSystem="Linux,RHEL")),
      len(products("AmazonEC2", kind="CONTAINS", usagetype="EUC1-")) > 0,
      products("AmazonEC2", colour="green"), products("AmazonEC2", instanceType="m1.none"))
first = pricing.get_products(ServiceCode="AmazonEC2", MaxResults=1)
print(len(first["PriceList"]), bool(first["NextToken"]), first["FormatVersion"])
"""
    )
    assert told == [
        "['Linux', 'Windows'] 6 2",
        "True",
        "['Linux'] ['Windows'] True [] []",
        "1 True aws_v1",
    ]


def test_the_list_refuses_what_it_does_not_take(client: Callable[[str], list[str]]) -> None:
    told = client(
        """
print(said(pricing, "get_products", ServiceCode="AmazonNone"),
      said(pricing, "get_products", ServiceCode=""),
      said(pricing, "get_products", ServiceCode="Amazon EC2"),
      said(pricing, "get_products", ServiceCode="AmazonEC2", NextToken="none"),
      said(pricing, "describe_services"))
print(said(pricing, "get_products", ServiceCode="AmazonEC2", MaxResults=101),
      said(pricing, "get_products", ServiceCode="AmazonEC2", FormatVersion="v2"),
      said(pricing, "get_products", ServiceCode="AmazonEC2",
           Filters=[{"Type": "LIKE", "Field": "tenancy", "Value": "Shared"}]))
"""
    )
    wrong = ("InvalidParameterException", 400)
    assert told == [
        f"('NotFoundException', 400) {wrong} {wrong} ('InvalidNextTokenException', 400) "
        "('NotImplemented', 501)",
        f"{wrong} {wrong} {wrong}",
    ]


def test_spot_prices_are_told_for_each_zone(client: Callable[[str], list[str]]) -> None:
    told = client(
        """
import datetime
now = datetime.datetime.now(datetime.UTC)
asks = {"ProductDescriptions": ["Linux/UNIX"], "StartTime": now}
two = spot(InstanceTypes=["c6i.xlarge", "m6i.xlarge"], **asks)
print(len(two), two[0]["Timestamp"] < now, two[0]["ProductDescription"])
print(spot(size=3, InstanceTypes=["c6i.xlarge", "m6i.xlarge"], **asks) == two)
europe = boto3.client("ec2", region_name="eu-central-1")
print([(row["AvailabilityZone"], row["SpotPrice"])
       for row in spot(europe, InstanceTypes=["m6i.xlarge"], **asks)])
print(len(spot(europe, AvailabilityZone="eu-central-1a", InstanceTypes=["m6i.xlarge"])),
      len(spot(europe, Filters=[{"Name": "instance-type", "Values": ["m6i.xlarge"]},
                                {"Name": "spot-price", "Values": ["0.098100"]}])),
      spot(ProductDescriptions=["Windows"]), spot(InstanceTypes=["m1.medium"]))
print(said(ec2, "describe_spot_price_history", Filters=[{"Name": "colour", "Values": ["red"]}]),
      said(ec2, "describe_spot_price_history", NextToken="none"),
      said(ec2, "describe_instances"))
key = boto3.Session().get_credentials().access_key
wrong = boto3.client("ec2", aws_access_key_id=key, aws_secret_access_key="wrong")
print(said(wrong, "describe_spot_price_history"))
"""
    )
    assert told == [
        "10 True Linux/UNIX",
        "True",
        "[('eu-central-1a', '0.103700'), ('eu-central-1b', '0.098100'), "
        "('eu-central-1c', '0.082800')]",
        "1 1 [] []",
        "('InvalidParameterValue', 400) ('InvalidParameterValue', 400) ('NotImplemented', 501)",
        "('AuthFailure', 401)",
    ]


def test_deviation_ec2_spot(client: Callable[[str], list[str]]) -> None:
    told = client(
        """
print(len({row["Timestamp"] for row in spot()}), len({row["InstanceType"] for row in spot()}))
print(spot(boto3.client("ec2", region_name="eu-west-3")), said(ec2, "run_instances",
      ImageId="ami-1", MinCount=1, MaxCount=1))
"""
    )
    assert told == ["1 10", "[] ('NotImplemented', 501)"]


def test_deviation_price_list(client: Callable[[str], list[str]]) -> None:
    told = client(
        """
print(said(pricing, "get_products", ServiceCode="AmazonS3"),
      products("AmazonEC2", regionCode="eu-west-3"))
for machine in ("c6i.xlarge", "r6i.4xlarge"):
    here = {"instanceType": machine, "regionCode": "us-east-1"}
    ((_, own),) = costs(products("ElasticMapReduce", **here))
    _, ec2s = max(costs(products("AmazonEC2", operatingSystem="Linux", **here)))
    print(float(own) == float(ec2s) / 4)
"""
    )
    assert told == ["('NotFoundException', 400) []", "True", "True"]


def test_faults_strike_both(clouds: Clouds, client: Callable[[str], list[str]]) -> None:
    calls = ("pricing.GetProducts", "ec2.DescribeSpotPriceHistory")
    before = [clouds.control.count(f"aws:{call}") for call in calls]
    for call in calls:
        clouds.control.order(Fault(effect="throttle", operation=f"aws:{call}"))
        clouds.control.order(Fault(effect="deny", operation=f"aws:{call}"))
    told = client(
        """
from botocore.config import Config
once = Config(retries={"total_max_attempts": 1})
pricing, ec2 = (boto3.client(name, config=once) for name in ("pricing", "ec2"))
for _ in range(3):
    print(said(pricing, "get_products", ServiceCode="AmazonEC2"),
          said(ec2, "describe_spot_price_history"))
"""
    )
    assert told == [
        "('ThrottlingException', 400) ('RequestLimitExceeded', 503)",
        "('AccessDeniedException', 400) ('UnauthorizedOperation', 403)",
        "None None",
    ]
    after = [clouds.control.count(f"aws:{call}") for call in calls]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 3]
    assert clouds.control.seen("aws:pricing.GetProducts")[-1].params["ServiceCode"] == "AmazonEC2"
