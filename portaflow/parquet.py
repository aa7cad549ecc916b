"""Parquet as a table of `tables.py`: rows encoded a column at a time, by Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from .errors import UnsupportedError
from .tables import Batch, File, Row, Table, encode, partitions

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise UnsupportedError(
        "to compare Parquet files, pyarrow is needed: pip install 'portaflow[compare]'"
    ) from error

_ROWS = 65536
_CELLS = 2**21  # per batch: wide tables come in fewer rows
_UNREADABLE = (ValueError, OverflowError, KeyError, ImportError, pa.ArrowException)
"""What Arrow raises for a value that Python has no type for, such as the year 10000."""


class Parquet(Table):
    """Columns that one file lacks and another has are null there."""

    def schema(self) -> Mapping[str, str]:
        types: dict[str, set[str]] = {}
        for file in self.files:
            with self._opened(file) as parquet:
                for column in parquet.schema_arrow:
                    types.setdefault(column.name, set()).add(_type(column.type))
        shown = {name: " or ".join(sorted(kinds)) for name, kinds in types.items()}
        return shown | dict.fromkeys(sorted(partitions(self.files)), "folder")

    @cached_property
    def _columns(self) -> list[str]:
        return sorted(self.schema())

    def batches(self) -> Iterator[Batch]:
        size = max(min(_ROWS, _CELLS // max(len(self._columns), 1)), 64)
        for file in self.files:
            with self._opened(file) as parquet:
                for batch in parquet.iter_batches(batch_size=size, use_threads=False):
                    yield _Columns(batch, self._columns, file.partition)

    def _opened(self, file: File) -> _Opened:
        return _Opened(file)


class _Opened:
    """A Parquet file while it is read; what Arrow says against it names the file.

    Arrow's own threads must not touch the stream: one that still lets go of it while Python
    ends kills the process (apache/arrow issue 34314).
    """

    def __init__(self, file: File) -> None:
        self._file, self._context = file, file.open()

    def __enter__(self) -> Any:
        stream = self._context.__enter__()
        try:
            return pq.ParquetFile(stream, pre_buffer=False)
        except pa.ArrowException as error:
            raise self._file.broken(error) from error

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._context.__exit__(kind, error, trace)
        if isinstance(error, pa.ArrowException):
            raise self._file.broken(error) from error


def _type(kind: Any) -> str:
    """The type without how it is laid out: large, dictionary, view, names of list elements."""
    types = pa.types
    if types.is_dictionary(kind):
        return _type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return _type(kind.storage_type)
    if types.is_map(kind):
        return f"map<{_type(kind.key_type)}, {_type(kind.item_type)}>"
    if types.is_struct(kind):
        parts = sorted(f"{child.name}: {_type(child.type)}" for child in kind)
        return f"struct<{', '.join(parts)}>"
    if _is_list(kind):
        return f"list<{_type(kind.value_type)}>"
    if types.is_timestamp(kind):
        return f"timestamp[{kind.unit}{', tz' if kind.tz else ''}]"
    return str(kind).removeprefix("large_").removesuffix("_view")


def _is_list(kind: Any) -> bool:
    return "list" in str(kind).split("<")[0].split("[")[0]


class _Columns(Batch):
    def __init__(
        self, batch: Any, columns: Sequence[str], partition: Mapping[str, str | None]
    ) -> None:
        self._batch, self._columns, self._partition = batch, columns, partition

    def encoded(self, masked: bool) -> list[bytes]:
        count = self._batch.num_rows
        parts = []
        for name in self._columns:
            at = self._batch.schema.get_all_field_indices(name)
            parts += [_encoded(self._batch.column(i), masked) for i in at]
            if not at:
                parts.append(_constant(self._partition.get(name), count))
        if not parts:
            return [b""] * count
        rows: list[bytes] = _joined(parts, b",").to_pylist()
        return rows

    def rows(self, indices: Sequence[int]) -> list[Row]:
        picked = self._batch.take(pa.array(indices, pa.int64()))
        names = picked.schema.names
        columns = [_values(column) for column in picked.columns]
        folders = dict(self._partition)
        return [folders | dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except _UNREADABLE:
        values = [str(v) if v.is_valid else None for v in _integers(column)]
    if pa.types.is_map(column.type):
        return [v if v is None else dict(v) for v in values]
    return values


def _integers(column: Any) -> Any:
    return pc.cast(column, pa.int64()) if pa.types.is_temporal(column.type) else column


def _constant(value: str | None, count: int) -> Any:
    data = None if value is None else b"%d:%s" % (len(value.encode()), value.encode())
    return pa.repeat(pa.scalar(data, pa.large_binary()), count)


def _joined(parts: Sequence[Any], between: bytes) -> Any:
    """Join columns row by row, "-" for null: no encoding of a value begins like it."""
    return pc.binary_join_element_wise(
        *parts, pa.scalar(between, pa.large_binary()),
        null_handling="replace", null_replacement=b"-",
    )  # fmt: skip


def _framed(column: Any) -> Any:
    length = _binary(pc.cast(pc.binary_length(column), pa.large_string()))
    colon = pa.scalar(b":", pa.large_binary())
    return pc.binary_join_element_wise(length, column, colon)


def _binary(column: Any) -> Any:
    return pc.cast(column, pa.large_binary())


def _encoded(column: Any, masked: bool) -> Any:
    """The column's values as bytes, null where they are; framed where they may hold anything."""
    kind, types = column.type, pa.types
    if types.is_dictionary(kind):
        return _encoded(column.dictionary_decode(), masked)
    if isinstance(kind, pa.BaseExtensionType):
        return _encoded(column.storage, masked)
    if types.is_null(kind):
        return pa.nulls(len(column), pa.large_binary())
    if types.is_floating(kind):
        return _floats(column, masked)
    if types.is_integer(kind) or types.is_boolean(kind) or types.is_decimal(kind):
        return _binary(pc.cast(column, pa.large_string()))
    if types.is_date32(kind) or types.is_time32(kind):
        return _encoded(column.cast(pa.int32()), masked)
    if types.is_temporal(kind) and not types.is_interval(kind):
        return _encoded(column.cast(pa.int64()), masked)
    if types.is_large_string(kind) or types.is_large_binary(kind):
        return _framed(_binary(column))
    if types.is_string(kind) or str(kind) == "string_view":
        return _framed(_binary(pc.cast(column, pa.large_string())))
    if types.is_binary(kind) or types.is_fixed_size_binary(kind) or str(kind) == "binary_view":
        return _framed(_binary(column))
    if types.is_struct(kind):
        order = sorted(range(kind.num_fields), key=lambda i: kind.field(i).name)
        parts = [_encoded(pc.struct_field(column, [i]), masked) for i in order]
        whole = _framed(_joined(parts, b",")) if parts else _constant("", len(column))
        return pc.if_else(column.is_valid(), whole, pa.scalar(None, pa.large_binary()))
    if _is_list(kind):
        return _lists(column, masked)
    values = [None if v is None else _any(v, masked) for v in column.to_pylist()]
    return _framed(pa.array(values, pa.large_binary()))


