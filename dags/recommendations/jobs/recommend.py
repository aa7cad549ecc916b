"""Recommends items to users: ratings and factors in, the best unseen items of each user out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from value import write_value

_DECIMALS = 6
_EXAMPLES = 3  # users, and items of each, that are shown


def ranked(
    ratings: DataFrame,
    items: DataFrame,
    user_factors: DataFrame,
    item_factors: DataFrame,
    top_n: int,
) -> DataFrame:
    """The `top_n` best items (user, rank, item, score) that each user has not rated.

    A tie goes to the item with more events, then to the lower number.
    """
    seen = ratings.groupBy("user").agg(F.collect_set("item").alias("seen"))
    candidates = item_factors.join(F.broadcast(items.select("item", "events")), "item").select(
        "item", "events", F.col("factors").alias("item_factors")
    )
    pairs = (
        user_factors.join(seen, "user", "left")
        .crossJoin(F.broadcast(candidates))
        .where(F.col("seen").isNull() | ~F.array_contains("seen", F.col("item")))
    )
    products = F.zip_with("factors", "item_factors", lambda a, b: a * b)
    score = F.aggregate(products, F.lit(0.0), lambda sum, product: sum + product)
    order = (F.col("score").desc(), F.col("events").desc(), F.col("item"))
    return (
        pairs.select("user", "item", "events", F.round(score, _DECIMALS).alias("score"))
        .withColumn("rank", F.row_number().over(Window.partitionBy("user").orderBy(*order)))
        .where(F.col("rank") <= top_n)
        .select("user", "rank", "item", "score")
    )


def examples(recommendations: DataFrame, users: DataFrame) -> list[dict[str, Any]]:
    """The first recommendations of the users with the most events."""
    active = users.orderBy(F.desc("events"), "user").limit(_EXAMPLES).select("user", "events")
    rows = (
        recommendations.where(F.col("rank") <= _EXAMPLES)
        .join(F.broadcast(active), "user")
        .orderBy(F.desc("events"), "user", "rank")
        .collect()
    )
    items: dict[int, list[int]] = {}
    for row in rows:
        items.setdefault(row["user"], []).append(row["item"])
    return [{"user": user, "items": best} for user, best in items.items()]


def build(
    spark: SparkSession,
    ratings: str,
    users: str,
    items: str,
    user_factors: str,
    item_factors: str,
    top_n: int,
    recommendations: str,
) -> Mapping[str, Any]:
    """Write the recommendations; return how many there are, for how many users, and a few."""
    read = spark.read.parquet
    table = ranked(read(ratings), read(items), read(user_factors), read(item_factors), top_n)
    table.write.mode("overwrite").parquet(recommendations)
    wrote = read(recommendations)
    counts = wrote.agg(
        F.count_if(F.col("rank") == 1).alias("users"), F.count("*").alias("recommendations")
    )
    return {**counts.collect()[0].asDict(), "examples": examples(wrote, read(users))}


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", required=True, help="URI of a table of features.py")
    parser.add_argument("--users", required=True, help="URI of a table of features.py")
    parser.add_argument("--items", required=True, help="URI of a table of features.py")
    parser.add_argument("--user-factors", required=True, help="URI of a table of train.py")
    parser.add_argument("--item-factors", required=True, help="URI of a table of train.py")
    parser.add_argument("--top-n", type=positive, default=10, help="items for each user")
    parser.add_argument("--recommendations", required=True, help="URI of the table to write")
    parser.add_argument("--value", help="URI of the summary to write, as JSON")
    given = vars(parser.parse_args(arguments))
    value = given.pop("value")
    spark = SparkSession.builder.appName("recommend").getOrCreate()
    try:
        summary = build(spark, **given)
        if value:
            write_value(spark, value, summary)
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
