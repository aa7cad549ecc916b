"""EC2: what machines cost on spot, of the few of `prices`. It runs none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from .prices import SINCE, machines
from .rest import Asked, RefusedError, Service, cut

_MOST = 1000
_SYSTEM = "Linux/UNIX"
_FIELDS = {
    "availability-zone": "availabilityZone",
    "instance-type": "instanceType",
    "product-description": "productDescription",
    "spot-price": "spotPrice",
}
_SHORT = {"us-east-1": "use1", "eu-central-1": "euc1"}


class Ec2(Service):
    def spot_prices(self, asked: Asked) -> dict[str, Any]:
        body = asked.body
        asks = [
            (field, values)
            for field in ("instanceType", "productDescription")
            if (values := _listed(body, f"{field[0].upper()}{field[1:]}"))
        ]
        for field in ("availabilityZone", "availabilityZoneId"):
            if value := body.get(f"{field[0].upper()}{field[1:]}"):
                asks.append((field, [value]))
        number = 1
        while name := body.get(f"Filter.{number}.Name"):
            if name not in _FIELDS:
                raise _wrong(f"The filter '{name}' is invalid")
            asks.append((_FIELDS[name], _listed(body, f"Filter.{number}.Value")))
            number += 1
        found = [
            row
            for row in _rows(asked.region)
            if all(row[field] in values for field, values in asks)
        ]
        try:
            size = min(int(body.get("MaxResults") or _MOST), _MOST)
            if size < 1:
                raise _wrong(f"Value ( {size} ) for parameter maxResults is invalid.")
            these, token = cut(found, size, body.get("NextToken", ""))
        except ValueError:
            raise _wrong("The parameter nextToken or maxResults is not recognized") from None
        return {"spotPriceHistorySet": these, "nextToken": token or ""}

    calls: ClassVar = {"DescribeSpotPriceHistory": spot_prices}


def _wrong(message: str) -> RefusedError:
    return RefusedError(400, "InvalidParameterValue", message)


def _listed(body: Mapping[str, str], name: str) -> list[str]:
    """The members of a list of a form: name.1, name.2, ..."""
    found: list[str] = []
    while (value := body.get(f"{name}.{len(found) + 1}")) is not None:
        found.append(value)
    return found


def _rows(region: str) -> list[dict[str, str]]:
    """The price in force of each machine and zone; it has been the same since the table's day."""
    return [
        {
            "instanceType": machine.type,
            "productDescription": _SYSTEM,
            "spotPrice": f"{price:.6f}",
            "timestamp": SINCE,
            "availabilityZone": f"{region}{'abcdef'[zone - 1]}",
            "availabilityZoneId": f"{_SHORT[region]}-az{zone}",
        }
        for machine in machines()
        if machine.region == region
        for zone, price in machine.spot.items()
    ]
