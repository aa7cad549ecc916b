"""Tables in files, read as multisets of rows: where a row stands, and in which file, is lost.

Every row is encoded so that two rows are equal exactly when their bytes are: columns by
name, -0.0 as 0.0, every NaN as one, dictionaries as what they stand for. Parquet is encoded
a column at a time by Arrow; CSV and JSON row by row. Only one batch is held at a time.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .data import store_errors
from .errors import RunError

_BATCH = 65536  # rows

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class File:
    """One file of a table, and the columns that the names of its folders give it."""

    fs: Any
    uri: str
    partition: Mapping[str, str | None] = field(default_factory=dict)

    @contextmanager
    def open(self) -> Iterator[Any]:
        """The file's bytes, decompressed if its name says so."""
        with store_errors(self.uri), self.fs.open(self.uri, compression="infer") as stream:
            yield stream

    def broken(self, error: Exception) -> RunError:
        return RunError(f"{self.uri}: cannot be read as its name says: {error}")


class Batch(ABC):
    """Some rows of a table."""

    @abstractmethod
    def encoded(self, masked: bool) -> list[bytes]:
        """The rows' encodings; `masked`: with every float in the place of every other."""

    @abstractmethod
    def rows(self, indices: Sequence[int]) -> list[Row]:
        """Some of the rows, as Python values."""


class Table(ABC):
    """The files of one folder that hold one kind of rows."""

    def __init__(self, files: Sequence[File]) -> None:
        self.files = files

    @abstractmethod
    def schema(self) -> Mapping[str, str]:
        """Column -> type, as far as the files themselves say it."""

    @abstractmethod
    def batches(self) -> Iterator[Batch]: ...


# -- encoding of Python values


def encode(value: Any, floats: list[float] | None = None) -> bytes:
    """Encode one value. With `floats`, floats are put there instead, in a fixed order."""
    match value:
        case None:
            return b"-"
        case bool():
            return b"b1" if value else b"b0"
        case float():
            if floats is not None:
                floats.append(value)
                return b"f"
            if math.isnan(value):
                return b"fnan"
            return b"i%d," % value if value.is_integer() else b"f%s," % repr(value).encode()
        case int():
            return b"i%d," % value
        case str():
            return _framed(b"s", value.encode("utf-8", "surrogatepass"))
        case bytes():
            return _framed(b"y", value)
        case Mapping():
            pairs = sorted(value.items(), key=lambda item: str(item[0]))
            return _framed(b"m", b"".join(encode(k) + encode(v, floats) for k, v in pairs))
        case list() | tuple():
            return _framed(b"l", b"".join(encode(v, floats) for v in value))
        case _:
            return _framed(b"o", str(value).encode())


def close(a: float, b: float, tolerance: float) -> bool:
    """Whether two numbers count as equal: NaN equals NaN, and the tolerance is relative."""
    return a == b or (math.isnan(a) and math.isnan(b)) or math.isclose(a, b, rel_tol=tolerance)


def _framed(tag: bytes, data: bytes) -> bytes:
    return b"%s%d:%s" % (tag, len(data), data)


class _Plain(Batch):
    """Rows that are Python values already."""

    def __init__(self, rows: Sequence[Any]) -> None:
        self._rows = rows

    def encoded(self, masked: bool) -> list[bytes]:
        return [encode(row, [] if masked else None) for row in self._rows]

    def rows(self, indices: Sequence[int]) -> list[Row]:
        picked = (self._rows[i] for i in indices)
        return [row if isinstance(row, Mapping) else {"": row} for row in picked]


def _batched(rows: Iterable[Any]) -> Iterator[Batch]:
    held: list[Any] = []
    for row in rows:
        held.append(row)
        if len(held) == _BATCH:
            yield _Plain(held)
            held = []
    if held:
        yield _Plain(held)


def partitions(files: Iterable[File]) -> set[str]:
    """The columns that the folders' names give."""
    return {name for file in files for name in file.partition}


# -- CSV

_FLOAT = re.compile(
    r"[+-]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][+-]?\d+)?|[+-]?(nan|inf(inity)?)", re.I
)
_NAME = re.compile(r"[^\W\d][\w .:/-]*")


class Csv(Table):
    """Cells are text; `numeric`: those that look like floats are floats.

    Whether the first lines are headers only the files of both runs together can tell
    (`settle`).
    """

    def __init__(self, files: Sequence[File], numeric: bool = False) -> None:
        super().__init__(files)
        self._numeric = numeric
        self._headed = False

    @staticmethod
    def settle(a: Csv, b: Csv) -> None:
        """Take the first lines for headers where all of a run are alike and look like names.

        Headers of the two runs name some columns alike; lines that are the same in all
        files of both runs are taken for headers, too: then it makes no difference.
        """
        firsts = [table._firsts() for table in (a, b)]
        alike = all(len(rows) == 1 for rows in firsts)
        if not alike:
            return
        (left,), (right,) = firsts
        names = all(_NAME.fullmatch(cell) for cell in (*left, *right))
        unique = len(set(left)) == len(left) and len(set(right)) == len(right)
        shared = set(left) & set(right)
        a._headed = b._headed = unique and (left == right or (names and bool(shared)))

    def _firsts(self) -> set[tuple[str, ...]]:
        return {tuple(row) for file in self.files if (row := next(self._read(file), None))}

    def schema(self) -> Mapping[str, str]:
        names = next(iter(self._firsts()), ()) if self._headed else ()
        return dict.fromkeys([*names, *sorted(partitions(self.files))], "text")

    def batches(self) -> Iterator[Batch]:
        return _batched(row for file in self.files for row in self._rows(file))

    def _rows(self, file: File) -> Iterator[Row]:
        rows = self._read(file)
        names = next(rows, []) if self._headed else []
        for row in rows:
            cells: dict[str, Any] = dict(file.partition)
            for n, cell in enumerate(row):
                name = names[n] if n < len(names) else f"column {n + 1}"
                cells[name] = float(cell) if self._numeric and _FLOAT.fullmatch(cell) else cell
            if row:
                yield cells

    def _read(self, file: File) -> Iterator[list[str]]:
        csv.field_size_limit(2**31 - 1)
        try:
            with file.open() as stream:
                text = io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline="")
                yield from csv.reader(text)
        except (csv.Error, EOFError) as error:
            raise file.broken(error) from error


# -- JSON


class Json(Table):
    """One value a line; or, in a .json file, one document, whose rows are its elements."""

    def schema(self) -> Mapping[str, str]:
        return {}

    def batches(self) -> Iterator[Batch]:
        return _batched(row for file in self.files for row in self._rows(file))

    def _rows(self, file: File) -> Iterator[Any]:
        try:
            for value in self._values(file):
                yield {**file.partition, **value} if isinstance(value, dict) else value
        except (ValueError, RecursionError, EOFError) as error:
            raise file.broken(error) from error

    def _values(self, file: File) -> Iterator[Any]:
        with file.open() as stream:
            lines = (line for line in stream if line.strip())
            first, second = next(lines, None), next(lines, None)
            if first is None:
                return
            if not re.search(r"\.json(\.\w+)?$", file.uri) or (second and _is_json(first)):
                yield json.loads(first)
                if second:
                    yield json.loads(second)
                yield from map(json.loads, lines)
                return
            document = json.loads(b"".join([first, second or b"", *lines]))
            if isinstance(document, list):
                yield from document
            else:
                yield document


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
