"""Cleans tracking events and aggregates them: lines of text in, three Parquet tables out.

An event is a line `user::item::rating`, as MovieLens writes it; a fourth field, the time,
is allowed and not used. `--scale` multiplies the events for load, always in the same way.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from value import write_value

_LINE = r"^\s*(\d{1,12})\s*::\s*(\d{1,12})\s*::\s*(-?\d{1,6}(?:\.\d{1,6})?)\s*(?:::\s*\d+\s*)?$"
_LOWEST, _HIGHEST = 1.0, 5.0
_DECIMALS = 6  # a mean is the same whatever the order in which it was summed


class NoEventsError(Exception):
    """Nothing is left to learn from."""


def parse(lines: DataFrame) -> DataFrame:
    """Events (user, item, rating) from lines (value); all three are null in a bad line.

    Blank lines are no events and not bad.
    """

    def field(group: int, kind: str) -> Column:
        text = F.regexp_extract("value", _LINE, group)
        return F.when(text != "", text.cast(kind))

    return lines.where(F.trim("value") != "").select(
        field(1, "bigint").alias("user"),
        field(2, "bigint").alias("item"),
        field(3, "double").alias("rating"),
    )


def in_range() -> Column:
    return F.col("rating").between(_LOWEST, _HIGHEST)


def scaled(events: DataFrame, scale: int) -> DataFrame:
    """Each user `scale` times. Copy 0 rates as the original, others now and then one off.

    What differs follows from a hash of user, item and copy: any run on any cluster derives
    the same events.
    """
    if scale == 1:
        return events
    parallelism = events.sparkSession.sparkContext.defaultParallelism
    copies = events.repartition(parallelism).withColumn(
        "copy", F.explode(F.sequence(F.lit(0).cast("bigint"), F.lit(scale - 1).cast("bigint")))
    )
    dice = F.pmod(F.xxhash64("user", "item", "copy"), F.lit(5))
    off = F.when(F.col("copy") == 0, 0).when(dice == 0, -1).when(dice == 1, 1).otherwise(0)
    within = F.least(F.greatest(F.col("rating") + off, F.lit(_LOWEST)), F.lit(_HIGHEST))
    user = F.col("user") * scale + F.col("copy")
    return copies.select(user.alias("user"), "item", within.alias("rating"))


def merged(events: DataFrame) -> DataFrame:
    """One row for each user and item: the mean of the ratings, and of how many events."""
    return events.groupBy("user", "item").agg(
        F.round(F.avg("rating"), _DECIMALS).alias("rating"), F.count("*").alias("events")
    )


def aggregated(ratings: DataFrame, key: str) -> DataFrame:
    """How many events there are for each `key` (user or item), and the mean rating."""
    return ratings.groupBy(key).agg(
        F.sum("events").alias("events"),
        F.round(F.avg("rating"), _DECIMALS).alias("mean_rating"),
    )


def build(
    spark: SparkSession, events: str, scale: int, ratings: str, users: str, items: str
) -> Mapping[str, int]:
    """Write the three tables and return how much was read, dropped and written.

    Raises NoEventsError, before anything is written, when no event is left.
    """
    parsed = parse(spark.read.text(events))
    counts: dict[str, int] = (
        parsed.agg(
            F.count("*").alias("lines"),
            F.count_if(F.col("user").isNull()).alias("bad"),
            F.count_if(~in_range()).alias("out_of_range"),
        )
        .collect()[0]
        .asDict()
    )
    if counts["lines"] == counts["bad"] + counts["out_of_range"]:
        raise NoEventsError(
            f"no event is left of {events}: {counts['lines']} lines, {counts['bad']} of them bad, "
            f"{counts['out_of_range']} ratings outside {_LOWEST:g} to {_HIGHEST:g}"
        )
    merged(scaled(parsed.where(in_range()), scale)).write.mode("overwrite").parquet(ratings)
    table = spark.read.parquet(ratings)
    aggregated(table, "user").write.mode("overwrite").parquet(users)
    aggregated(table, "item").write.mode("overwrite").parquet(items)
    total = table.agg(F.sum("events").alias("events"), F.count("*").alias("ratings"))
    counts |= total.collect()[0].asDict()
    return {
        **counts,
        "duplicates": counts["events"] - counts["ratings"],
        "users": spark.read.parquet(users).count(),
        "items": spark.read.parquet(items).count(),
    }


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", required=True, help="URI of the lines")
    parser.add_argument("--scale", type=positive, default=1, help="copies of each user")
    parser.add_argument("--ratings", required=True, help="URI of the table to write")
    parser.add_argument("--users", required=True, help="URI of the table to write")
    parser.add_argument("--items", required=True, help="URI of the table to write")
    parser.add_argument("--value", help="URI of the counts to write, as JSON")
    given = parser.parse_args(arguments)
    spark = SparkSession.builder.appName("features").getOrCreate()
    try:
        counts = build(spark, given.events, given.scale, given.ratings, given.users, given.items)
        if given.value:
            write_value(spark, given.value, counts)
    except NoEventsError as error:
        sys.exit(f"features: {error}")
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
