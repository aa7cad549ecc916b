"""count.py TEXT COUNTS AT_LEAST: how often each word is in the lines at a URI, as JSON."""

import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

text, counts, at_least = sys.argv[1:]
spark = SparkSession.builder.getOrCreate()
words = spark.read.text(text).select(F.explode(F.split(F.lower("value"), r"\W+")).alias("word"))
found = words.where("word != ''").groupBy("word").count().where(F.col("count") >= int(at_least))
found.orderBy(F.desc("count"), "word").write.mode("overwrite").json(counts)
spark.stop()
