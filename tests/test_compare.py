"""Tables as multisets of rows, files by bytes, values as JSON: what counts as the same data."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portaflow.compare import _grouped, _schema_differences, unlike
from portaflow.errors import RunError
from portaflow.multiset import RowDifference, compare_rows
from portaflow.parquet import Parquet
from portaflow.tables import File, encode

FS = fsspec.filesystem("file")


def parquet(folder: Path, *tables: pa.Table) -> Parquet:
    """The tables, each as a file of its own."""
    folder.mkdir(parents=True)
    for n, table in enumerate(tables):
        pq.write_table(table, folder / f"part-{n}.parquet")
    return Parquet([File(FS, str(f)) for f in sorted(folder.iterdir())])


@pytest.fixture
def rows_of(tmp_path: Path) -> Callable[..., RowDifference]:
    """Compare two lists of columns, written as Parquet."""

    def compare(a: dict[str, Any], b: dict[str, Any], tolerance: float = 0.0) -> RowDifference:
        number = len(list(tmp_path.iterdir()))
        mine = parquet(tmp_path / f"{number}a", pa.table(a))
        other = parquet(tmp_path / f"{number}b", pa.table(b))
        assert mine.schema() == other.schema()
        return compare_rows(mine, other, tolerance)

    return compare


Rows = Callable[..., RowDifference]


def test_order_of_rows_and_columns_and_the_number_of_files_do_not_matter(tmp_path: Path) -> None:
    table = pa.table({"id": list(range(1000)), "name": [f"n{i % 7}" for i in range(1000)]})
    backwards = table.take(pa.array(range(999, -1, -1))).select(["name", "id"])
    a = parquet(tmp_path / "a", table)
    b = parquet(tmp_path / "b", backwards.slice(0, 1), backwards.slice(1, 700), backwards[701:])
    assert a.schema() == b.schema()
    assert compare_rows(a, b) == RowDifference((1000, 1000))


def test_one_changed_value_is_found_and_shown_beside_what_it_was(rows_of: Rows) -> None:
    n = 5000
    a: dict[str, Any] = {"id": list(range(n)), "score": [i / 7 for i in range(n)], "tag": ["x"] * n}
    changed = {**a, "score": [*a["score"][:4321], -1.0, *a["score"][4322:]]}
    found = rows_of(a, changed)
    assert not found.equal
    assert found.counts == (n, n)
    assert found.examples == [
        {"only_in": "A", "row": {"id": 4321, "score": 4321 / 7, "tag": "x"}},
        {"only_in": "B", "row": {"id": 4321, "score": -1.0, "tag": "x"}},
    ]


def test_duplicates_count(rows_of: Rows) -> None:
    assert not rows_of({"x": [1, 1, 2]}, {"x": [1, 2, 2]}).equal
    assert rows_of({"x": [1, 2, 1]}, {"x": [1, 1, 2]}).equal
    assert rows_of({"x": [1, 1]}, {"x": [1]}).counts == (2, 1)
    assert not rows_of({"x": [0.5, 0.5, 1.5]}, {"x": [0.5, 1.5, 1.5]}, 1e-9).equal
    assert not rows_of({"x": [0.5, 0.5]}, {"x": [0.5]}, 1e-9).equal


@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (math.nan, -math.nan, True),
        (0.0, -0.0, True),
        (None, math.nan, False),
        (None, 0.0, False),
        (math.inf, -math.inf, False),
        (math.inf, 1e38, False),
        (1.0, 1.1, False),
    ],
)
def test_floats_that_are_no_plain_numbers(
    rows_of: Rows, a: Any, b: Any, equal: bool, tolerance: float
) -> None:
    for kind in (pa.float64(), pa.float32()):
        columns = [{"k": [1, 2], "x": pa.array([v, 2.0], kind)} for v in (a, b)]
        assert rows_of(*columns, tolerance).equal is equal


def test_a_tolerance_is_relative_and_holds_where_the_order_of_rows_changes(rows_of: Rows) -> None:
    n = 2000
    a: dict[str, Any] = {
        "k": [i % 3 for i in range(n)],
        "x": [1.0 + (i % 5) * 1e-13 for i in range(n)],
    }
    a["y"] = [float(i) for i in range(n)]
    b = {key: list(reversed(values)) for key, values in a.items()}
    b["x"] = [x * (1 + 1e-12) for x in b["x"]]
    assert not rows_of(a, b).equal
    assert rows_of(a, b, 1e-11).equal
    assert not rows_of(a, b, 1e-13).equal
    assert not rows_of({"x": [1e-20]}, {"x": [2e-20]}, 1e-9).equal


def test_a_tolerance_shows_the_rows_that_found_no_partner(rows_of: Rows) -> None:
    a = {"k": ["a", "b"], "x": [1.0, 2.0]}
    found = rows_of(a, {"k": ["b", "a"], "x": [2.5, 1.0 + 1e-12]}, 1e-9)
    assert [e["row"] for e in found.examples] == [{"k": "b", "x": 2.0}, {"k": "b", "x": 2.5}]


def test_a_tolerance_is_for_floats_alone(rows_of: Rows) -> None:
    big = 10**15
    assert not rows_of({"n": [big]}, {"n": [big + 1]}, 1e-3).equal
    amounts = [pa.array([Decimal(v)], pa.decimal128(10, 4)) for v in ("1.0000", "1.0001")]
    assert not rows_of({"n": amounts[0]}, {"n": amounts[1]}, 1e-3).equal


UTC9 = timezone(timedelta(hours=9))
PAIRS: list[tuple[pa.DataType, Any, Any]] = [
    (pa.int64(), 1, 2),
    (pa.uint8(), 1, 2),
    (pa.bool_(), True, False),
    (pa.string(), "", "a"),
    (pa.string(), "1:a,", "1:a"),
    (pa.large_string(), "\u00e4", "a\u0308"),
    (pa.binary(), b"\xff\x00", b"\xff"),
    (pa.binary(2), b"ab", b"ac"),
    (pa.decimal128(20, 3), Decimal("1.100"), Decimal("1.101")),
    (pa.decimal256(60, 3), Decimal("1.100"), Decimal("-1.100")),
    (pa.date32(), date(1, 1, 1), date(9999, 12, 31)),
    (pa.timestamp("us"), datetime(2026, 1, 1), datetime(2026, 1, 1, 0, 0, 0, 1)),
    (pa.timestamp("ns"), 1, 2),
    (pa.timestamp("s"), 253402300800, 253402300801),  # the year 10000
    (pa.timestamp("s", "UTC"), datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC9)),
    (pa.time64("us"), 1, 2),
    (pa.duration("us"), 1, 2),
    (pa.list_(pa.int32()), [], None),
    (pa.list_(pa.int32()), [None], []),
    (pa.list_(pa.string()), ["a", "b"], ["a,b"]),
    (pa.list_(pa.list_(pa.float64())), [[1.0], [2.0]], [[1.0, 2.0]]),
    (pa.list_(pa.float32(), 2), [1.0, 2.0], [2.0, 1.0]),
    (pa.large_list(pa.int8()), [1], [2]),
    (pa.struct({"a": pa.int32(), "b": pa.string()}), {"a": 1, "b": None}, {"a": None, "b": "1"}),
    (pa.struct({"a": pa.int32()}), {"a": None}, None),
    (pa.map_(pa.string(), pa.float64()), [("a", 1.0)], [("a", 2.0)]),
    (pa.list_(pa.struct({"a": pa.list_(pa.date32())})), [{"a": [date.min]}], [{"a": []}]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "a", "b"), PAIRS, ids=[f"{k}-{a}" for k, a, _ in PAIRS])
@pytest.mark.parametrize("tolerance", [0.0, 1e-9])
def test_values_of_every_type_are_told_apart(
    rows_of: Rows, kind: pa.DataType, a: Any, b: Any, tolerance: float
) -> None:
    mine = pa.array([a, None, b, a], kind)
    assert rows_of({"x": mine}, {"x": pa.array([b, a, a, None], kind)}, tolerance).equal
    found = rows_of({"x": mine}, {"x": pa.array([b, b, a, None], kind)}, tolerance)
    assert not found.equal
    assert found.examples


def test_the_order_within_a_map_does_not_matter_but_within_a_list_it_does(rows_of: Rows) -> None:
    kind = pa.map_(pa.string(), pa.int32())
    maps = [pa.array([pairs], kind) for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)])]
    assert rows_of({"x": maps[0]}, {"x": maps[1]}).equal
    assert rows_of({"x": maps[0]}, {"x": maps[1]}, 1e-9).equal
    assert not rows_of({"x": [[1, 2]]}, {"x": [[2, 1]]}).equal


def test_how_values_are_laid_out_is_no_difference(tmp_path: Path) -> None:
    words = ["a", "b", "a", None]
    moments = pa.array([1, 2, 3, None], pa.timestamp("us", "UTC"))
    plain = pa.table({"w": pa.array(words), "t": moments})
    other = pa.table(
        {
            "w": pa.array(words, pa.large_string()).dictionary_encode(),
            "t": moments.cast(pa.timestamp("us", "Europe/Paris")),
        }
    )
    a, b = parquet(tmp_path / "a", plain), parquet(tmp_path / "b", other)
    assert a.schema() == b.schema() == {"w": "string", "t": "timestamp[us, tz]"}
    assert compare_rows(a, b).equal


def test_a_schema_tells_which_columns_and_types_differ() -> None:
    told = list(_schema_differences({"a": "int64", "b": "string"}, {"b": "int64", "c": "bool"}))
    assert told == [
        "only A has column 'a' (int64)",
        "column 'b' is string in A, int64 in B",
        "only B has column 'c' (bool)",
    ]


def test_a_column_that_one_file_lacks_is_null_there(tmp_path: Path) -> None:
    a = parquet(tmp_path / "a", pa.table({"x": [1]}), pa.table({"x": [2], "y": ["q"]}))
    b = parquet(tmp_path / "b", pa.table({"x": [2, 1], "y": ["q", None]}))
    assert a.schema() == b.schema()
    assert compare_rows(a, b).equal


def test_partition_folders_are_columns(tmp_path: Path) -> None:
    for day, value in (("1", 10), ("2", 20)):
        (tmp_path / f"day={day}").mkdir()
        pq.write_table(pa.table({"x": [value]}), tmp_path / f"day={day}" / "a.parquet")
    one, two = str(tmp_path / "day=1" / "a.parquet"), str(tmp_path / "day=2" / "a.parquet")

    def table(first: str, second: str) -> Parquet:
        return Parquet([File(FS, one, {"day": first}), File(FS, two, {"day": second})])

    assert compare_rows(table("1", "2"), table("1", "2")).equal
    assert not compare_rows(table("1", "2"), table("2", "1")).equal


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(RunError, match=r"a\.parquet: cannot be read as its name says"):
        Parquet([File(FS, str(tmp_path / "a.parquet"))]).schema()


def test_arrows_own_threads_never_hold_the_stream(tmp_path: Path) -> None:
    """One that still lets go of it while Python ends would kill the process."""
    pq.write_table(pa.table({f"c{i}": range(300) for i in range(8)}), tmp_path / "a.parquet")
    threads: set[int] = set()

    class Watched(LocalFileSystem):
        def open(self, path: str, *args: Any, **kwargs: Any) -> Any:
            stream = super().open(path, *args, **kwargs)
            read = stream.read

            def watched(size: int = -1) -> bytes:
                threads.add(threading.get_ident())
                return bytes(read(size))

            stream.read = watched
            return stream

    list(Parquet([File(Watched(), str(tmp_path / "a.parquet"))]).batches())
    assert threads == {threading.get_ident()}


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3)
)


def canonical(value: Any) -> Any:
    """A plain twin of what `encode` holds equal."""
    match value:
        case bool() | str() | None:
            return (type(value).__name__, value)
        case float() if math.isnan(value):
            return ("number", "nan")
        case int() | float():
            return ("number", value)
        case dict():
            return ("dict", frozenset((k, canonical(v)) for k, v in value.items()))
        case _:
            return ("list", tuple(map(canonical, value)))


@given(st.lists(values, min_size=2, max_size=2))
@settings(max_examples=400)
def test_encodings_are_equal_exactly_when_values_are(pair: list[Any]) -> None:
    a, b = pair
    assert (encode(a) == encode(b)) is (canonical(a) == canonical(b))


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.floats(width=32, allow_nan=True), st.text(max_size=2))
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_shuffled_table_is_equal_and_one_less_row_is_not(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float, str]], random: Any
) -> None:
    folder = tmp_path_factory.mktemp("t")
    schema = pa.schema({"a": pa.int8(), "b": pa.float32(), "c": pa.string()})

    def table(of: list[tuple[int, float, str]]) -> pa.Table:
        return pa.Table.from_pylist([dict(zip("abc", row, strict=True)) for row in of], schema)

    shuffled = rows[:]
    random.shuffle(shuffled)
    a = parquet(folder / "a", table(rows))
    b = parquet(folder / "b", table(shuffled[: len(rows) // 2]), table(shuffled[len(rows) // 2 :]))
    for tolerance in (0.0, 1e-6):
        assert compare_rows(a, b, tolerance).equal
        if rows:
            less = Parquet([File(FS, str(folder / "c.parquet"))])
            pq.write_table(table(shuffled[1:]), folder / "c.parquet")
            assert not compare_rows(a, less, tolerance).equal


# -- files, values, and what is needed


def files(*paths: str) -> dict[str, Any]:
    listed = [{"path": p, "size": 1, "checksum": f"sha256:{p}"} for p in paths]
    return {"uri": "file:///x", "files": listed, "bytes": len(paths)}


def test_markers_and_hidden_files_are_no_data() -> None:
    groups = _grouped(
        files("_SUCCESS", ".part-0.parquet.crc", "_temporary/0/a.parquet", "t/b.parquet", "m.bin")
    )
    assert {key: list(found) for key, found in groups.items()} == {
        ("t", "parquet"): ["t/b.parquet"],
        ("", "bytes"): ["m.bin"],
    }


def test_folders_are_tables_of_their_own_unless_they_name_a_partition() -> None:
    groups = _grouped(files("train/a.parquet", "test/a.parquet", "_day=1/k=a%2Fb/c.csv.gz"))
    assert set(groups) == {("train", "parquet"), ("test", "parquet"), ("", "csv")}
    (file,) = groups["", "csv"].values()
    assert file.partition == {"_day": "1", "k": "a/b"}


def test_sparks_random_part_names_are_one_name_for_files_compared_by_bytes() -> None:
    names = (f"part-00000-{c * 8}-{c * 4}-{c * 4}-{c * 4}-{c * 12}-c000.txt" for c in ("a", "b"))
    assert len({tuple(_grouped(files(name))["", "bytes"]) for name in names}) == 1


@pytest.mark.parametrize(
    ("a", "b", "tolerance", "told"),
    [
        ({"x": 1}, {"x": 1.0}, 0, ""),
        ({"x": [1, {"y": 2.0}]}, {"x": [1, {"y": 2.1}]}, 0, "x[1].y is 2.0 in A, 2.1 in B"),
        ({"x": 1.0}, {"x": 1.0 + 1e-12}, 1e-9, ""),
        ({"x": 1.0}, {"x": 1.0 + 1e-12}, 0, "x is 1.0 in A"),
        ({"x": 1}, {}, 0, "x: only in A"),
        ([1], [1, 2], 0, "it is [1] in A"),
        (True, 1, 0, "it is True in A"),
        (None, 0, 0, "it is None in A"),
        (math.nan, math.nan, 0, ""),
        ("a", "a", 0, ""),
    ],
)
def test_values_are_compared_as_json(a: Any, b: Any, tolerance: float, told: str) -> None:
    found = unlike(a, b, tolerance)
    assert found.startswith(told) if told else found == ""


def test_without_pyarrow_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from portaflow.errors import UnsupportedError\n"
        "import portaflow.compare\n"
        "try: import portaflow.parquet\n"
        "except UnsupportedError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'portaflow[compare]'" in done.stdout, done.stderr
