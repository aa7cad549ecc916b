"""Whether two runs gave the same data, and where they differ first.

Compared are, for each task, its value (as JSON) and its outputs: Parquet, CSV and JSON as
multisets of rows, everything else byte by byte. Times, sizes, URIs of outputs and the
layout of files are not data. Names that Spark and Hadoop hide (`_SUCCESS`, `.x.crc`) are
not either.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from .data import Stores, read_manifest, store_errors
from .errors import NotFoundError
from .multiset import RowDifference, compare_rows
from .plan import Action
from .session import Past
from .tables import Csv, File, Json, Table, close

_TABULAR = {
    "parquet": "parquet", "pq": "parquet", "csv": "csv", "json": "json", "jsonl": "json",
    "ndjson": "json",
}  # fmt: skip
_PACKED = ("gz", "bz2", "xz", "zst")
_PART = re.compile(r"(?<=part-)(\d+)-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LISTED = 10  # names in one message


@dataclass(frozen=True, slots=True)
class Side:
    """One run, and the filesystems in which its data is."""

    stores: Stores
    past: Past


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One thing that differs. `where`: "value", an output, or a folder or file in it."""

    where: str
    what: str  # missing, value, schema, rows, files or bytes
    detail: str
    examples: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        body = {"where": self.where, "what": self.what, "detail": self.detail}
        return body | ({"examples": list(self.examples)} if self.examples else {})


