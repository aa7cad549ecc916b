"""Hangs on an executor, with a child of its own that ignores signals."""

import pathlib
import subprocess
import sys
import time

from pyspark.sql import SparkSession


def hang(path):
    subprocess.Popen(["sh", "-c", "trap '' HUP TERM; while :; do sleep 1; done"])
    pathlib.Path(path).touch()
    time.sleep(600)


SparkSession.builder.getOrCreate().sparkContext.parallelize(sys.argv[1:], 1).foreach(hang)
