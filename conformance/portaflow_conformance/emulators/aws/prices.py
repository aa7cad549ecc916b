"""What machines cost in the local AWS: figures for trying out, for a few types in two regions.

EC2's are of xlarge, as a public table that is made of EC2's own answers had them when it was
looked at on 2026-11-27 (skypilot-catalog, catalogs/v7/aws/vms.csv); on demand the larger ones cost
a multiple of it, as they do there. On spot that is a guess; so is EMR's own price, a quarter of
EC2's. Windows costs 0.046 more for each core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

SINCE = "2026-11-27T00:00:00Z"

_Zones = Mapping[int, str]
_COSTS: Mapping[str, Mapping[str, tuple[str, _Zones]]] = {
    "us-east-1": {
        "c6i": ("0.17", {1: "0.0735", 2: "0.0665", 4: "0.0674", 5: "0.0632", 6: "0.0691"}),
        "m6i": ("0.192", {1: "0.0886", 2: "0.0717", 4: "0.0734", 5: "0.0777", 6: "0.0788"}),
        "r6i": ("0.252", {1: "0.1128", 2: "0.1033", 4: "0.0999", 5: "0.105", 6: "0.1088"}),
        "g5": ("1.006", {1: "0.4177", 2: "0.397", 4: "0.413", 5: "0.4028", 6: "0.4005"}),
    },
    "eu-central-1": {
        "c6i": ("0.194", {1: "0.0773", 2: "0.0814", 3: "0.0913"}),
        "m6i": ("0.23", {1: "0.1037", 2: "0.0981", 3: "0.0828"}),
        "r6i": ("0.304", {1: "0.1202", 2: "0.108", 3: "0.1111"}),
        "g5": ("1.258", {1: "0.51", 2: "0.5078", 3: "0.5144"}),
    },
}
"""Region -> family -> what an hour of xlarge costs: on demand, and on spot in each zone."""

_FAMILIES = {
    "c6i": ("Compute optimized", 8),
    "m6i": ("General purpose", 16),
    "r6i": ("Memory optimized", 32),
    "g5": ("GPU instance", 16),
}
_SIZES = {"xlarge": 1, "2xlarge": 2, "4xlarge": 4}


@dataclass(frozen=True, slots=True)
class Machine:
    """`spot`: by the number of the zone."""

    region: str
    type: str
    kind: str
    cores: int
    memory: int
    price: Decimal
    spot: Mapping[int, Decimal]

    @property
    def emr(self) -> Decimal:
        return self.price / 4

    @property
    def windows(self) -> Decimal:
        return self.price + self.cores * Decimal("0.046")


def machines() -> Iterator[Machine]:
    for region, families in _COSTS.items():
        for family, (price, zones) in families.items():
            kind, memory = _FAMILIES[family]
            for size, times in _SIZES.items():
                if family == "g5" and times > 1:  # its sizes differ by more than their number
                    continue
                spot = {zone: Decimal(cost) * times for zone, cost in zones.items()}
                yield Machine(
                    region=region,
                    type=f"{family}.{size}",
                    kind=kind,
                    cores=4 * times,
                    memory=memory * times,
                    price=Decimal(price) * times,
                    spot=spot,
                )
