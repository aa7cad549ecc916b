"""The Price List: what EC2 and EMR cost by the list, of the few machines of `prices`."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, ClassVar

from .prices import SINCE, Machine, machines
from .rest import Asked, RefusedError, Service, cut
from .shapes import check

REGIONS = ("us-east-1", "eu-central-1", "ap-south-1")  # where the list itself can be asked
_PLACES = {
    "us-east-1": ("US East (N. Virginia)", ""),
    "eu-central-1": ("EU (Frankfurt)", "EUC1-"),
}
_CODE = re.compile(r"[a-zA-Z0-9]+")
_FORMAT, _TERM, _RATE = "aws_v1", "JRTCKXETXF", "6YS6EN2CT7"  # the last two: on demand, by the hour
_MOST = 100

_MATCHES: Mapping[str, Callable[[str, str], bool]] = {
    "TERM_MATCH": lambda has, wanted: has == wanted,
    "EQUALS": lambda has, wanted: has == wanted,
    "CONTAINS": lambda has, wanted: wanted in has,
    "ANY_OF": lambda has, wanted: has in wanted.split(","),
    "NONE_OF": lambda has, wanted: has not in wanted.split(","),
}


class Pricing(Service):
    def products(self, asked: Asked) -> dict[str, Any]:
        body = asked.body
        try:
            check("pricing", "GetProducts", body)
        except RefusedError as error:
            raise _wrong(error.message) from None
        code = body["ServiceCode"]
        if not code:
            raise _wrong("Input Parameters are invalid. serviceCode cannot be null or empty")
        if not _CODE.fullmatch(code):
            raise _wrong("ServiceCode can only contain a-z, A-Z, 0-9")
        if body.get("FormatVersion", _FORMAT) != _FORMAT:
            raise _wrong(f"FormatVersion must be {_FORMAT}")
        if code not in _offers():
            raise RefusedError(400, "NotFoundException", f"Service {code} is not in the local AWS")
        found = [
            offer
            for offer in _offers()[code]
            if all(_matches(offer["product"], one) for one in body.get("Filters") or ())
        ]
        try:
            size = body.get("MaxResults") or _MOST
            these, token = cut(found, size, body.get("NextToken") or "")
        except ValueError:
            raise RefusedError(400, "InvalidNextTokenException", "NextToken is invalid") from None
        told = [json.dumps(offer) for offer in these]
        return {"FormatVersion": _FORMAT, "PriceList": told, "NextToken": token}

    calls: ClassVar = {"GetProducts": products}


def _wrong(message: str) -> RefusedError:
    return RefusedError(400, "InvalidParameterException", message)


def _matches(product: Mapping[str, Any], one: Mapping[str, str]) -> bool:
    has = {"productFamily": product["productFamily"], **product["attributes"]}
    has["ServiceCode"] = has["serviceCode"] = has["servicecode"]
    return one["Field"] in has and _MATCHES[one["Type"]](has[one["Field"]], one["Value"])


@functools.cache
def _offers() -> Mapping[str, list[dict[str, Any]]]:
    ec2 = [offer for machine in machines() for offer in _of_ec2(machine)]
    return {"AmazonEC2": ec2, "ElasticMapReduce": [_of_emr(machine) for machine in machines()]}


def _of_ec2(machine: Machine) -> Iterator[dict[str, Any]]:
    """What is billed for a machine that runs, and for one that is kept free or was reserved."""
    told = {
        "servicename": "Amazon Elastic Compute Cloud",
        "vcpu": str(machine.cores),
        "memory": f"{machine.memory} GiB",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "licenseModel": "No License required",
        "marketoption": "OnDemand",
        "currentGeneration": "Yes",
    }
    for system, operation, price in (
        ("Linux", "RunInstances", machine.price),
        ("Windows", "RunInstances:0002", machine.windows),
    ):
        for status, usage, cost in (
            ("Used", "BoxUsage", price),
            ("UnusedCapacityReservation", "UnusedBox", price),
            ("AllocatedCapacityReservation", "Reservation", Decimal(0)),
        ):
            more = {"operatingSystem": system, "operation": operation, "capacitystatus": status}
            yield _offer("AmazonEC2", "Compute Instance", machine, usage, cost, told | more)


def _of_emr(machine: Machine) -> dict[str, Any]:
    told = {"servicename": "Amazon Elastic MapReduce", "softwareType": "EMR", "operation": ""}
    family = "Elastic Map Reduce Instance"
    return _offer("ElasticMapReduce", family, machine, "BoxUsage", machine.emr, told)


def _offer(
    service: str,
    family: str,
    machine: Machine,
    usage: str,
    price: Decimal,
    more: Mapping[str, str],
) -> dict[str, Any]:
    location, short = _PLACES[machine.region]
    attributes = {
        "servicecode": service,
        "regionCode": machine.region,
        "location": location,
        "locationType": "AWS Region",
        "instanceType": machine.type,
        "instanceFamily": machine.kind,
        "usagetype": f"{short}{usage}:{machine.type}",
        **more,
    }
    seed = json.dumps(attributes, sort_keys=True).encode()
    sku = hashlib.sha256(seed).hexdigest()[:16].upper()
    rate = f"{sku}.{_TERM}.{_RATE}"
    dimension = {
        "unit": "Hrs",
        "beginRange": "0",
        "endRange": "Inf",
        "rateCode": rate,
        "description": f"${price} per hour of {machine.type}",
        "appliesTo": [],
        "pricePerUnit": {"USD": f"{price:.10f}"},
    }
    term = {
        "sku": sku,
        "offerTermCode": _TERM,
        "effectiveDate": SINCE,
        "termAttributes": {},
        "priceDimensions": {rate: dimension},
    }
    return {
        "product": {"productFamily": family, "attributes": attributes, "sku": sku},
        "serviceCode": service,
        "terms": {"OnDemand": {f"{sku}.{_TERM}": term}},
        "version": re.sub(r"\D", "", SINCE),
        "publicationDate": SINCE,
    }