def _any(value: Any, masked: bool) -> bytes:
    if isinstance(value, list):  # of a map: its order means nothing
        return b"".join(sorted(encode(item, [] if masked else None) for item in value))
    return encode(value, [] if masked else None)


def _floats(column: Any, masked: bool) -> Any:
    if masked:
        mark = pa.scalar(b"f", pa.large_binary())
        return pc.if_else(column.is_valid(), mark, pa.scalar(None, pa.large_binary()))
    column = column.cast(pa.float32()) if pa.types.is_float16(column.type) else column
    column = pc.add(column, pa.scalar(0.0, column.type))  # -0.0 + 0.0 is 0.0
    nan = pa.scalar(float("nan"), column.type)
    column = pc.if_else(pc.is_nan(column), nan, column)
    return _binary(pc.cast(column, pa.large_string()))


def _lists(column: Any, masked: bool) -> Any:
    """Encode all elements at once, then join those of each list."""
    if pa.types.is_fixed_size_list(column.type):
        column = column.cast(pa.list_(column.type.value_field))
    counts = pc.fill_null(pc.cast(pc.list_value_length(column), pa.int64()), 0)
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(counts)])
    elements = pc.fill_null(_encoded(column.flatten(), masked), b"-")
    texts = pa.LargeListArray.from_arrays(offsets, elements)
    whole = _framed(pc.binary_join(texts, pa.scalar(b",", pa.large_binary())))
    return pc.if_else(column.is_valid(), whole, pa.scalar(None, pa.large_binary()))
