"""What an hour of a machine costs by Google's list, which has its parts and no machine.

Its cores, its memory and its GPUs have a price each, by series and region, and Dataproc asks for
each core. The list is some ten thousands of things long, and cannot be asked for a few of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from portaflow.backend import Machines
from portaflow.errors import UnavailableError

from . import catalogue
from .clients import told
from .connect import Access, connect

_URL = "https://cloudbilling.googleapis.com/v1/services/6F81-5844-456A/skus"  # Compute Engine
_WHAT = "list prices of Compute Engine"
_TIMEOUT = 60.0  # seconds for a page
_PAGE = 5000  # things on it, the most that there can be
_FEE = ("Licensing Fee for Google Cloud Dataproc (CPU cost)", "OnDemand", "h")
_GPUS = {"g2": "Nvidia L4"}  # by series

_Part = tuple[str, str, str]
"""How the list names a part before it says where, for which use, and what its price is for."""


def hourly(access: Access, region: str, machines: Collection[Machines]) -> Mapping[str, float]:
    """What an hour of one of each costs in a region, in US dollars: `Machines.key` -> price.

    Left out is a type that the catalogue does not have, and one for a part of which the list has
    no price, or several.
    """
    wanted = {one.key: parts for one in machines if (parts := _parts(one))}
    found: dict[_Part, set[float]] = {part: set() for parts in wanted.values() for part in parts}
    for sku in _listed(access) if found else ():
        part = _part(sku)
        if part in found and not {region, "global"}.isdisjoint(sku["serviceRegions"]):
            found[part].add(_price(sku))
    return {
        key: sum(many * min(found[part]) for part, many in parts.items())
        for key, parts in wanted.items()
        if all(len(found[part]) == 1 for part in parts)
    }


def _parts(machines: Machines) -> Mapping[_Part, float] | None:
    """How many of which parts one of the machines has; None when the catalogue has it not."""
    if (kind := catalogue.known(machines.type)) is None:
        return None
    series = kind.name.partition("-")[0]
    before, usage = ("Spot Preemptible ", "Preemptible") if machines.spot else ("", "OnDemand")
    instance = f"{before}{series.upper()} Instance"
    parts: dict[_Part, float] = {
        (f"{instance} Core", usage, "h"): kind.cpu,
        (f"{instance} Ram", usage, "GiBy.h"): kind.memory,
        _FEE: kind.cpu,
    }
    if kind.gpu:
        attached = " attached to Spot Preemptible VMs" if machines.spot else ""
        # Of another series it is not known which it has: the list has no such GPU.
        parts[f"{_GPUS.get(series)} GPU{attached}", usage, "h"] = kind.gpu
    return parts


def _part(sku: Mapping[str, Any]) -> _Part | None:
    """Which part something in the list is; a word more makes it another."""
    if not sku.get("pricingInfo"):
        return None
    name = sku["description"].partition(" running in ")[0]
    return name, sku["category"]["usageType"], _latest(sku)["usageUnit"]


def _price(sku: Mapping[str, Any]) -> float:
    """What one costs, when what is free of it is used up."""
    price = _latest(sku)["tieredRates"][-1]["unitPrice"]
    return float(int(price.get("units", 0)) + price.get("nanos", 0) / 1e9)


def _latest(sku: Mapping[str, Any]) -> Mapping[str, Any]:
    expression: Mapping[str, Any] = sku["pricingInfo"][-1]["pricingExpression"]
    return expression


def _listed(access: Access) -> Iterator[Mapping[str, Any]]:
    """All that Compute Engine has a price for, page by page."""
    from google.auth.transport.requests import AuthorizedSession

    with told(_WHAT):
        session: Any = AuthorizedSession(connect(access).credentials)  # type: ignore[no-untyped-call]
    with session:
        token: str | None = ""
        while token is not None:
            page = _page(session, token)
            yield from page.get("skus", ())
            token = page.get("nextPageToken") or None


def _page(session: Any, token: str) -> Mapping[str, Any]:
    from google.api_core import exceptions

    asked = {"currencyCode": "USD", "pageSize": _PAGE, "pageToken": token}
    with told(_WHAT):
        try:
            answer = session.get(_URL, params=asked, timeout=_TIMEOUT)
            if not answer.ok:
                raise exceptions.from_http_response(answer)  # type: ignore[no-untyped-call]
            page: Mapping[str, Any] = answer.json()
        except OSError as error:  # a connection, or half an answer
            raise UnavailableError(f"{_WHAT}: {error}") from error
    return page
