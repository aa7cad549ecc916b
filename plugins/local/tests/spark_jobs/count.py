"""Counts the words of a file and writes how many there are."""

import sys

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
words = spark.read.text(sys.argv[1]).selectExpr("explode(split(value, ' ')) as word")
counts = words.groupBy("word").count()
counts.write.parquet(sys.argv[2])
spark.stop()
