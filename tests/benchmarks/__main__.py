"""`python -m tests.benchmarks [NAME...]`: measure, print a table, exit 1 past a bound."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    *("startup", "plans", "tasks", "store", "buckets", "memory", "clouds", "s3"),
    *("status", "cadence", "transfer", "demo"),
)


def main(names: list[str]) -> int:
    if unknown := set(names) - set(NAMES):
        sys.exit(f"there is no benchmark {unknown.pop()!r}; known: {', '.join(NAMES)}")
    print("| figure | value | bound | against |\n|---|---|---|---|", flush=True)
    bad = 0
    for name in names or NAMES:
        for figure in importlib.import_module(f"tests.benchmarks.{name}").measure():
            mark = "" if figure.good else " (missed)"
            value = f"{figure.value:.3g} {figure.unit}"
            print(f"| {figure.name} | {value} | {figure.bound}{mark} | {figure.peer} |", flush=True)
            bad += not figure.good
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
