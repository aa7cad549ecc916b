"""What train.py learns, how it is judged, and that it learns the same each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


@pytest.fixture(scope="module")
def columns(sample: Path) -> tuple[Any, Any, Any]:
    user, item, rating = np.loadtxt(sample, delimiter=":", usecols=(0, 2, 4), unpack=True)
    return user.astype(np.int64), item.astype(np.int64), rating


@pytest.fixture(scope="module")
def ratings(train: ModuleType, columns: tuple[Any, Any, Any]) -> Any:
    return train.Ratings.of(*columns)


def table(folder: Path, columns: tuple[Any, ...], files: int = 1) -> str:
    """Write ratings as Spark does: several files, and a mark beside them."""
    folder.mkdir(parents=True)
    for n in range(files):
        part = [column[n::files] for column in columns]
        pq.write_table(
            pa.table(dict(zip(("user", "item", "rating"), part, strict=True))),
            folder / f"part-{n}.snappy.parquet",
        )
    (folder / "_SUCCESS").touch()
    return f"file://{folder}"


def test_the_model_beats_the_mean(train: ModuleType, ratings: Any) -> None:
    for seed in range(5):
        _, value = train.train(ratings, rank=8, seed=seed)
        assert value["rmse"] < 0.9 * value["baseline_rmse"]
        assert (value["ratings"], value["held_out"]) == (1201, 300)


def test_no_rating_is_both_learned_from_and_judged_by(train: ModuleType) -> None:
    learn, judge = train.split(1501, seed=3)
    assert sorted([*learn, *judge]) == list(range(1501))
    assert len(judge) == 300


def test_what_is_held_out_does_not_change_the_model(train: ModuleType, ratings: Any) -> None:
    _, judge = train.split(len(ratings.value), seed=3)
    lies = ratings.value.copy()
    lies[judge] = 5.0
    fooled = train.Ratings(ratings.users, ratings.items, ratings.user, ratings.item, lies)
    (honest, good), (same, bad) = (train.train(r, 8, 3) for r in (ratings, fooled))
    assert np.array_equal(honest.users, same.users)
    assert np.array_equal(honest.items, same.items)
    assert good["rmse"] < bad["rmse"]


def test_the_order_of_the_ratings_does_not_matter(
    train: ModuleType, ratings: Any, columns: tuple[Any, Any, Any]
) -> None:
    shuffled = np.random.default_rng(0).permutation(len(columns[0]))
    other = train.Ratings.of(*(column[shuffled] for column in columns))
    (one, value), (two, again) = (train.train(r, 8, 7) for r in (ratings, other))
    assert value == again
    assert np.array_equal(one.users, two.users)
    assert np.array_equal(one.items, two.items)


def test_another_seed_holds_out_other_ratings(train: ModuleType) -> None:
    assert not np.array_equal(train.split(100, 1)[1], train.split(100, 2)[1])
    assert np.array_equal(train.split(100, 1)[1], train.split(100, 1)[1])


def test_who_has_nothing_to_learn_from_is_predicted_by_the_other_side(train: ModuleType) -> None:
    user, item = np.repeat(np.arange(6), 6), np.tile(np.arange(6), 6)
    ratings = train.Ratings.of(user, item, np.where(item == 0, 5.0, 1.0))
    model = train.fit(ratings, np.flatnonzero(user != 3), rank=2, seed=1)
    stranger = model.predict(np.full(6, 3), np.arange(6))
    assert stranger[0] > stranger[1:].max() + 1
    assert np.isfinite(stranger).all()


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_ratings_are_a_failure_that_names_the_table(
    train: ModuleType, tmp_path: Path, count: int
) -> None:
    ids = np.arange(count, dtype=np.int64)
    uri = table(tmp_path / "ratings", (ids, ids, np.ones(count)))
    outputs = ["--user-factors", f"file://{tmp_path}/u", "--item-factors", f"file://{tmp_path}/i"]
    with pytest.raises(SystemExit) as failure:
        train.main(["--ratings", uri, *outputs])
    assert failure.value.code == f"train: {uri}: {count} ratings; at least 5 are needed"
    assert not (tmp_path / "u").exists()


def run(train: ModuleType, ratings: str, to: Path, threads: int) -> dict[str, bytes]:
    """Run the script as a process; return what it wrote."""
    uris = {name: f"file://{to}/{name}" for name in ("user-factors", "item-factors", "value")}
    command = [sys.executable, str(train.__file__), "--ratings", ratings]
    for name, uri in uris.items():
        command += [f"--{name}", uri]
    env = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, env=env, timeout=120, capture_output=True)
    return {str(f.relative_to(to)): f.read_bytes() for f in to.rglob("*") if f.is_file()}


def test_threads_and_files_do_not_change_a_byte(
    train: ModuleType, columns: tuple[Any, Any, Any], tmp_path: Path
) -> None:
    one = run(train, table(tmp_path / "one file", columns), tmp_path / "a", threads=1)
    three = run(train, table(tmp_path / "3 %20 ü", columns, files=3), tmp_path / "b", threads=4)
    assert one == three
    assert sorted(one) == ["item-factors/part-0.parquet", "user-factors/part-0.parquet", "value"]
    assert json.loads(one["value"])["rmse"] < 1


def test_predictions_follow_from_the_factors_that_are_written(
    train: ModuleType, ratings: Any, columns: tuple[Any, Any, Any], tmp_path: Path
) -> None:
    run(train, table(tmp_path / "ratings", columns), tmp_path / "out", threads=1)
    users, items = (
        pq.read_table(tmp_path / "out" / f"{name}-factors").to_pydict() for name in ("user", "item")
    )
    assert users["user"] == list(range(30))
    assert items["item"] == list(range(100))
    model, _ = train.train(ratings, rank=8, seed=7)
    expected = model.predict(np.full(100, 4), np.arange(100))
    assert np.allclose(np.array(items["factors"]) @ np.array(users["factors"][4]), expected)
