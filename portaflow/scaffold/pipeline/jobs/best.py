"""The largest order of each country, in Spark."""

import argparse

from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", required=True)
    parser.add_argument("--output", required=True)
    args = parser.parse_args()
    spark = SparkSession.builder.appName("best").getOrCreate()
    orders = spark.read.json(args.events)
    best = orders.groupBy("country").agg(F.max("amount").alias("amount"))
    best.coalesce(1).write.mode("overwrite").parquet(args.output)
    spark.stop()


if __name__ == "__main__":
    main()
