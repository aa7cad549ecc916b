"""Compares two tables as multisets of rows in bounded memory.

The first pass adds up a hash of each row in one of 4096 buckets: addition forgets the
order, and buckets with equal sums hold equal rows. Only the rows of other buckets are
looked at again, in groups that fit into memory. With a tolerance a row's bucket is chosen
by all of it but its floats, so that rows which may match are in the same one: rows that differ
in floats alone are all held at once, about 1 kB for each row of either table.
"""

from __future__ import annotations

import math
import pickle
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from zlib import crc32

from .tables import Row, Table, close, encode

_BUCKETS = 4096
_HELD = 400_000  # rows of both tables in memory at once, as far as one bucket allows
_SPOOLED = 2**22  # bytes of a group that stay in memory
_EXAMPLES = 3  # rows shown of each table
_LOOKED = 64  # buckets that are searched for examples


@dataclass(slots=True)
class RowDifference:
    """What came of it: `examples` are rows that only one has, {"only_in": "A", "row": ...}."""

    counts: tuple[int, int]
    equal: bool = True
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Sums:
    sums: list[int]
    counts: list[int]


def compare_rows(a: Table, b: Table, tolerance: float = 0.0) -> RowDifference:
    """Compare two tables with the same columns."""
    mine, other = _sums(a, tolerance > 0), _sums(b, tolerance > 0)
    found = RowDifference((sum(mine.counts), sum(other.counts)))
    differing = [
        n
        for n in range(_BUCKETS)
        if mine.sums[n] != other.sums[n] or mine.counts[n] != other.counts[n]
    ]
    weights = {n: mine.counts[n] + other.counts[n] for n in differing}
    if not tolerance:
        found.equal = not differing
        if differing:
            group = next(_groups(differing[:_LOOKED], weights))
            found.examples = _examples(*(_rows(t, group) for t in (a, b)))
        return found
    groups = list(_groups(differing, weights))
    with ExitStack() as stack:
        spills = [[stack.enter_context(_spill()) for _ in groups] for _ in range(2)]
        for table, files in zip((a, b), spills, strict=True):
            _spread(table, groups, files)
        for mine_file, other_file in zip(*spills, strict=True):
            unmatched = _unmatched(_read(mine_file), _read(other_file), tolerance)
            if any(unmatched):
                found.equal = False
                found.examples = _shown(*unmatched)
                break
    return found


def _sums(table: Table, masked: bool) -> _Sums:
    sums, counts = [0] * _BUCKETS, [0] * _BUCKETS
    for batch in table.batches():
        rows = batch.encoded(False)
        keys = batch.encoded(True) if masked else rows
        for row, key in zip(rows, keys, strict=True):
            bucket = crc32(key) % _BUCKETS
            sums[bucket] += int.from_bytes(blake2b(row, digest_size=16).digest(), "little")
            counts[bucket] += 1
    return _Sums(sums, counts)


def _groups(buckets: Sequence[int], weights: Mapping[int, int]) -> Iterator[set[int]]:
    group: set[int] = set()
    held = 0
    for bucket in buckets:
        if group and held + weights[bucket] > _HELD:
            yield group
            group, held = set(), 0
        group.add(bucket)
        held += weights[bucket]
    if group:
        yield group


# -- without a tolerance


def _rows(table: Table, group: set[int]) -> Iterator[tuple[bytes, Row]]:
    """The rows of some buckets, each with its encoding."""
    for batch in table.batches():
        encoded = batch.encoded(False)
        picked = [n for n, key in enumerate(encoded) if crc32(key) % _BUCKETS in group]
        if picked:
            yield from zip((encoded[n] for n in picked), batch.rows(picked), strict=True)


def _examples(
    mine: Iterator[tuple[bytes, Row]], other: Iterator[tuple[bytes, Row]]
) -> list[dict[str, Any]]:
    balance: Counter[bytes] = Counter()
    rows: dict[bytes, Row] = {}
    for sign, side in ((1, mine), (-1, other)):
        for key, row in side:
            balance[key] += sign
            rows.setdefault(key, row)
    only_a = [rows[key] for key, n in balance.items() if n > 0]
    only_b = [rows[key] for key, n in balance.items() if n < 0]
    return _shown(only_a, only_b)


