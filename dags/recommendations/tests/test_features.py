"""What features.py keeps, drops and counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.spark

Lines = Callable[..., str]


def rows(table: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in table.collect())


def parsed(features: ModuleType, spark: Any, *texts: str) -> list[tuple[Any, ...]]:
    lines = spark.createDataFrame([(text,) for text in texts], "value string")
    return [tuple(row) for row in features.parse(lines).collect()]


def built(features: ModuleType, spark: Any, events: str, to: Path, scale: int = 1) -> Any:
    """Build into `to`; return the counts and the rows of the three tables."""
    uris = {name: f"file://{to}/{name}" for name in ("ratings", "users", "items")}
    counts = features.build(spark, events, scale, **uris)
    return dict(counts), {name: rows(spark.read.parquet(uri)) for name, uri in uris.items()}


@pytest.mark.parametrize(
    "line",
    [
        "1::2",
        "1::2::3::4::5",
        "1:2:3",
        "a::2::3",
        "1::2::three",
        "::2::3",
        "-1::2::3",
        "1::2::3e9",
        "1::9999999999999::3",
        "ü::ñ::☃",
        "１::２::３",
        "1::2::nan",
        "\x00",
    ],
)
def test_a_line_that_is_no_event_is_bad(features: ModuleType, spark: Any, line: str) -> None:
    assert parsed(features, spark, line) == [(None, None, None)]


def test_events_are_read_with_spaces_a_time_or_a_fraction(features: ModuleType, spark: Any) -> None:
    texts = ("1::2::3", "  4 :: 5 ::\t1.5 \r", "1::1193::5::978300760")
    assert parsed(features, spark, *texts) == [(1, 2, 3.0), (4, 5, 1.5), (1, 1193, 5.0)]


def test_blank_lines_are_neither_events_nor_bad(features: ModuleType, spark: Any) -> None:
    assert parsed(features, spark, "", "   ", "1::2::3") == [(1, 2, 3.0)]


def test_what_is_dropped_is_counted(
    features: ModuleType, spark: Any, lines: Lines, tmp_path: Path
) -> None:
    events = lines("1::1::3", "", "junk", "1::2::0", "1::3::5.5", "1::4::-1", "2::1::4", "1::1::5")
    counts, tables = built(features, spark, events, tmp_path)
    assert counts == {
        "lines": 7,
        "bad": 1,
        "out_of_range": 3,
        "events": 3,
        "duplicates": 1,
        "ratings": 2,
        "users": 2,
        "items": 1,
    }
    assert tables["ratings"] == [(1, 1, 4.0, 2), (2, 1, 4.0, 1)]


def test_duplicates_become_their_mean_whatever_their_order(
    features: ModuleType, spark: Any, lines: Lines, tmp_path: Path
) -> None:
    texts = ["7::8::1.1", "7::8::1.2", "7::8::4.9"]
    _, one = built(features, spark, lines(*texts), tmp_path / "one")
    _, two = built(features, spark, lines(*reversed(texts)), tmp_path / "two")
    assert one == two
    assert one["ratings"] == [(7, 8, 2.4, 3)]


def test_aggregates_tell_events_and_mean(
    features: ModuleType, spark: Any, lines: Lines, tmp_path: Path
) -> None:
    events = lines("1::1::1", "1::2::2", "1::2::4", "2::2::5")
    _, tables = built(features, spark, events, tmp_path)
    assert tables["users"] == [(1, 3, 2.0), (2, 1, 5.0)]
    assert tables["items"] == [(1, 1, 1.0), (2, 3, 4.0)]


def test_the_sample_is_clean_and_keeps_all_its_events(
    features: ModuleType, spark: Any, sample: Path, tmp_path: Path
) -> None:
    counts, _ = built(features, spark, f"file://{sample}", tmp_path)
    assert counts["ratings"] == counts["events"] == counts["lines"] == 1501
    assert (counts["users"], counts["items"], counts["bad"]) == (30, 100, 0)


def test_scale_multiplies_the_events_and_is_the_same_each_time(
    features: ModuleType, spark: Any, sample: Path, tmp_path: Path
) -> None:
    uri = f"file://{sample}"
    counts, once = built(features, spark, uri, tmp_path / "once", scale=7)
    _, again = built(features, spark, uri, tmp_path / "again", scale=7)
    _, plain = built(features, spark, uri, tmp_path / "plain")
    assert counts["events"] == counts["ratings"] == 7 * 1501
    assert (counts["users"], counts["items"]) == (7 * 30, 100)
    assert once == again
    originals = [(user // 7, *rest) for user, *rest in once["ratings"] if user % 7 == 0]
    assert originals == plain["ratings"]
    copies = [(user // 7, *rest) for user, *rest in once["ratings"] if user % 7 == 1]
    changed = sum(a != b for a, b in zip(copies, plain["ratings"], strict=True))
    assert 0 < changed < len(copies) / 2
    assert all(1 <= rating <= 5 for _, _, rating, _ in once["ratings"])


def test_scale_neither_hides_nor_makes_an_event_out_of_range(
    features: ModuleType, spark: Any, lines: Lines, tmp_path: Path
) -> None:
    events = lines("1::1::9", "1::2::0", "1::3::1", "1::4::5")
    counts, _ = built(features, spark, events, tmp_path, scale=50)
    assert (counts["out_of_range"], counts["ratings"]) == (2, 100)


@pytest.mark.parametrize("texts", [(), ("junk", "1::2::17")], ids=["empty", "nothing good"])
def test_nothing_to_learn_from_is_a_failure_that_says_what_was_read(
    features: ModuleType, spark: Any, lines: Lines, tmp_path: Path, texts: tuple[str, ...]
) -> None:
    events = lines(*texts)
    with pytest.raises(features.NoEventsError) as failure:
        built(features, spark, events, tmp_path)
    assert events in str(failure.value)
    assert f"{len(texts)} lines" in str(failure.value)
    assert not (tmp_path / "ratings").exists()
