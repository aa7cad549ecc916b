"""Write rows with Spark, read and count them. Knows the store by its URIs alone.

tally.py ROWS COUNT
"""

import sys

from pyspark.sql import SparkSession

rows, count = sys.argv[1:]
spark = SparkSession.builder.getOrCreate()
spark.range(1000).repartition(2).write.parquet(rows)
counted = spark.read.parquet(rows).count()
told = spark.createDataFrame([(f"token {counted}",)], "value string")
told.coalesce(1).write.text(count)
