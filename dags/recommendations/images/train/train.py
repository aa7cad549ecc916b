"""Learns a rating model: a Parquet table of ratings in, factors of users and items out.

The model is matrix factorisation with biases, fitted by alternating least squares on four
fifths of the ratings and judged on the rest. A predicted rating is the dot product of a
user's factors and an item's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from obstore.fsspec import FsspecStore

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_HELD_OUT = 5  # one rating in so many
_ROUNDS = 15  # after these the error moves in the fourth decimal
_PENALTY = 3.0  # on the size of factors; less fits the noise of the sample
_DECIMALS = 6  # the last bits of a float are the processor's, not the data's


class TooFewRatingsError(Exception):
    """There is nothing to learn from, or nothing to judge by."""


@dataclass(frozen=True)
class Ratings:
    """Ratings by row: positions in `users` and `items`, and the value. Sorted by both."""

    users: Integers
    items: Integers
    user: Integers
    item: Integers
    value: Floats

    @classmethod
    def of(cls, user: Integers, item: Integers, value: Floats) -> Ratings:
        order = np.lexsort((item, user))  # of how many files the table was, or in what order
        users, user = np.unique(user[order], return_inverse=True)
        items, item = np.unique(item[order], return_inverse=True)
        return cls(users, items, user, item, value[order])


@dataclass(frozen=True)
class Model:
    """`users` and `items` hold a row of factors for each; predict() multiplies them."""

    users: Floats
    items: Floats

    def predict(self, user: Integers, item: Integers) -> Floats:
        return np.asarray((self.users[user] * self.items[item]).sum(axis=1))


def split(count: int, seed: int) -> tuple[Integers, Integers]:
    """Rows to learn from and rows to judge by; no row is in both. Raises TooFewRatingsError."""
    if count < _HELD_OUT:
        raise TooFewRatingsError(f"{count} ratings; at least {_HELD_OUT} are needed")
    rows = np.random.default_rng(seed).permutation(count)
    return np.sort(rows[count // _HELD_OUT :]), np.sort(rows[: count // _HELD_OUT])


def fit(ratings: Ratings, rows: Integers, rank: int, seed: int) -> Model:
    """Learn from `rows` alone. Equal arguments give equal factors.

    A user or item without a row among them keeps no bias and no factors: the prediction is
    then the other's alone.
    """
    user, item, value = ratings.user[rows], ratings.item[rows], ratings.value[rows]
    mean = value.mean()
    # Column 0 is the bias.
    items = np.zeros((len(ratings.items), rank + 1))
    items[:, 1:] = np.random.default_rng(seed).normal(0, 0.1, (len(ratings.items), rank))
    users = np.zeros((len(ratings.users), rank + 1))
    for _ in range(_ROUNDS):
        users = _solved(user, len(users), items[item], value - mean)
        items = _solved(item, len(items), users[user], value - mean)
    ones = np.ones
    return Model(
        np.hstack([ones((len(users), 1)), users]).round(_DECIMALS),
        np.hstack([mean + items[:, :1], ones((len(items), 1)), items[:, 1:]]).round(_DECIMALS),
    )


def _solved(row: Integers, count: int, other: Floats, target: Floats) -> Floats:
    """The best bias and factors of one side, given those of the `other` side by rating.

    The sums go through bincount: in the order of the ratings and on one thread, so that
    they do not depend on how many cores there are; and without a matrix of all users by
    all items.
    """
    target = target - other[:, 0]
    columns = [np.ones(len(other)), *np.ascontiguousarray(other[:, 1:].T)]
    size = len(columns)
    left, right = np.empty((count, size, size)), np.empty((count, size))
    for a, column in enumerate(columns):
        right[:, a] = np.bincount(row, column * target, count)
        for b in range(a, size):
            left[:, a, b] = left[:, b, a] = np.bincount(row, column * columns[b], count)
    left += _PENALTY * np.eye(size)
    return np.asarray(np.linalg.solve(left, right[:, :, None])[:, :, 0])


def rmse(predicted: Floats | float, value: Floats) -> float:
    return float(np.sqrt(np.mean((predicted - value) ** 2)))


def train(ratings: Ratings, rank: int, seed: int) -> tuple[Model, dict[str, Any]]:
    """Fit, and judge against always predicting the mean."""
    learn, judge = split(len(ratings.value), seed)
    model = fit(ratings, learn, rank, seed)
    predicted = model.predict(ratings.user[judge], ratings.item[judge])
    value = ratings.value[judge]
    return model, {
        "rmse": round(rmse(predicted, value), 4),
        "baseline_rmse": round(rmse(float(ratings.value[learn].mean()), value), 4),
        "ratings": len(learn),
        "held_out": len(judge),
        "users": len(ratings.users),
        "items": len(ratings.items),
    }


# -- the store: a folder, or a bucket with the credentials that the place has


def opened(uri: str) -> tuple[AbstractFileSystem, str]:
    """The filesystem of a URI and the path in it. Keys are taken as they are, unquoted."""
    scheme, _, path = uri.partition("://")
    local = scheme == "file"
    return LocalFileSystem(auto_mkdir=True) if local else FsspecStore(scheme), path


def read_ratings(uri: str) -> Ratings:
    fs, path = opened(uri)
    table = pyarrow.dataset.dataset(path, filesystem=fs, format="parquet").to_table(
        columns=["user", "item", "rating"]
    )
    return Ratings.of(*(table[name].to_numpy() for name in table.column_names))


def write_factors(uri: str, name: str, ids: Integers, factors: Floats) -> None:
    fs, path = opened(uri)
    rows = pa.array(list(factors), pa.list_(pa.float64()))
    table = pa.table({name: ids, "factors": rows})
    with fs.open(f"{path}/part-0.parquet", "wb") as file:
        pyarrow.parquet.write_table(table, file)


def write_value(uri: str, value: Any) -> None:
    fs, path = opened(uri)
    with fs.open(path, "wb") as file:
        file.write(json.dumps(value).encode())


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", required=True, help="URI of the table (user, item, rating)")
    parser.add_argument("--rank", type=positive, default=8, help="factors of each user and item")
    parser.add_argument("--seed", type=int, default=7, help="of the split and the first guess")
    parser.add_argument("--user-factors", required=True, help="URI of the table to write")
    parser.add_argument("--item-factors", required=True, help="URI of the table to write")
    parser.add_argument("--value", help="URI of the errors and counts to write, as JSON")
    given = parser.parse_args(arguments)
    ratings = read_ratings(given.ratings)
    try:
        model, value = train(ratings, given.rank, given.seed)
    except TooFewRatingsError as error:
        sys.exit(f"train: {given.ratings}: {error}")
    write_factors(given.user_factors, "user", ratings.users, model.users)
    write_factors(given.item_factors, "item", ratings.items, model.items)
    if given.value:
        write_value(given.value, value)
    print(json.dumps(value))  # noqa: T201  the log


if __name__ == "__main__":
    main()
