"""Who is recommended what, in which order."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.spark

Pairs = list[tuple[int, int]]
Factors = dict[int, list[float]]


def ranked(
    recommend: ModuleType,
    spark: Any,
    seen: Pairs,
    users: Factors,
    items: Factors,
    events: dict[int, int] | None = None,
    top_n: int = 10,
) -> list[tuple[int, int, int, float]]:
    """Recommendations of small tables, sorted by user and rank."""
    counts = [(item, (events or {}).get(item, 1)) for item in items]
    table = recommend.ranked(
        spark.createDataFrame(seen, "user long, item long"),
        spark.createDataFrame(counts, "item long, events long"),
        spark.createDataFrame(list(users.items()), "user long, factors array<double>"),
        spark.createDataFrame(list(items.items()), "item long, factors array<double>"),
        top_n,
    )
    return sorted(tuple(row) for row in table.collect())


def test_the_best_come_first_and_at_most_so_many(recommend: ModuleType, spark: Any) -> None:
    items = {1: [1.0, 0.0], 2: [3.0, 0.0], 3: [0.0, 2.0], 4: [0.5, 0.5]}
    found = ranked(recommend, spark, [], {7: [1.0, 1.0]}, items, top_n=2)
    assert found == [(7, 1, 2, 3.0), (7, 2, 3, 2.0)]


def test_what_a_user_has_rated_is_not_recommended_to_that_user(
    recommend: ModuleType, spark: Any
) -> None:
    items = {1: [5.0], 2: [4.0], 3: [3.0]}
    found = ranked(recommend, spark, [(1, 1), (2, 2), (2, 3)], {1: [1.0], 2: [1.0]}, items)
    assert [(user, item) for user, _, item, _ in found] == [(1, 2), (1, 3), (2, 1)]


def test_who_has_rated_everything_gets_nothing(recommend: ModuleType, spark: Any) -> None:
    found = ranked(recommend, spark, [(1, 1), (1, 2)], {1: [1.0]}, {1: [1.0], 2: [2.0]})
    assert found == []


def test_a_tie_goes_to_more_events_then_to_the_lower_number(
    recommend: ModuleType, spark: Any
) -> None:
    items = {9: [1.0], 3: [1.0], 5: [1.0], 4: [1.0000001]}
    for order in (items, dict(reversed(items.items()))):
        found = ranked(recommend, spark, [], {1: [2.0]}, order, events={5: 8})
        assert [item for _, _, item, _ in found] == [5, 3, 4, 9]


def test_a_low_score_is_a_score(recommend: ModuleType, spark: Any) -> None:
    found = ranked(recommend, spark, [], {1: [-1.0]}, {1: [2.0], 2: [0.0]})
    assert found == [(1, 1, 2, 0.0), (1, 2, 1, -2.0)]


_SCHEMAS = {
    "ratings": "user long, item long",
    "users": "user long, events long",
    "items": "item long, events long",
    "user_factors": "user long, factors array<double>",
    "item_factors": "item long, factors array<double>",
}


def built(
    recommend: ModuleType, spark: Any, to: Path, tables: dict[str, list[Any]]
) -> tuple[dict[str, Any], list[tuple[Any, ...]]]:
    """Build from tables of files; return the summary and what was written."""
    uris = {name: f"file://{to}/{name}" for name in (*tables, "recommendations")}
    for name, rows in tables.items():
        spark.createDataFrame(rows, _SCHEMAS[name]).write.parquet(uris[name])
    summary = recommend.build(spark, top_n=10, **uris)
    wrote = spark.read.parquet(uris["recommendations"]).collect()
    return summary, sorted(tuple(row) for row in wrote)


def test_build_writes_the_table_and_shows_the_most_active_users(
    recommend: ModuleType, spark: Any, tmp_path: Path
) -> None:
    tables: dict[str, list[Any]] = {
        "ratings": [(1, 1), (2, 1), (2, 2)],
        "users": [(1, 1), (2, 2)],
        "items": [(1, 2), (2, 1), (3, 1)],
        "user_factors": [(1, [1.0]), (2, [1.0])],
        "item_factors": [(1, [1.0]), (2, [2.0]), (3, [3.0])],
    }
    summary, wrote = built(recommend, spark, tmp_path, tables)
    assert summary == {
        "users": 2,
        "recommendations": 3,
        "examples": [{"user": 2, "items": [3]}, {"user": 1, "items": [3, 2]}],
    }
    assert wrote == [(1, 1, 3, 3.0), (1, 2, 2, 2.0), (2, 1, 3, 3.0)]


def test_nothing_to_recommend_is_an_empty_table(
    recommend: ModuleType, spark: Any, tmp_path: Path
) -> None:
    tables: dict[str, list[Any]] = {
        "ratings": [(1, 1)],
        "users": [(1, 1)],
        "items": [(1, 1)],
        "user_factors": [(1, [1.0])],
        "item_factors": [(1, [1.0])],
    }
    summary, wrote = built(recommend, spark, tmp_path, tables)
    assert summary == {"users": 0, "recommendations": 0, "examples": []}
    assert wrote == []


def test_a_value_is_written_as_json_over_what_was_there(
    recommend: ModuleType, spark: Any, tmp_path: Path
) -> None:
    file = tmp_path / "new folder" / "value.json"
    for value in ({"old": 1}, {"user": "Zoë", "n": 3}):
        recommend.write_value(spark, f"file://{file}", value)
    assert json.loads(file.read_bytes()) == {"user": "Zoë", "n": 3}
