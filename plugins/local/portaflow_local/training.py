"""The Spark job whose classes are archived (see archive.py): a little of what most jobs do."""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession, Window
from pyspark.sql import functions as F


def main(folder: str) -> None:
    spark = SparkSession.builder.config("spark.sql.shuffle.partitions", "2").getOrCreate()
    numbers = spark.range(1000).withColumn("key", F.col("id") % 10)
    for form in ("parquet", "csv", "json"):
        numbers.write.mode("overwrite").format(form).save(f"{folder}/{form}")
    read = spark.read.parquet(f"{folder}/parquet")
    sums = read.groupBy("key").agg(F.sum("id").alias("total"), F.count("*").alias("number"))
    ranked = read.withColumn("rank", F.row_number().over(Window.partitionBy("key").orderBy("id")))
    joined = ranked.filter(F.col("rank") <= 3).join(sums, "key").dropDuplicates(["id"])
    joined.write.mode("overwrite").parquet(f"{folder}/joined")
    csv = spark.read.option("inferSchema", True).csv(f"{folder}/csv")
    csv.join(spark.read.json(f"{folder}/json"), csv["_c0"] == F.col("id"), "left_anti").count()
    double = F.udf(lambda value: value * 2, "long")
    sums.select(double("total").alias("double")).orderBy("double").collect()
    sums.createOrReplaceTempView("sums")
    spark.sql("select key, explode(sequence(1, number)) from sums where total > 0").collect()
    lines = spark.sparkContext.textFile(f"{folder}/csv")
    words = lines.flatMap(lambda line: line.split(",")).map(lambda word: (word, 1))
    words.reduceByKey(lambda a, b: a + b).count()
    spark.stop()


if __name__ == "__main__":
    main(sys.argv[1])
