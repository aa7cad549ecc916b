"""A job that needs no Spark: it fails, or stays for a while. act.py raise|exit|stay SECONDS"""

# ruff: noqa: T201  what it prints is its log
# mypy: ignore-errors

import sys
import time


def main():
    print("acting", flush=True)
    match sys.argv[1:]:
        case ["raise"]:
            raise RuntimeError("conformance-cause: this job fails on purpose")
        case ["exit"]:
            sys.exit(3)
        case ["stay", seconds]:
            time.sleep(float(seconds))
            print("stayed", flush=True)


if __name__ == "__main__":
    main()