@dataclass(slots=True)
class Compared:
    """One task of both runs. `rows`: output or folder in it -> row counts of A and B."""

    task: str
    differences: list[Difference] = field(default_factory=list)
    rows: dict[str, tuple[int, int]] = field(default_factory=dict)
    identical: int = 0  # outputs whose files are the same, so that none was read

    @property
    def equal(self) -> bool:
        return not self.differences

    def to_json(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "equal": self.equal,
            "rows": {where: list(counts) for where, counts in self.rows.items()},
            "differences": [d.to_json() for d in self.differences],
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The tasks of both runs in topological order."""

    runs: tuple[str, str]
    tasks: tuple[Compared, ...]

    @property
    def first(self) -> Compared | None:
        """The first task that differs."""
        return next((t for t in self.tasks if not t.equal), None)

    @property
    def equal(self) -> bool:
        return self.first is None

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": list(self.runs),
            "equal": self.equal,
            "first": self.first.task if self.first else None,
            "tasks": [t.to_json() for t in self.tasks],
        }


def compare(a: Side, b: Side, tolerance: float = 0.0) -> Comparison:
    """Compare two runs. `tolerance`: up to which relative difference floats count as equal."""
    left, right = _tasks(a.past), _tasks(b.past)
    tasks = []
    for id in [*left, *(id for id in right if id not in left)]:
        compared = Compared(id)
        tasks.append(compared)
        if id not in left or id not in right:
            run = b if id not in left else a
            detail = f"only run {run.past.plan.run!r} has this task"
            compared.differences.append(Difference(where="task", what="missing", detail=detail))
            continue
        _Task(compared, a, b, tolerance).compare(left[id], right[id])
    return Comparison((a.past.plan.run, b.past.plan.run), tuple(tasks))


def _tasks(past: Past) -> dict[str, Action]:
    return {a.id: a for a in past.plan.actions if a.kind not in ("cluster", "transfer")}


class _Task:
    """Compares one task of both runs."""

    def __init__(self, into: Compared, a: Side, b: Side, tolerance: float) -> None:
        self._into, self._sides, self._tolerance = into, (a, b), tolerance

    def compare(self, left: Action, right: Action) -> None:
        manifests = [
            self._manifest(side, action)
            for side, action in zip(self._sides, (left, right), strict=True)
        ]
        missing = [
            f"run {side.past.plan.run!r} has not committed it"
            for side, manifest in zip(self._sides, manifests, strict=True)
            if manifest is None
        ]
        if missing:
            self._differ("task", "missing", "; ".join(missing))
            return
        mine, other = (m["outputs"] for m in manifests if m)
        values = [m.get("value") for m in manifests if m]
        if told := unlike(values[0], values[1], self._tolerance):
            self._differ("value", "value", told)
        for name in [*mine, *(n for n in other if n not in mine)]:
            if name not in mine or name not in other:
                run = self._sides[name not in mine].past.plan.run
                self._differ(name, "missing", f"only run {run!r} has this output")
            else:
                self._output(name, mine[name], other[name])

    def _manifest(self, side: Side, action: Action) -> Mapping[str, Any] | None:
        try:
            return read_manifest(side.stores(action.home), action.home)
        except NotFoundError:
            return None

    def _differ(
        self, where: str, what: str, detail: str, examples: tuple[Mapping[str, Any], ...] = ()
    ) -> None:
        self._into.differences.append(
            Difference(where=where, what=what, detail=detail, examples=examples)
        )

    def _output(self, name: str, mine: Mapping[str, Any], other: Mapping[str, Any]) -> None:
        groups = [_grouped(output) for output in (mine, other)]
        for key in sorted({*groups[0], *groups[1]}):
            folder, kind = key
            where = f"{name}/{folder}".rstrip("/")
            if kind == "bytes" or not all(key in g for g in groups):
                self._files(where, kind, groups[0].get(key, {}), groups[1].get(key, {}))
            elif _same_files(*(g[key] for g in groups)):
                self._into.identical += 1
            else:
                self._table(where, kind, *(g[key] for g in groups))

    # -- files

    def _files(
        self, where: str, kind: str, mine: Mapping[str, _File], other: Mapping[str, _File]
    ) -> None:
        if kind != "bytes":
            run = self._sides[not mine].past.plan.run
            self._differ(where, "missing", f"only run {run!r} has {kind} files here")
            return
        for side, here, there in ((0, mine, other), (1, other, mine)):
            if names := sorted(here.keys() - there.keys()):
                more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
                run = self._sides[side].past.plan.run
                listed = ", ".join(names[:_LISTED])
                self._differ(where, "files", f"only run {run!r} has {listed}{more}")
        for path in sorted(mine.keys() & other.keys()):
            if told := self._bytes(mine[path], other[path]):
                self._differ(f"{where}/{path.rpartition('/')[2]}", "bytes", told)

    def _bytes(self, mine: _File, other: _File) -> str:
        if mine.size != other.size:
            return f"{mine.size} bytes in A, {other.size} in B"
        if mine.checksum == other.checksum:
            return ""
        both = zip(self._sides, (mine.uri, other.uri), strict=True)
        sums = [_sha256(side.stores(uri), uri) for side, uri in both]
        return "" if sums[0] == sums[1] else f"the same {mine.size} bytes in length, not in content"

    # -- tables

    def _table(
        self, where: str, kind: str, mine: Mapping[str, _File], other: Mapping[str, _File]
    ) -> None:
        a, b = (
            self._opened(kind, side, files)
            for side, files in zip(self._sides, (mine, other), strict=True)
        )
        if isinstance(a, Csv) and isinstance(b, Csv):
            Csv.settle(a, b)
        schemas = a.schema(), b.schema()
        if schemas[0] != schemas[1]:
            self._differ(where, "schema", "; ".join(_schema_differences(*schemas)))
            return
        found = compare_rows(a, b, self._tolerance)
        self._into.rows[where] = found.counts
        if not found.equal:
            self._differ(where, "rows", _told(found), tuple(found.examples))

    def _opened(self, kind: str, side: Side, files: Mapping[str, _File]) -> Table:
        listed = [File(side.stores(f.uri), f.uri, f.partition) for _, f in sorted(files.items())]
        if kind == "csv":
            return Csv(listed, numeric=self._tolerance > 0)
        if kind == "json":
            return Json(listed)
        from .parquet import Parquet

        return Parquet(listed)


def _told(found: RowDifference) -> str:
    mine, other = found.counts
    if mine != other:
        return f"{mine} rows in A, {other} in B"
    return f"{mine} rows in both, not all equal"


def _schema_differences(mine: Mapping[str, str], other: Mapping[str, str]) -> Iterator[str]:
    for name in [*mine, *(n for n in other if n not in mine)]:
        if name not in other:
            yield f"only A has column {name!r} ({mine[name]})"
        elif name not in mine:
            yield f"only B has column {name!r} ({other[name]})"
        elif mine[name] != other[name]:
            yield f"column {name!r} is {mine[name]} in A, {other[name]} in B"


# -- files of an output


@dataclass(frozen=True, slots=True)
class _File:
    uri: str
    size: int
    checksum: str
    partition: Mapping[str, str | None]


def _grouped(output: Mapping[str, Any]) -> dict[tuple[str, str], dict[str, _File]]:
    """(folder, kind of content) -> the files there by path, those without data left out.

    Folders named column=value are no folders but columns.
    """
    groups: dict[tuple[str, str], dict[str, _File]] = {}
    for entry in output["files"]:
        path = entry["path"]
        if any(_hidden(part) for part in path.split("/") if path):
            continue
        *folders, name = path.split("/")
        kind = _kind(name or output["uri"])
        partition = {}
        if kind != "bytes":
            pairs = [f.partition("=") for f in folders if "=" in f]
            partition = {k: _partition_value(v) for k, _, v in pairs}
            folders = [f for f in folders if "=" not in f]
        uri = f"{output['uri']}/{path}" if path else output["uri"]
        file = _File(uri, entry["size"], entry["checksum"], partition)
        key = path if kind != "bytes" else _PART.sub(r"\1", path)
        groups.setdefault(("/".join(folders), kind), {})[key] = file
    return groups


def _hidden(part: str) -> bool:
    return part.startswith(".") or (part.startswith("_") and "=" not in part)


def _kind(name: str) -> str:
    parts = name.lower().split(".")
    if len(parts) > 2 and parts[-1] in _PACKED:
        parts.pop()
    return _TABULAR.get(parts[-1], "bytes") if len(parts) > 1 else "bytes"


def _partition_value(text: str) -> str | None:
    return None if text == "__HIVE_DEFAULT_PARTITION__" else unquote(text)


def _same_files(mine: Mapping[str, _File], other: Mapping[str, _File]) -> bool:
    """Whether the files have the same content, by their checksums; no may mean unknown."""
    contents = [
        sorted((f.checksum, f.size, repr(sorted(f.partition.items()))) for f in files.values())
        for files in (mine, other)
    ]
    return contents[0] == contents[1]


def _sha256(fs: Any, uri: str) -> str:
    with store_errors(uri), fs.open(uri, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# -- values


def unlike(a: Any, b: Any, tolerance: float, at: str = "") -> str:
    """Say where two JSON values differ first, "" when they do not."""
    numbers = [isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b)]
    if all(numbers):
        same = close(a, b, tolerance)
    elif isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(k for k in b if k not in a)]:
            inner = f"{at}.{key}".lstrip(".")
            if key not in a or key not in b:
                return f"{inner}: only in {'B' if key not in a else 'A'}"
            if told := unlike(a[key], b[key], tolerance, inner):
                return told
        return ""
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs = enumerate(zip(a, b, strict=True))
        return next(
            filter(None, (unlike(x, y, tolerance, f"{at}[{n}]") for n, (x, y) in pairs)), ""
        )
    else:
        same = type(a) is type(b) and a == b
    return "" if same else f"{at or 'it'} is {_brief(a)} in A, {_brief(b)} in B"


def _brief(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
