"""What an hour of a machine of EMR costs by AWS's own lists: EC2's price, and EMR's on top of it.

What is attached to a machine, such as disks, is not in it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from portaflow.backend import Machines

from .connect import Access, Aws, connect, told

OR = " or "  # between the types of a fleet, which takes what there is
_LISTS = "us-east-1"  # answers for all regions; most others do not answer at all
_ABOUT = {
    "AmazonEC2": {
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "marketoption": "OnDemand",
    },
    "ElasticMapReduce": {
        "productFamily": "Elastic Map Reduce Instance",
        "softwareType": "EMR",
    },
}
"""What a list calls a plain machine on demand."""


def hourly(aws: Aws, machines: Collection[Machines]) -> Mapping[str, float]:
    """`Machines.key` -> US dollars at most, of each whose price AWS tells in full."""
    if aws.client("sts").meta.partition != "aws":
        return {}  # the others have lists of their own
    on_spot = _spot(aws, {t for m in machines if m.spot for t in m.type.split(OR)})

    listed = functools.cache(functools.partial(_listed, aws))

    def cost(type: str, spot: bool) -> Decimal | None:
        emr = listed("ElasticMapReduce", type)
        ec2 = on_spot.get(type) if spot else listed("AmazonEC2", type)
        return None if emr is None or ec2 is None else emr + ec2

    found = {}
    for each in machines:
        costs = [cost(type, each.spot) for type in each.type.split(OR)]
        known = [one for one in costs if one is not None]
        if len(known) == len(costs):
            found[each.key] = float(max(known))
    return found


def _listed(aws: Aws, service: str, type: str) -> Decimal | None:
    """The dearest price on demand that the list has for a type in the region."""
    mine = aws.access
    access = Access(connection=mine.connection, profile=mine.profile, region=_LISTS)
    wanted = {"instanceType": type, "regionCode": aws.region, **_ABOUT[service]}
    filters = [{"Type": "TERM_MATCH", "Field": k, "Value": v} for k, v in wanted.items()]
    with told(f"price of {type} (pricing:GetProducts)", access):
        pages = connect(access).client("pricing").get_paginator("get_products")
        offers = [
            json.loads(offer)
            for page in pages.paginate(ServiceCode=service, Filters=filters)
            for offer in page["PriceList"]
        ]
    return max((price for offer in offers for price in _hours(offer)), default=None)


def _hours(offer: Mapping[str, Any]) -> Iterator[Decimal]:
    """What an hour costs; 0 is the price of what was paid for before."""
    for term in offer["terms"].get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            price = Decimal(dimension["pricePerUnit"].get("USD", "0"))
            if dimension["unit"] == "Hrs" and price > 0:
                yield price


def _spot(aws: Aws, types: Collection[str]) -> Mapping[str, Decimal]:
    """The price in force of each type in its dearest zone."""
    found: dict[str, Decimal] = {}
    if not types:  # which would mean all
        return found
    wanted = {"InstanceTypes": sorted(types), "ProductDescriptions": ["Linux/UNIX"]}
    what = f"spot price of {', '.join(sorted(types))} (ec2:DescribeSpotPriceHistory)"
    with told(what, aws.access):
        pages = aws.client("ec2").get_paginator("describe_spot_price_history")
        for page in pages.paginate(StartTime=datetime.now(UTC), **wanted):
            for row in page["SpotPriceHistory"]:
                price, type = Decimal(row["SpotPrice"]), row["InstanceType"]
                found[type] = max(price, found.get(type, price))
    return found
