"""The list of prices, as Google's session sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from portaflow_conformance.emulators.clouds import Clouds
from portaflow_conformance.emulators.control import Fault

Client = Callable[..., Any]

LIST = "gcp:cloudbilling.ListSkus"
_BEGIN = """
import google.auth, requests
from google.auth.transport.requests import AuthorizedSession
scope = "https://www.googleapis.com/auth/cloud-platform"
session = AuthorizedSession(google.auth.default([scope])[0])
services = "https://cloudbilling.googleapis.com/v1/services"
url = f"{services}/6F81-5844-456A/skus"
def pages(size):
    token = ""
    while True:
        asked = {"currencyCode": "USD", "pageSize": size, "pageToken": token}
        page = session.get(url, params=asked).json()
        yield page["skus"]
        if not (token := page["nextPageToken"]):
            return
def error(answer):
    told = answer.json()["error"]
    return [answer.status_code, told["code"], told["status"]]
"""


def test_the_list_comes_in_pages(client: Client, clouds: Clouds) -> None:
    whole, pages, sizes, names = client(
        _BEGIN
        + """
whole = session.get(url).json()["skus"]
found = list(pages(20))
told = [whole, [sku for page in found for sku in page], [len(page) for page in found],
        [sku["name"] for sku in whole]]
"""
    )
    assert pages == whole
    assert sizes == [20] * (len(whole) // 20) + [len(whole) % 20]
    assert len(set(names)) == len(names)
    assert clouds.control.seen(LIST)[-1].params["service"] == "6F81-5844-456A"


def test_a_thing_in_the_list_is_as_google_writes_it(client: Client) -> None:
    told = client(_BEGIN + "told = {s['description']: s for s in session.get(url).json()['skus']}")
    core = told["N2 Instance Core running in Belgium"]
    assert core["serviceRegions"] == ["europe-west1"]
    assert core["category"] == {
        "serviceDisplayName": "Compute Engine",
        "resourceFamily": "Compute",
        "resourceGroup": "CPU",
        "usageType": "OnDemand",
    }
    (info,) = core["pricingInfo"]
    assert info["effectiveTime"] == "2024-11-27T00:00:00Z"
    expression = info["pricingExpression"]
    assert (expression["usageUnit"], expression["baseUnitConversionFactor"]) == ("h", 3600)
    price = {"currencyCode": "USD", "units": "0", "nanos": 34773000}
    assert expression["tieredRates"] == [{"startUsageAmount": 0, "unitPrice": price}]
    dear = told["Licensing Fee for SQL Server 2016 Standard on VM with 18 VCPU"]
    rate = dear["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"]
    assert (rate["units"], rate["nanos"], dear["serviceRegions"]) == ("2", 961000000, ["global"])
    spot = told["Spot Preemptible N2 Instance Ram running in Americas"]
    assert spot["category"]["usageType"] == "Preemptible"
    assert spot["pricingInfo"][0]["pricingExpression"]["usageUnit"] == "GiBy.h"
    for like in ("N2D AMD", "N2 Custom", "N2 Sole Tenancy", "DWS Defined Duration N2"):
        assert f"{like} Instance Core running in Belgium" in told


def test_who_may_not_and_what_is_not_there(client: Client, clouds: Clouds) -> None:
    clouds.control.order(Fault(effect="throttle", operation=LIST))
    clouds.control.order(Fault(effect="deny", operation=LIST))
    told = client(
        _BEGIN
        + """
told += [error(session.get(url))]
denied = session.get(url)
told += [error(denied), denied.json()["error"]["details"][0]["reason"]]
told += [error(session.get(url, params={"pageToken": "x"}))]
told += [error(session.get(url, params={"pageSize": "many"}))]
told += [error(session.get(f"{services}/0000-0000-0000/skus")), error(session.get(services))]
told += [error(session.post(url, json={}))]
told += [error(requests.get(url)), error(
    requests.get(url, headers={"Authorization": "Bearer made-up"}))]
"""
    )
    assert told == [
        *([429, 429, "RESOURCE_EXHAUSTED"], [403, 403, "PERMISSION_DENIED"], "SERVICE_DISABLED"),
        *[[400, 400, "INVALID_ARGUMENT"]] * 2,
        *[[404, 404, "NOT_FOUND"]] * 3,
        *[[401, 401, "UNAUTHENTICATED"]] * 2,
    ]


def test_deviation_cloudbilling_some(client: Client) -> None:
    told = client(
        _BEGIN
        + """
whole = session.get(url).json()["skus"]
told += [sorted({region for sku in whole for region in sku["serviceRegions"]})]
told += [error(session.get(url, params={"currencyCode": "EUR"}))[2]]
told += [error(session.get(url, params={"startTime": "2026-01-01T00:00:00Z"}))[2]]
"""
    )
    assert told == [
        ["europe-west1", "global", "us-central1", "us-east1", "us-west1"],
        *["UNIMPLEMENTED"] * 2,
    ]
