"""Adds orders up by country. The sum of all comes back as the task's value."""

import argparse
import csv
import json
import os
from collections import defaultdict

import fsspec


def totals(lines: list[str]) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    for line in lines:
        order = json.loads(line)
        sums[order["country"]] += order["amount"]
    return {country: round(amount, 2) for country, amount in sorted(sums.items())}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", required=True)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    with fsspec.open(f"{args.events}/orders.jsonl", "r") as file:
        lines = file.readlines()
    sums = totals(lines)
    with fsspec.open(f"{args.output}/totals.csv", "w", auto_mkdir=True) as file:
        csv.writer(file).writerows([("country", "amount"), *sums.items()])
    with fsspec.open(os.environ["PORTAFLOW_RESULT"], "w", auto_mkdir=True) as file:
        json.dump({"orders": len(lines), "amount": round(sum(sums.values()), 2)}, file)
    print(f"added {len(lines)} orders up")


if __name__ == "__main__":
    main()
