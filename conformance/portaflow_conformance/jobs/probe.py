"""A Spark job that writes what it sees as JSON: probe.py OUTPUT_URI ARG..."""

# ruff: noqa: T201  what it prints is its log
# mypy: ignore-errors

import json
import os
import sys

from pyspark.sql import SparkSession


def seen(_=None):
    """What Python sees here, in the driver or in an executor."""
    try:
        from conformance_dependency import WORD
    except ImportError:
        WORD = None
    env = {k: v for k, v in os.environ.items() if k.startswith("CONFORMANCE_")}
    return {"env": env, "dependency": WORD}


def main():
    output, *args = sys.argv[1:]
    context = SparkSession.builder.getOrCreate().sparkContext
    conf = {k: v for k, v in context.getConf().getAll() if k.startswith("spark.conformance.")}
    loader = context._jvm.java.lang.Thread.currentThread().getContextClassLoader()
    found = {
        "args": args,
        "conf": conf,
        "driver": seen(),
        "executor": context.parallelize([0], 1).map(seen).collect()[0],
        "jar": loader.getResource("conformance-dependency.txt") is not None,
    }
    context.parallelize([json.dumps(found)], 1).saveAsTextFile(output)
    print("probe is done")
    context.stop()


if __name__ == "__main__":
    main()
