"""Google's list of prices: some of Compute Engine's, for who asks what machines cost.

The prices of cores and memory are those that were listed on 27 November 2024, of the GPUs and of
what lies beside them about those: they are for trying out, and no bill agrees with them. Beside
what a machine costs lies what only looks like it, as it does in the real list.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..control import Fault
from ..faults import struck
from .iam import Application
from .paging import page
from .rpc import Code, RefusedError, invalid, refuse
from .wire import Request, Response

HOST = "cloudbilling.googleapis.com"
_DAY = "2024-11-27"
_COMPUTE = "6F81-5844-456A"  # Compute Engine, whose list has Dataproc's fee, too
_SKUS = re.compile(r"/v1/services/([^/]+)/skus")
_TAKEN = frozenset(("currencyCode", "pageSize", "pageToken", "alt", "prettyPrint"))
_USUAL = 5000  # things on a page
_AMERICAS = ("us-central1", "us-east1", "us-west1")
_IOWA, _BELGIUM = ("us-central1",), ("europe-west1",)
_GLOBAL = ("global",)
_UNITS = {
    "h": ("hour", "s", "second", 3600),
    "GiBy.h": ("gibibyte hour", "By.s", "byte second", 3865470566400),
    "GiBy.mo": ("gibibyte month", "By.s", "byte second", 2.8759101014016e15),
}


@dataclass(frozen=True, slots=True)
class _Sku:
    """One thing that has a price: `price` is in US dollars, for one `unit`."""

    description: str
    regions: tuple[str, ...]
    price: float
    unit: str = "h"
    usage: str = "OnDemand"
    family: str = "Compute"
    group: str = "CPU"

    def json(self) -> dict[str, Any]:
        made = hashlib.sha256(f"{self.description} {self.regions}".encode()).hexdigest().upper()
        sku = f"{made[:4]}-{made[4:8]}-{made[8:12]}"
        unit, base, base_unit, factor = _UNITS[self.unit]
        units, nanos = divmod(round(self.price * 1e9), 10**9)
        price = {"currencyCode": "USD", "units": str(units), "nanos": nanos}
        expression = {
            "usageUnit": self.unit,
            "displayQuantity": 1,
            "tieredRates": [{"startUsageAmount": 0, "unitPrice": price}],
            "usageUnitDescription": unit,
            "baseUnit": base,
            "baseUnitDescription": base_unit,
            "baseUnitConversionFactor": factor,
        }
        info = {
            "summary": "",
            "pricingExpression": expression,
            "currencyConversionRate": 1,
            "effectiveTime": f"{_DAY}T00:00:00Z",
        }
        return {
            "name": f"services/{_COMPUTE}/skus/{sku}",
            "skuId": sku,
            "description": self.description,
            "category": {
                "serviceDisplayName": "Compute Engine",
                "resourceFamily": self.family,
                "resourceGroup": self.group,
                "usageType": self.usage,
            },
            "serviceRegions": list(self.regions),
            "pricingInfo": [info],
            "serviceProviderName": "Google",
        }


_SERIES = (
    # Which, where, an hour of a core and of a GiB, and of both as Spot.
    ("E2", "Americas", _AMERICAS, 0.02181159, 0.00292353, 0.00916, 0.001228),
    ("E2", "EMEA", _BELGIUM, 0.02399337, 0.00321609, 0.00909, 0.001217),
    ("N2", "Americas", _AMERICAS, 0.031611, 0.004237, 0.01025, 0.003086),
    ("N2", "Belgium", _BELGIUM, 0.034773, 0.004661, 0.00443, 0.001338),
    ("G2", "Iowa", _IOWA, 0.024988212, 0.002927448, 0.00884, 0.001034),
    ("G2", "Belgium", _BELGIUM, 0.02751452, 0.003223414, 0.00989, 0.001158),
    ("N2D AMD", "Americas", _AMERICAS, 0.027502, 0.003686, 0.00916, 0.002754),
    ("N2D AMD", "Belgium", _BELGIUM, 0.030253, 0.004055, 0.00602, 0.001897),
    ("N1 Predefined", "Americas", _AMERICAS, 0.031611, 0.004237, 0.00698, 0.000938),
    ("N2 Custom", "Americas", _AMERICAS, 0.03319155, 0.00444885, 0.01025, 0.003086),
    ("N2 Custom", "Belgium", _BELGIUM, 0.03651165, 0.00489405, 0.00443, 0.001338),
)
_GPUS = (
    # Which, where, its hour, and as Spot.
    ("Nvidia L4", "Iowa", _IOWA, 0.560040239, 0.252018108),
    ("Nvidia L4", "Belgium", _BELGIUM, 0.616656, 0.2219),
    ("Nvidia Tesla T4", "Iowa", _IOWA, 0.35, 0.16),
)
_OTHERS = (
    _Sku(
        "Licensing Fee for Google Cloud Dataproc (CPU cost)", _GLOBAL, 0.01,
        family="License", group="Dataproc",
    ),
    _Sku(
        "Licensing Fee for Google Cloud Dataproc (GPU cost)", _GLOBAL, 0.0,
        family="License", group="Dataproc",
    ),
    _Sku(
        "Licensing Fee for SQL Server 2016 Standard on VM with 18 VCPU", _GLOBAL, 2.961,
        family="License", group="SQLServer2016Standard",
    ),
    _Sku(
        "SSD backed PD Capacity", _AMERICAS, 0.17, unit="GiBy.mo", family="Storage", group="SSD"
    ),
)  # fmt: skip


def _all() -> Iterator[_Sku]:
    for series, place, regions, core, memory, spot_core, spot_memory in _SERIES:
        for part, group, unit, price, spot in (
            ("Core", "CPU", "h", core, spot_core),
            ("Ram", "RAM", "GiBy.h", memory, spot_memory),
        ):
            told = f"{series} Instance {part} running in {place}"
            yield _Sku(told, regions, price, unit, group=group)
            yield _Sku(f"Spot Preemptible {told}", regions, spot, unit, "Preemptible", group=group)
            if " " not in series:
                alone = f"{series} Sole Tenancy Instance {part} running in {place}"
                yield _Sku(alone, regions, price * 1.1, unit, group=group)
                promised = f"Commitment v1: {series} {group.title()} in {place} for 1 Year"
                yield _Sku(promised, regions, price * 0.63, unit, "Commit1Yr", group=group)
                booked = f"DWS Defined Duration {series} Instance {part} running in {place}"
                yield _Sku(booked, regions, price * 0.5, unit, group=group)
    for gpu, place, regions, price, spot in _GPUS:
        for among, usage, cost in (
            ("", "OnDemand", price),
            (" attached to Spot Preemptible VMs", "Preemptible", spot),
            (" attached to DWS Defined Duration VMs", "OnDemand", price * 0.5),
        ):
            yield _Sku(
                f"{gpu} GPU{among} running in {place}", regions, cost, usage=usage, group="GPU"
            )
        reserved = f"Reserved {gpu} GPU in {place}"
        yield _Sku(reserved, regions, 0.0, group="GPU")
    yield from _OTHERS


_LIST = sorted(_all(), key=lambda sku: sku.json()["skuId"])


class Billing(Application):
    """cloudbilling.googleapis.com: what is listed for Compute Engine."""

    def _answer(self, request: Request) -> Response:
        found = _SKUS.fullmatch(request.path)
        if found is None or request.method != "GET":
            text = f"{request.method} {request.path} is not in the local cloudbilling"
            raise RefusedError(Code.NOT_FOUND, text)
        service, who = found[1], self._who(request)
        asked = {"service": service, "page": request.query.get("pageToken", "")}
        fault = self._control.called("gcp:cloudbilling.ListSkus", who, **asked)
        return struck(fault, lambda: self._skus(service, request), _refused)

    def _skus(self, service: str, request: Request) -> Response:
        if service != _COMPUTE:
            raise RefusedError(Code.NOT_FOUND, f"Service services/{service} not found.")
        if more := request.query.keys() - _TAKEN:
            text = f"{', '.join(sorted(more))} of a request is not in the local cloudbilling"
            raise RefusedError(Code.UNIMPLEMENTED, text)
        if (currency := request.query.get("currencyCode", "USD")) != "USD":
            text = f"currency {currency} is not in the local cloudbilling, but USD"
            raise RefusedError(Code.UNIMPLEMENTED, text)
        size = request.query.get("pageSize", "0")
        if not size.isdecimal():
            raise invalid(f"Invalid value at 'page_size' (TYPE_INT32), \"{size}\"")
        token = request.query.get("pageToken", "")
        numbered = list(enumerate(_LIST))
        shown, token = page(numbered, int(size) or _USUAL, token, lambda one: one[0])
        return Response.json({"skus": [sku.json() for _, sku in shown], "nextPageToken": token})


def _refused(fault: Fault) -> Response:
    """Everybody may read the list: who is denied it has a project in which the API is off."""
    if fault.effect != "deny":
        return refuse(fault)
    text = (
        "Cloud Billing API has not been used in project 1 before or it is disabled. Enable it by "
        f"visiting https://console.developers.google.com/apis/api/{HOST}/overview?project=1 then "
        "retry."
    )
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "SERVICE_DISABLED",
        "domain": "googleapis.com",
        "metadata": {"service": HOST, "consumer": "projects/1"},
    }
    error = {"code": 403, "message": text, "status": "PERMISSION_DENIED", "details": [info]}
    return Response.json({"error": error}, 403)
