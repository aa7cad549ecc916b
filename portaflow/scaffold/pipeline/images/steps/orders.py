"""Makes orders: the same ones each time, as JSON lines."""

import argparse
import json
import random

import fsspec


def orders(count: int) -> list[dict[str, object]]:
    dice = random.Random(7)
    countries = ["BR", "DE", "IN", "KE", "US"]
    return [
        {"order": n, "country": dice.choice(countries), "amount": round(dice.expovariate(0.02), 2)}
        for n in range(count)
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    # A URI in, a URI out: this file knows neither portaflow nor the cloud it runs on.
    with fsspec.open(f"{args.output}/orders.jsonl", "w", auto_mkdir=True) as file:
        for order in orders(args.count):
            file.write(json.dumps(order) + "\n")
    print(f"wrote {args.count} orders to {args.output}")


if __name__ == "__main__":
    main()
