"""Write rows with Spark, or count those that are there. Knows the stores by their URIs alone.

tally.py rows OUTPUT        tally.py count INPUT RESULT
"""

import sys

from pyspark.sql import SparkSession

spark = SparkSession.builder.getOrCreate()
match sys.argv[1:]:
    case ["rows", output]:
        spark.range(1000).repartition(2).write.parquet(output)
    case ["count", rows, output]:
        counted = spark.read.parquet(rows).count()
        spark.createDataFrame([(f"token {counted}",)], "value string").coalesce(1).write.text(
            output
        )
