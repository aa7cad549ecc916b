"""Fails on an executor, after it has said something of its own."""

from pyspark.sql import SparkSession

context = SparkSession.builder.getOrCreate().sparkContext
print("so far so good")
context.parallelize([2, 1, 0], 1).map(lambda n: 1 // n).collect()
