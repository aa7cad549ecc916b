"""Tells as JSON what a job sees of its arguments, conf, environment and files."""

import json
import os
import sys

import py_file_module
import wheel_module
from pyspark.sql import SparkSession


def env(keys):
    return {key: os.environ.get(key) for key in keys}


asked = json.loads(sys.argv[1])
spark = SparkSession.builder.getOrCreate()
context = spark.sparkContext
words = context.textFile(asked["text"]).flatMap(str.split)
told = {
    "args": sys.argv[2:],
    "cores": context.defaultParallelism,
    "conf": {key: context.getConf().get(key) for key in asked["conf"]},
    "driver_env": env(asked["env"]),
    "executor_env": context.parallelize([asked["env"]], 1).map(env).first(),
    "modules": [py_file_module.NAME, wheel_module.NAME],
    "executor_modules": context.parallelize([0], 1)
    .map(lambda _: [__import__(name).NAME for name in ("py_file_module", "wheel_module")])
    .first(),
    "resources": [
        context._jvm.Thread.currentThread().getContextClassLoader().getResource(name) is not None
        for name in asked["resources"]
    ],
    "words": dict(words.map(lambda word: (word, 1)).reduceByKey(lambda a, b: a + b).collect()),
}
with open(asked["told"], "w", encoding="utf-8") as file:
    json.dump(told, file)
print(os.environ["A_SECRET"])
spark.stop()