def _shown(only_a: Sequence[Row], only_b: Sequence[Row]) -> list[dict[str, Any]]:
    """A few of both, those first that have most in common: there one sees what changed."""
    mine, other = list(only_a[:200]), list(only_b[:200])
    pairs = sorted(
        ((_alike(x, y), i, j) for i, x in enumerate(mine) for j, y in enumerate(other)),
        key=lambda pair: (-pair[0], pair[1], pair[2]),
    )
    rank_a = {i: n for n, (_, i, _) in reversed(list(enumerate(pairs)))}
    rank_b = {j: n for n, (_, _, j) in reversed(list(enumerate(pairs)))}
    shown = []
    for name, rows, rank in (("A", mine, rank_a), ("B", other, rank_b)):
        best = sorted(range(len(rows)), key=lambda n: rank.get(n, n))
        shown += [{"only_in": name, "row": dict(rows[n])} for n in best[:_EXAMPLES]]
    return shown


def _alike(a: Row, b: Row) -> int:
    return sum(1 for key in a if key in b and a[key] == b[key])


# -- with a tolerance


def _spill() -> Any:
    """Somewhere for the rows of one group: small ones stay in memory."""
    return SpooledTemporaryFile(max_size=_SPOOLED)


def _spread(table: Table, groups: Sequence[set[int]], files: Sequence[IO[bytes]]) -> None:
    """Put the rows of each group into its file, in one pass."""
    of = {bucket: n for n, group in enumerate(groups) for bucket in group}
    for batch in table.batches():
        picked = defaultdict(list)
        for n, key in enumerate(batch.encoded(True)):
            if (group := of.get(crc32(key) % _BUCKETS)) is not None:
                picked[group].append(n)
        for group, indices in picked.items():
            pickle.dump(batch.rows(indices), files[group])


def _read(file: IO[bytes]) -> Iterator[Row]:
    file.seek(0)
    while True:
        try:
            yield from pickle.load(file)  # noqa: S301  written by this process, seen by no other
        except EOFError:
            return


def _unmatched(
    mine: Iterator[Row], other: Iterator[Row], tolerance: float
) -> tuple[list[Row], list[Row]]:
    """The rows that find no partner equal in all but floats, and near in these."""
    groups: dict[bytes, tuple[list[_Floats], list[_Floats]]] = defaultdict(lambda: ([], []))
    for side, rows in enumerate((mine, other)):
        for row in rows:
            floats: list[float] = []
            key = encode(row, floats)
            groups[key][side].append((tuple(0.0 if f == 0 else f for f in floats), row))
    only_a: list[Row] = []
    only_b: list[Row] = []
    for a, b in groups.values():
        left, right = _match(a, b, tolerance)
        only_a += left
        only_b += right
    return only_a, only_b


_Floats = tuple[tuple[float, ...], Row]


def _match(
    a: Sequence[_Floats], b: Sequence[_Floats], tolerance: float
) -> tuple[list[Row], list[Row]]:
    """Pair rows off: sort both by the float that tells them apart best, then look nearby.

    Each takes the first that is free and close; where tolerances chain (a to b to c) another
    choice might have left fewer over.
    """
    if not a or not b or not a[0][0]:
        common = min(len(a), len(b))
        return [row for _, row in a[common:]], [row for _, row in b[common:]]
    pivot = max(range(len(a[0][0])), key=lambda n: len({floats[n] for floats, _ in a}))

    def order(item: _Floats) -> tuple[float, ...]:
        return tuple(map(_orderly, (item[0][pivot], *item[0])))

    left, right = sorted(a, key=order), sorted(b, key=order)
    at = [_orderly(floats[pivot]) for floats, _ in right]
    free = [True] * len(right)
    only_a = []
    start = 0  # all before are taken
    for floats, row in left:
        value = _orderly(floats[pivot])
        window = _window(value, tolerance)
        n = max(start, bisect_left(at, value - window))
        while n < len(right) and at[n] <= value + window:
            if free[n] and _near(floats, right[n][0], tolerance):
                free[n] = False
                break
            n += 1
        else:
            only_a.append(row)
        while start < len(right) and not free[start]:
            start += 1
    return only_a, [row for is_free, (_, row) in zip(free, right, strict=True) if is_free]


def _orderly(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _window(value: float, tolerance: float) -> float:
    """How far from `value` a float may be that is close to it; a little more, for rounding."""
    return 1.000001 * tolerance * abs(value) / (1 - tolerance) if math.isfinite(value) else 0.0


def _near(a: tuple[float, ...], b: tuple[float, ...], tolerance: float) -> bool:
    return all(close(x, y, tolerance) for x, y in zip(a, b, strict=True))
