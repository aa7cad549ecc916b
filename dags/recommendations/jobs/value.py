"""A job's small result: JSON at a URI, written by Spark's own access to the store."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import SparkSession


def write_value(spark: SparkSession, uri: str, value: Any) -> None:
    """Write `value` to `uri`, on whatever filesystem the cluster is set up for."""
    context: Any = spark.sparkContext
    path = context._jvm.org.apache.hadoop.fs.Path(uri)
    stream = path.getFileSystem(context._jsc.hadoopConfiguration()).create(path, True)
    try:
        stream.write(bytearray(json.dumps(value).encode()))
    finally:
        stream.close()
